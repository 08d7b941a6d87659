//! What the project set itself to reach on two cores, by measurement.

use super::figure::Target::{self, AtLeast, AtMost};
use crate::args::{BenchConsensusArgs, BenchMode, BenchStore, BenchTransport, Durability};

/// The target of a figure, where there is one for just this measurement.
pub fn of(args: &BenchConsensusArgs, rate: u64, name: &str) -> Option<Target> {
    let usual = args.n == 4 && args.size == 512 && args.crash == 0 && args.slow.is_none();
    if !usual {
        return None;
    }
    if args.mode == BenchMode::Ledger {
        // Of what checking signatures alone allows; a lower rate says nothing about it.
        let wanted = name == "of_bound" && (args.search || rate >= 20_000);
        return wanted.then_some(AtLeast(0.6));
    }
    let on_disk = args.transport == BenchTransport::Iroh
        && args.store == BenchStore::Disk
        && args.durability == Durability::Os;
    let in_memory = args.transport == BenchTransport::Memory && args.store == BenchStore::Memory;
    let for_latency = args.round_interval == Some(0);
    match (name, rate) {
        ("latency_p50", 1_000) if on_disk && for_latency => Some(AtMost(3.6)),
        ("cores", 1_000) if on_disk && for_latency => Some(AtMost(1.2)),
        ("cores", 0) if on_disk => Some(AtMost(0.02)),
        ("latency_p50", 1_000) if on_disk => Some(AtMost(8.0)),
        ("cores", 1_000) if on_disk => Some(AtMost(0.3)),
        ("committed", _) if args.search && on_disk => Some(AtLeast(150_000.0)),
        ("latency_p50", _) if args.search && on_disk => Some(AtMost(28.0)),
        ("latency_p99", _) if args.search && on_disk => Some(AtMost(80.0)),
        ("cpu_per_million", _) if args.search && on_disk => Some(AtMost(9.0)),
        ("committed", _) if args.search && in_memory => Some(AtLeast(300_000.0)),
        ("resident_max", _) if on_disk => Some(AtMost(512.0)),
        _ => None,
    }
}
