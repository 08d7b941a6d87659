//! `dagger bench vm`: what hosting costs over a bare QEMU. A network of four operators runs on this machine; its first
//! machine hosts micro guests, and beside it QEMU is started with the same devices and nothing around it.
//!
//! Everything lies below one directory, which is how all of it is found again and ended.

mod bare;
mod cloud;
mod disk;
mod fetch;
mod guest;
mod many;
mod start;
mod tunnel;

use super::figure::{self, Figure};
use crate::args::{BenchVmArgs, BenchVmPart};
use crate::dev;
use crate::failure::{Done, Exit, Failure};
use clap::ValueEnum as _;
use cloud::Cloud;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

const BENCH: &str = "vm";
/// What `--quick` cuts the numbers down to.
const QUICK_RUNS: u16 = 5;
const QUICK_MANY: u16 = 6;

/// Measures, prints, and leaves nothing behind, also when it is interrupted.
pub fn run(args: &BenchVmArgs) -> Done {
    let mut args = args.clone();
    if args.quick {
        args.runs = args.runs.min(QUICK_RUNS);
        args.many = args.many.min(QUICK_MANY);
    }
    if args.only.is_empty() {
        args.only = BenchVmPart::value_variants().to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    let figures = runtime.block_on(measure_and_clean_up(&args))?;
    figure::print(&figures, args.json)
}

async fn measure_and_clean_up(args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let mut signals = Vec::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        signals.push(signal(kind).map_err(|error| Failure::file("signals", &error))?);
    }
    let [interrupted, terminated, hung_up] = &mut signals[..] else {
        unreachable!("as many as were asked for");
    };
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.map_err(|error| Failure::file("a directory for the network", &error))?;
    let root = dir
        .path()
        .canonicalize()
        .map_err(|error| Failure::file(dir.path().display(), &error))?;
    let done = tokio::select! {
        done = measure(&root, args) => done,
        _ = interrupted.recv() => Err(stopped()),
        _ = terminated.recv() => Err(stopped()),
        _ = hung_up.recv() => Err(stopped()),
    };
    dev::kill_all(&root).await?;
    dir.close()
        .map_err(|error| Failure::file(root.display(), &error))?;
    done
}

fn stopped() -> Failure {
    Failure::new(
        Exit::Failure,
        "E_INTERRUPTED",
        "interrupted; every process started here has been ended",
    )
}

async fn measure(root: &Path, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let (parts, mut figures) = (&args.only, Vec::new());
    if parts.contains(&BenchVmPart::Fetch) {
        // Before there is a network, which would take a share of the processors.
        figures.extend(fetch::measure(root, args).await?);
    }
    if parts.iter().all(|part| *part == BenchVmPart::Fetch) {
        return Ok(figures);
    }
    let cloud = Cloud::start(root, args).await?;
    let template = bare::Template::take(&cloud).await?;
    for part in parts {
        figures.extend(match part {
            BenchVmPart::Fetch => Vec::new(),
            BenchVmPart::Start => start::measure(&cloud, &template, args).await?,
            BenchVmPart::Tunnel => tunnel::measure(&cloud, &template, args).await?,
            BenchVmPart::Disk => disk::measure(&cloud, &template, args).await?,
            BenchVmPart::Many => many::measure(&cloud, &template, args).await?,
        });
    }
    Ok(figures)
}

/// The middle of what was measured.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
