//! The processes of a measurement: made, started together, told when to begin, read out, and gone at the end.

use crate::Peer;
use crate::measured::{Load, Measured};
use crate::member::{Plan, Report};
use crate::schedule::{Schedule, now_ns};
use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Time between the word to begin and the first transaction.
const LEAD_NS: u64 = 300_000_000;

/// Linux keeps what lies here in memory.
const MEMORY: &str = "/dev/shm";

struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a peer's members once under a load.
pub fn run(peer: Peer, load: &Load) -> anyhow::Result<Measured> {
    // Dropped after the processes.
    let memory = tempfile::tempdir_in(MEMORY)?;
    let plan = |seat: u16| Plan {
        peer,
        seat,
        size: load.size,
        memory_dir: memory.path().join(seat.to_string()),
    };
    let mut processes: Vec<Process> = (0..load.n)
        .map(|seat| Process::spawn(&plan(seat)))
        .collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = read_all(&mut processes)?;
    for process in &mut processes {
        process.write(&addresses)?;
    }
    let _: Vec<String> = read_all(&mut processes)?;
    let schedule = Schedule {
        start_ns: now_ns() + LEAD_NS,
        rate: load.rate as f64 / f64::from(load.n),
        warmup_ns: (load.warmup * 1e9) as u64,
        measure_ns: (load.seconds * 1e9) as u64,
    };
    for process in &mut processes {
        process.write(&schedule)?;
    }
    let reports: Vec<Report> = read_all(&mut processes)?;
    check_agreement(&reports)?;
    Ok(measured(load, &reports))
}

/// Members that ordered differently would make every figure worthless.
fn check_agreement(reports: &[Report]) -> anyhow::Result<()> {
    let mut known: BTreeMap<u64, &str> = BTreeMap::new();
    for (place, digest) in reports.iter().flat_map(|report| &report.seen.places) {
        let same = *known.entry(*place).or_insert(digest) == digest;
        ensure!(
            same,
            "members differ on what they ordered as number {place}"
        );
    }
    Ok(())
}

fn measured(load: &Load, reports: &[Report]) -> Measured {
    let mut latency = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("good bounds");
    for (value, count) in reports.iter().flat_map(|r| &r.seen.latencies) {
        latency.saturating_record_n(*value, *count);
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let committed = sum(|r| r.seen.committed) as f64;
    let cpu_seconds: f64 = reports.iter().map(|r| r.cpu_seconds).sum();
    let resident_max = reports.iter().map(|r| r.resident_bytes).max().unwrap_or(0);
    Measured {
        rate: load.rate,
        committed: committed / load.seconds,
        refused: sum(|r| r.refused),
        lost_or_repeated: sum(|r| r.submitted - r.refused - r.seen.ordered + r.seen.repeated),
        p50_ms: latency.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: latency.value_at_quantile(0.99) as f64 / 1000.0,
        max_ms: latency.max() as f64 / 1000.0,
        cores: cpu_seconds / load.seconds,
        cpu_per_million: cpu_seconds / committed * 1e6,
        resident_mib: resident_max as f64 / f64::from(1 << 20),
        sent_per_byte: sum(|r| r.sent_bytes) as f64 / (committed * load.size as f64),
    }
}

fn read_all<T: DeserializeOwned>(processes: &mut [Process]) -> anyhow::Result<Vec<T>> {
    processes.iter_mut().map(Process::read).collect()
}

impl Process {
    fn spawn(plan: &Plan) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("member")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut process = Self { child, out };
        process.write(plan)?;
        Ok(process)
    }

    fn read<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        serde_json::from_str(&line).context("a member ended: its last words stand above")
    }

    fn write(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(value)?;
        let input = self.child.stdin.as_mut().expect("a pipe was asked for");
        Ok(writeln!(input, "{line}")?)
    }
}
