//! `dagger ledger replay`: the ledger recomputed from a node's logs, trusting the genesis file alone.

use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_node::config::NodeConfig;
use dagger_node::replay::{self, Replayed};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// What came out of a replay.
#[derive(Serialize)]
struct Report {
    epoch: u64,
    events: u64,
    transactions: u64,
    commit: u64,
    checkpoint: u64,
    time_ms: u64,
    state_root: String,
    /// Roots that equal certified ones, and the last commit among them.
    compared: u64,
    certified: u64,
}

pub fn replay(context: &Context, data: &Path) -> Done {
    let config = NodeConfig::load(data).map_err(super::super::node::node_failure)?;
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid"),
    );
    let started = Instant::now();
    let replayed = replay::replay(&config, |so_far| {
        bar.set_message(format!(
            "epoch {}, commit {}, {} transactions",
            so_far.epoch, so_far.commit, so_far.transactions
        ));
        bar.tick();
    });
    bar.finish_and_clear();
    let replayed =
        replayed.map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))?;
    let report = report(&replayed);
    if context.json() {
        return output::json(&report);
    }
    show(&report, started)
}

fn report(replayed: &Replayed) -> Report {
    Report {
        epoch: replayed.epoch,
        events: replayed.events,
        transactions: replayed.transactions,
        commit: replayed.commit,
        checkpoint: replayed.checkpoint,
        time_ms: replayed.time_ms,
        state_root: hex::encode(replayed.state_root),
        compared: replayed.compared,
        certified: replayed.certified,
    }
}

fn show(report: &Report, started: Instant) -> Done {
    output::fields(&[
        (
            "replayed",
            format!(
                "epochs 0 to {}: {} events, {} commits, {} transactions, in {:.1} s",
                report.epoch,
                report.events,
                report.commit,
                report.transactions,
                started.elapsed().as_secs_f64()
            ),
        ),
        (
            "state root",
            format!(
                "{} after commit {}, {}",
                report.state_root,
                report.checkpoint,
                output::date(report.time_ms)
            ),
        ),
        (
            "certified",
            match report.compared {
                0 => "nothing yet".to_owned(),
                compared => format!(
                    "{compared} roots, each the one that a quorum signed; the last after commit {}",
                    report.certified
                ),
            },
        ),
    ])
}
