//! Runs all contenders in turn, round after round, so that what disturbs the machine disturbs all of them.

use crate::measured::{Load, Measured};
use crate::table::{Highest, Table};
use crate::{Peer, cluster, dagger};
use std::path::PathBuf;

/// From one rate to the next while it is kept up with.
const STEP: f64 = 1.5;
/// Halvings of the last step of a search.
const HALVINGS: u32 = 3;
/// A rate is given up when it was not kept up with this often: a neighbour may have disturbed one run.
const TRIES: u32 = 2;
/// A search does not go below.
const RATE_MIN: u64 = 1_000;

/// Who is measured.
pub enum Contender {
    /// The product: the program's path.
    Dagger(PathBuf),
    /// A peer, and what it is called in the table.
    Peer(&'static str, Peer),
}

/// What is measured.
pub struct Options {
    /// The product.
    pub dagger: Contender,
    /// Its peers.
    pub peers: Vec<Contender>,
    /// Rates at which all are measured.
    pub rates: Vec<u64>,
    /// Where the searches for the highest rates start, of peers and of the product, if they are looked for.
    pub search_from: Option<(u64, u64)>,
    /// A peer's rate with a higher p99 is not kept up with: queues grow.
    pub p99_max_ms: f64,
    /// How often everything is done.
    pub rounds: u16,
    /// Every run's load but its rate.
    pub load: Load,
}

/// Measures everything; the table.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let mut table = Table::default();
    let load = |rate| Load {
        rate,
        ..options.load
    };
    for round in 1..=options.rounds {
        for rate in &options.rates {
            for contender in std::iter::once(&options.dagger).chain(&options.peers) {
                let measured = contender.run(&load(*rate))?;
                eprintln!("round {round}: {}: {}", contender.name(), line(&measured));
                table.add(*rate, contender.name(), measured);
            }
        }
        let Some((from, dagger_from)) = options.search_from else {
            continue;
        };
        for peer in &options.peers {
            let Some(theirs) = peer.search(&options.load, from, options.p99_max_ms)? else {
                eprintln!("round {round}: {}: no rate was kept up with", peer.name());
                continue;
            };
            // What the product does at the latency at which the peer does its most.
            let ours = options
                .dagger
                .search(&options.load, dagger_from, theirs.p99_ms)?;
            table.add_highest(peer.name(), Highest { theirs, ours });
        }
    }
    Ok(table)
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Dagger(_) => "dagger",
            Self::Peer(name, _) => name,
        }
    }

    fn run(&self, load: &Load) -> anyhow::Result<Measured> {
        match self {
            Self::Dagger(path) => dagger::run(path, load),
            Self::Peer(_, peer) => cluster::run(*peer, load),
        }
    }

    /// The highest rate that is kept up with at no more than this p99.
    fn search(&self, load: &Load, from: u64, p99_max_ms: f64) -> anyhow::Result<Option<Measured>> {
        let mut best: Option<Measured> = None;
        let mut too_high: Option<u64> = None;
        let (mut rate, mut halvings) = (from, 0);
        loop {
            match self.keeps_up(&Load { rate, ..*load }, p99_max_ms)? {
                Some(measured) => best = Some(measured),
                None => too_high = Some(rate),
            }
            rate = match (best, too_high) {
                (Some(best), None) => (best.rate as f64 * STEP) as u64,
                (None, Some(high)) if high < RATE_MIN => return Ok(None),
                (None, Some(high)) => (high as f64 / STEP) as u64,
                (Some(_), Some(_)) if halvings == HALVINGS => return Ok(best),
                (Some(best), Some(high)) => {
                    halvings += 1;
                    best.rate.midpoint(high)
                }
                (None, None) => unreachable!("the run above was either"),
            };
        }
    }

    fn keeps_up(&self, load: &Load, p99_max_ms: f64) -> anyhow::Result<Option<Measured>> {
        for _ in 0..TRIES {
            let measured = self.run(load)?;
            let kept_up = measured.kept_up(p99_max_ms);
            let verdict = if kept_up { "" } else { ": not kept up" };
            eprintln!("{}: {}{verdict}", self.name(), line(&measured));
            if kept_up {
                return Ok(Some(measured));
            }
        }
        Ok(None)
    }
}

fn line(m: &Measured) -> String {
    format!(
        "{}/s: {:.0}/s ordered, p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms, {:.2} cores, {:.1} CPU-s a million, {:.0} MiB, {:.2} bytes \
         sent a byte, {} refused, {} lost or repeated",
        m.rate,
        m.committed,
        m.p50_ms,
        m.p99_ms,
        m.max_ms,
        m.cores,
        m.cpu_per_million,
        m.resident_mib,
        m.sent_per_byte,
        m.refused,
        m.lost_or_repeated,
    )
}
