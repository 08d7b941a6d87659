//! A process of a measurement: one member.
//!
//! It speaks JSON lines with the process that started it: a plan in, its address out, all addresses in, "ready" out, a schedule in,
//! a report out.

use crate::pool::Pool;
use crate::recorder::{Recorder, Seen};
use crate::schedule::{Schedule, feed, now_ns};
use crate::wire::Wire;
use crate::{Peer, Seat, start};
use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long after the load's end it is waited for what has not come out.
const DRAIN_NS: u64 = 10_000_000_000;
/// Transactions of one member that wait at most, in bytes; more are refused.
const POOL_BYTES_MAX: usize = 64 << 20;

/// What a process shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The library.
    pub peer: Peer,
    /// The member's number.
    pub seat: u16,
    /// Bytes of a transaction.
    pub size: usize,
    /// A directory of its own in memory.
    pub memory_dir: PathBuf,
}

/// What a process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Transactions that were due.
    pub submitted: u64,
    /// Those of them that found no room.
    pub refused: u64,
    /// What came out.
    pub seen: Seen,
    /// Bytes of frames sent within the measured time.
    pub sent_bytes: u64,
    /// User and system time of the process within the measured time.
    pub cpu_seconds: f64,
    /// The most memory it ever had resident.
    pub resident_bytes: u64,
}

/// Runs what standard input says.
pub fn run() -> anyhow::Result<()> {
    let plan: Plan = read()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    write(&listener.local_addr()?)?;
    let addresses: Vec<SocketAddr> = read()?;
    let pool = Arc::new(Pool::new(plan.seat, plan.size, POOL_BYTES_MAX));
    let recorder = Arc::new(Recorder::new(plan.seat, plan.size));
    let seat = Seat {
        seat: plan.seat,
        addresses,
        listener,
        memory_dir: plan.memory_dir,
        pool: Arc::clone(&pool),
        ordered: Arc::clone(&recorder) as _,
    };
    let wire = runtime.block_on(start(plan.peer, seat))?;
    write(&"ready")?;
    let schedule: Schedule = read()?;
    write(&measure(&wire, &pool, &recorder, schedule))?;
    // The others may need this member for what has not come out yet. The input ends when all have reported.
    let _ = std::io::stdin().read_line(&mut String::new());
    std::process::exit(0);
}

fn measure(wire: &Wire, pool: &Pool, recorder: &Recorder, schedule: Schedule) -> Report {
    recorder.begin(schedule);
    let (mut submitted, mut refused) = (0, 0);
    let (mut cpu_seconds, mut sent_bytes) = (0.0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| submitted = feed(&schedule, |numbers| refused += pool.submit(numbers)));
        sleep_until(schedule.measure_from_ns());
        let before = (cpu_used(), wire.sent_bytes());
        sleep_until(schedule.end_ns());
        cpu_seconds = cpu_used() - before.0;
        sent_bytes = wire.sent_bytes() - before.1;
    });
    let until_ns = now_ns() + DRAIN_NS;
    while recorder.ordered_so_far() + refused < submitted && now_ns() < until_ns {
        std::thread::sleep(Duration::from_millis(10));
    }
    Report {
        submitted,
        refused,
        seen: recorder.finish(),
        sent_bytes,
        cpu_seconds,
        resident_bytes: usage().max_rss().unsigned_abs() * 1024,
    }
}

fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
}

fn cpu_used() -> f64 {
    let seconds = |t: TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage().user_time()) + seconds(usage().system_time())
}

fn usage() -> nix::sys::resource::Usage {
    getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage")
}

fn read<T: DeserializeOwned>() -> anyhow::Result<T> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    serde_json::from_str(&line).context("this command is started by the other one")
}

fn write(value: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
