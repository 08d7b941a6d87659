//! Faults that a test brings about in a running node, where no signal or file system can: a clock that is off, a
//! state that differs, a program of another version. The node looks at a file that `faults` in `node.toml` names; without that setting none of this runs.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::Deserialize;

use crate::{config::NodeConfig, handle::Shared};

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Faults {
    /// How far this node's clock is off.
    pub clock_ms: i64,
    /// Whether the roots it computes from now on are wrong.
    pub wrong_roots: bool,
    /// From its next start on the node is of a program that knows versions of the rules up to this one.
    pub newest_protocol_version: Option<u32>,
}

/// The faults that a node has from its start on.
pub(crate) fn at_start(config: &NodeConfig) -> Faults {
    let file = config.faults.as_ref();
    let bytes = file.and_then(|file| std::fs::read(config.data_dir.join(file)).ok());
    let faults = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    faults.unwrap_or_default()
}

/// Brings about what the file says, and takes it back, for as long as the node runs.
pub(crate) async fn run(shared: Arc<Shared>, file: impl AsRef<Path>) {
    let path = shared.config.data_dir.join(file);
    tracing::warn!(file = %path.display(), "this node looks for faults to have: it is under test");
    let mut present = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Ok(bytes) = tokio::fs::read(&path).await else {
            continue;
        };
        match serde_json::from_slice::<Faults>(&bytes) {
            Ok(wanted) if present.as_ref() != Some(&wanted) => {
                tracing::warn!(?wanted, "faults");
                shared.clock.set_off_by(wanted.clock_ms);
                let wrong = wanted.wrong_roots;
                shared.wrong_roots.store(wrong, Ordering::Release);
                present = Some(wanted);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the faults file cannot be read"),
        }
    }
}
