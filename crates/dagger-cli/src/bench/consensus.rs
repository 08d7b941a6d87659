//! `dagger bench consensus`: one rate, or the search for the highest that is kept up with.

use super::cluster::{self, Run};
use super::figure::{self, Figure};
use super::targets;
use crate::args::{BenchConsensusArgs, BenchMode, BenchStore, BenchTransport};
use crate::failure::{Done, Exit, Failure};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

const BENCH: &str = "consensus";
/// The share of what was offered that must come out to have been kept up with.
const KEPT_UP: f64 = 0.98;
/// A search starts no lower.
const SEARCH_FROM: u64 = 20_000;
/// Halvings of the last step of a search.
const SEARCH_HALVINGS: u32 = 3;

pub fn run(args: &BenchConsensusArgs) -> Done {
    let mut args = args.clone();
    if args.quick {
        args.warmup = args.warmup.min(1.0);
        args.duration = args.duration.min(4.0);
    }
    if args.transport == BenchTransport::Memory && (args.crash > 0 || args.slow.is_some()) {
        return Err(Failure::usage(
            "--crash and --slow need a process a member: use them with --transport iroh",
        ));
    }
    let in_memory = args.transport == BenchTransport::Memory || args.store == BenchStore::Memory;
    if args.mode == BenchMode::Ledger && in_memory {
        return Err(Failure::usage(
            "--mode ledger runs whole nodes: use it with --transport iroh and --store disk",
        ));
    }
    if args.crash * 3 >= args.n.max(1) && args.crash > 0 {
        return Err(Failure::usage(
            "with a third of the members gone nothing is ordered: lower --crash or raise --n",
        ));
    }
    let result = if args.search {
        search(&args)?
    } else {
        measure(&args, args.rate)?
    };
    figure::print(&result.figures(&args), args.json)
}

/// What one run at one rate came to.
struct Measured {
    rate: u64,
    committed: f64,
    refused: u64,
    repeated: u64,
    lost: u64,
    dropped_frames: u64,
    refused_by_ledger: u64,
    /// What checking one signature costs, on average over the members.
    signature_us: Option<f64>,
    latency: Histogram<u64>,
    cpu_seconds: f64,
    seconds: f64,
    sent_bytes: u64,
    resident_max: u64,
    rounds: f64,
}

fn measure(args: &BenchConsensusArgs, rate: u64) -> Done<Measured> {
    let run = cluster::run(args, rate)?;
    check_agreement(&run)?;
    let members = || run.reports.iter().flat_map(|report| &report.members);
    let loaded = || members().filter(|m| !run.slowed.contains(&m.seat));
    let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3).expect("good bounds");
    for (value, count) in loaded().flat_map(|m| &m.seen.latencies) {
        latency.saturating_record_n(*value, *count);
    }
    let processes_members = run.reports.first().map_or(1, |r| r.members.len().max(1)) as u64;
    Ok(Measured {
        rate,
        committed: loaded().map(|m| m.seen.committed).sum::<u64>() as f64 / args.duration,
        refused: loaded().map(|m| m.refused).sum(),
        repeated: members().map(|m| m.seen.repeated).sum(),
        lost: loaded()
            .map(|m| m.submitted - m.refused - m.seen.ordered)
            .sum(),
        dropped_frames: members().map(|m| m.dropped_frames).sum(),
        refused_by_ledger: members().map(|m| m.seen.refused_by_ledger).sum(),
        signature_us: mean(members().filter_map(|m| m.signature_us)),
        latency,
        cpu_seconds: run.reports.iter().map(|r| r.cpu_seconds).sum(),
        seconds: args.duration,
        sent_bytes: members().map(|m| m.sent_bytes).sum(),
        resident_max: run
            .reports
            .iter()
            .map(|r| r.resident_bytes / processes_members)
            .max()
            .unwrap_or(0),
        rounds: loaded().map(|m| m.seen.rounds).max().unwrap_or(0) as f64 / args.duration,
    })
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Members that ordered differently would make every figure worthless.
fn check_agreement(run: &Run) -> Done {
    let mut known: BTreeMap<u64, &str> = BTreeMap::new();
    let members = run.reports.iter().flat_map(|report| &report.members);
    for (index, digest) in members.flat_map(|m| &m.seen.digests) {
        if *known.entry(*index).or_insert(digest) != digest {
            return Err(Failure::new(
                Exit::Failure,
                "E_DIVERGED",
                format!("members differ on commit {index}: the measurement is worth nothing"),
            ));
        }
    }
    Ok(())
}

/// Doubles the rate while it is kept up with, then narrows down.
fn search(args: &BenchConsensusArgs) -> Done<Measured> {
    let mut best: Option<Measured> = None;
    let mut too_high: Option<u64> = None;
    let mut rate = args.rate.max(SEARCH_FROM);
    let mut halvings = 0;
    loop {
        let measured = measure(args, rate)?;
        let kept_up = measured.kept_up(args);
        eprintln!(
            "{rate}/s: {:.0}/s ordered, p50 {:.1} ms, p99 {:.1} ms{}",
            measured.committed,
            measured.quantile_ms(0.5),
            measured.quantile_ms(0.99),
            if kept_up { "" } else { ": not kept up" }
        );
        if kept_up {
            best = Some(measured);
        } else {
            too_high = Some(rate);
        }
        let low = best.as_ref().map_or(0, |b| b.rate);
        rate = match too_high {
            None => rate * 2,
            Some(_) if halvings == SEARCH_HALVINGS => break,
            Some(high) => {
                halvings += 1;
                low.midpoint(high)
            }
        };
    }
    best.ok_or_else(|| {
        let text = "not even the lowest rate was kept up with";
        Failure::new(Exit::Failure, "E_BENCH", text).hint("start lower with --rate")
    })
}

impl Measured {
    fn kept_up(&self, args: &BenchConsensusArgs) -> bool {
        self.refused == 0
            && self.committed >= self.rate as f64 * KEPT_UP
            && self.quantile_ms(0.99) <= args.p99_max
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn figures(&self, args: &BenchConsensusArgs) -> Vec<Figure> {
        let ordered = self.committed * self.seconds;
        let mut rows = vec![("cores", self.cpu_seconds / self.seconds, "cores")];
        if self.rate > 0 {
            rows.extend([
                ("offered", self.rate as f64, "tx/s"),
                ("committed", self.committed, "tx/s"),
                ("refused", self.refused as f64, "tx"),
                ("lost", self.lost as f64, "tx"),
                ("repeated", self.repeated as f64, "tx"),
                ("latency_p50", self.quantile_ms(0.5), "ms"),
                ("latency_p99", self.quantile_ms(0.99), "ms"),
                ("latency_max", self.latency.max() as f64 / 1000.0, "ms"),
                ("cpu_per_million", self.cpu_seconds / ordered * 1e6, "CPU-s"),
                ("sent_per_million", self.sent_bytes as f64 / ordered, "MB"),
            ]);
        }
        if args.mode == BenchMode::Ledger {
            rows.push(("refused_by_ledger", self.refused_by_ledger as f64, "tx"));
        }
        if let Some(signature_us) = self.signature_us {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let bound = cores as f64 * 1e6 / (f64::from(args.n) * signature_us);
            rows.extend([
                ("signature", signature_us, "us"),
                ("signature_bound", bound, "tx/s"),
                ("of_bound", self.committed / bound, "x"),
            ]);
        }
        rows.extend([
            ("rounds", self.rounds, "1/s"),
            ("dropped_frames", self.dropped_frames as f64, "frames"),
            (
                "resident_max",
                self.resident_max as f64 / f64::from(1 << 20),
                "MiB",
            ),
        ]);
        let figure = |(name, value, unit): (&str, f64, &'static str)| {
            Figure::new(BENCH, name, value, unit).target(targets::of(args, self.rate, name))
        };
        rows.into_iter().map(figure).collect()
    }
}
