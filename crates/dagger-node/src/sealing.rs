//! Seals the logs of epochs that have ended, beside everything else: on one thread, with a quarter of its time at most.
//!
//! What must not live here: what a sealed log looks like (`store`).

use std::time::{Duration, Instant};

use shadowgraph::Epoch;
use tokio_util::sync::CancellationToken;

use crate::{
    cores::{Ground, blocking},
    error::NodeError,
};

/// After a step it rests for so many times what the step took.
const REST: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(500);

/// Seals what can be sealed now, and then whenever an epoch has ended, until `stop`.
pub(crate) async fn run(ground: Ground, stop: CancellationToken) {
    let mut first = 0;
    loop {
        let (sealer, stopped) = (ground.clone(), stop.clone());
        let sealed = blocking("sealing logs", move || {
            Ok(seal_from(&sealer, first, &stopped))
        });
        match sealed.await {
            Ok(next) => first = next,
            Err(error) => tracing::error!(code = error.code(), %error, "cannot seal logs"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = ground.epochs.ended() => {}
        }
    }
}

/// Seals the logs of the ended epochs from `first` on; returns the first that is to be tried again.
fn seal_from(ground: &Ground, first: u64, stop: &CancellationToken) -> u64 {
    let present = match ground.epochs.last_end() {
        Ok(end) => end.map_or(0, |end| end.next.epoch().0),
        Err(error) => {
            tracing::error!(code = error.code(), %error, "cannot seal logs");
            return first;
        }
    };
    let mut again = present;
    for epoch in (first..present).map(Epoch) {
        if stop.is_cancelled() {
            return first;
        }
        if !ground.epochs.has_log(epoch) {
            continue;
        }
        if let Err(error) = seal(ground, epoch, stop) {
            again = again.min(epoch.0);
            tracing::warn!(code = error.code(), %error, %epoch, "cannot seal the log of an ended epoch");
            if matches!(error, NodeError::StoreDamaged { .. }) {
                ground.shared.damaged.report(epoch);
            }
        }
    }
    again
}

fn seal(ground: &Ground, epoch: Epoch, stop: &CancellationToken) -> Result<(), NodeError> {
    let started = Instant::now();
    let (mut since, mut worked) = (started, Duration::ZERO);
    let report = ground.epochs.seal(epoch, &mut || {
        let step = since.elapsed();
        worked += step;
        std::thread::sleep((step * REST).min(REST_MAX));
        since = Instant::now();
        !stop.is_cancelled()
    })?;
    if report.segments > 0 {
        let (took_ms, worked_ms) = (started.elapsed().as_millis(), worked.as_millis());
        let (segments, before, after) = (report.segments, report.before, report.after);
        tracing::info!(%epoch, segments, before, after, took_ms, worked_ms, "sealed the log of an ended epoch");
    }
    Ok(())
}
