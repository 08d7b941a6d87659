//! What sealing an epoch's log costs, and what it brings:
//! `cargo run --release -p dagger-node --example seal -- DATA/events/0000000000`. It works on a copy, and leaves the log alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dagger_node::{
    config::Durability,
    store::{Epochs, EventKey, LogReader, Options},
};
use nix::sys::resource::{UsageWho, getrusage};
use shadowgraph::Epoch;

/// Single events that are read.
const READ: usize = 2_000;

fn main() {
    let from = std::env::args().nth(1).expect("the directory of a log");
    let dir = tempfile::tempdir().expect("a directory");
    let chain_id = copy(Path::new(&from), &dir.path().join("0000000000"));
    let options = Options {
        segment_bytes: 64 << 20,
        durability: Durability::Fsync,
        discard: false,
    };
    let epochs = Epochs::open(dir.path(), chain_id, options).expect("epochs");
    let events = look("plain", &epochs);
    let (report, cost) = timed(|| epochs.seal(Epoch(0), &mut || true).expect("sealed"));
    let each = report.after as f64 / events as f64;
    let gib = report.before as f64 / f64::from(1 << 30);
    println!(
        "sealed: {} segments, {} to {} bytes ({:.1} % of it), {each:.1} an event; {cost}, {:.1} CPU-s a GiB",
        report.segments,
        report.before,
        report.after,
        100.0 * report.after as f64 / report.before as f64,
        cost.cpu.as_secs_f64() / gib
    );
    assert_eq!(look("sealed", &epochs), events, "all events are there");
}

/// Copies a log; returns its network's chain id.
fn copy(from: &Path, to: &Path) -> [u8; 32] {
    fs::create_dir_all(to).expect("a directory");
    let entries = fs::read_dir(from).expect("a directory of a log");
    let logs: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    for log in &logs {
        let name = log.file_name().expect("a name");
        fs::copy(log, to.join(name)).expect("a copy");
    }
    let first = fs::read(logs.first().expect("a segment")).expect("a segment");
    first[12..44].try_into().expect("a header")
}

/// Reads a log from end to end, and single events of it; returns how many there are.
fn look(what: &str, epochs: &Epochs) -> usize {
    let open = || -> LogReader {
        let reader = epochs.reader(Epoch(0)).expect("a log");
        reader.expect("a log")
    };
    let (reader, opened) = timed(open);
    let (keys, replayed) = timed(|| -> Vec<EventKey> {
        let replay = reader.replay().expect("a log");
        replay.map(|event| event.expect("an event").0).collect()
    });
    let step = (keys.len() / READ).max(1);
    let (read, single) = timed(|| {
        let some = keys.iter().step_by(step);
        some.filter(|key| reader.get(key).expect("a read").is_some())
            .count()
    });
    println!(
        "{what}: {} events; opened {opened}; read from end to end {replayed}; {read} single ones in order {single}",
        keys.len()
    );
    keys.len()
}

struct Cost {
    took: Duration,
    cpu: Duration,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (took, cpu) = (self.took.as_secs_f64(), self.cpu.as_secs_f64());
        write!(f, "{:.1} ms ({:.1} ms of CPU)", took * 1e3, cpu * 1e3)
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (before, started) = (cpu(), Instant::now());
    let done = work();
    let took = started.elapsed();
    let cpu = cpu() - before;
    (done, Cost { took, cpu })
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts it");
    [usage.user_time(), usage.system_time()]
        .map(|t| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1_000))
        .iter()
        .sum()
}
