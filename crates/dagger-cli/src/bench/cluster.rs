//! The processes of a benchmark: made, started together, told when to begin, read out, and gone at the end.

use super::fleet;
use super::member::{Plan, Report};
use super::process::Process;
use super::recorder::{Schedule, now_ns};
use crate::args::{BenchConsensusArgs, BenchMode, BenchStore, BenchTransport, Durability};
use crate::context::now_ms;
use crate::failure::{Done, Failure};
use crate::setup;
use dagger_ledger::Parameters;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between the word to begin and the first transaction.
const LEAD_NS: u64 = 300_000_000;
/// How long after the load's end it is waited for what has not come out.
const DRAIN_MS: u64 = 10_000;
/// A slow member's turn: it is stopped for the rest of it.
const SLOW_TURN: Duration = Duration::from_millis(40);

/// What all processes measured.
pub struct Run {
    pub reports: Vec<Report>,
    /// Seats whose member was slowed down.
    pub slowed: Vec<u16>,
}

/// Runs the members once at a rate.
pub fn run(args: &BenchConsensusArgs, rate: u64) -> Done<Run> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.map_err(|error| Failure::file("a directory for the members", &error))?;
    let parameters = match args.mode {
        BenchMode::Opaque => setup::parameters(None, None),
        BenchMode::Ledger => fleet::parameters(),
    };
    let members = make_members(dir.path(), args.n, parameters)?;
    let slows = args.slow.is_some() && args.n > 1;
    let loaded = usize::from(args.n - args.crash) - usize::from(slows);
    let own_rate = rate as f64 / loaded as f64;
    let own_total = (own_rate * (args.warmup + args.duration)) as u64 + 1;
    let plan = |members: &[(u16, PathBuf, SocketAddr)]| Plan {
        members: members.to_vec(),
        n: args.n,
        in_memory: args.transport == BenchTransport::Memory,
        discard_log: args.store == BenchStore::Memory,
        fsync: args.durability == Durability::Fsync,
        round_interval_ms: args.round_interval,
        size: args.size as usize,
        signed: (args.mode == BenchMode::Ledger).then_some(own_total),
        drain_ms: DRAIN_MS,
    };
    let plans: Vec<Plan> = match args.transport {
        BenchTransport::Memory => vec![plan(&members)],
        BenchTransport::Iroh => members.chunks(1).map(plan).collect(),
    };
    let start = |plan: &Plan| {
        let name = format!("member {}", plan.members[0].0);
        Process::start("member", name, plan)
    };
    let mut processes: Vec<Process> = plans.iter().map(start).collect::<Done<_>>()?;
    for process in &mut processes {
        let _: String = process.read()?;
    }
    let crashed = usize::from(args.crash).min(processes.len() - 1);
    // From the end, so that the seats that are left begin with 0.
    processes.truncate(processes.len() - crashed);
    let slow = args.slow.filter(|_| processes.len() > 1);
    let schedule = Schedule {
        start_ns: now_ns() + LEAD_NS,
        rate: own_rate,
        warmup_ns: (args.warmup * 1e9) as u64,
        measure_ns: (args.duration * 1e9) as u64,
    };
    let idle = Schedule {
        rate: 0.0,
        ..schedule
    };
    let last = processes.len() - 1;
    for (at, process) in processes.iter_mut().enumerate() {
        let own = if slow.is_some() && at == last {
            idle
        } else {
            schedule
        };
        process.write(&own)?;
    }
    let slowed = slow.map(|percent| {
        let seat = plans[last].members[0].0;
        (seat, processes[last].pid(), percent)
    });
    let reports = slow_down(slowed, &schedule, || read_reports(&mut processes))?;
    Ok(Run {
        reports,
        slowed: slowed.map(|(seat, ..)| seat).into_iter().collect(),
    })
}

fn read_reports(processes: &mut [Process]) -> Done<Vec<Report>> {
    processes.iter_mut().map(Process::read).collect()
}

/// Stops and continues one process until the schedule ends, so that it has only a share of the time.
fn slow_down<T>(
    slowed: Option<(u16, Pid, u8)>,
    schedule: &Schedule,
    body: impl FnOnce() -> T,
) -> T {
    let Some((_, pid, percent)) = slowed else {
        return body();
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runs = SLOW_TURN.mul_f64(f64::from(percent) / 100.0);
            while !done.load(Ordering::Relaxed) && now_ns() < schedule.end_ns() {
                let _ = kill(pid, Signal::SIGSTOP);
                std::thread::sleep(SLOW_TURN - runs);
                let _ = kill(pid, Signal::SIGCONT);
                std::thread::sleep(runs);
            }
        });
        let result = body();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Keys, addresses and genesis of `n` members.
pub fn make_members(
    root: &std::path::Path,
    n: u16,
    parameters: Parameters,
) -> Done<Vec<(u16, PathBuf, SocketAddr)>> {
    let failed = |error: std::io::Error| Failure::file("no free port on 127.0.0.1", &error);
    // All are held until all are chosen, so that none is chosen twice.
    let sockets: Vec<UdpSocket> = (0..n)
        .map(|_| UdpSocket::bind("127.0.0.1:0").map_err(failed))
        .collect::<Done<_>>()?;
    let mut members = Vec::new();
    let mut cards = Vec::new();
    for (seat, socket) in (0..n).zip(&sockets) {
        let dir = root.join(format!("member-{seat}"));
        let listen = socket.local_addr().map_err(failed)?;
        cards.push(setup::make_keys(
            &dir,
            &format!("member-{seat}"),
            Some(listen),
        )?);
        members.push((seat, dir, listen));
    }
    let genesis = setup::genesis("bench", now_ms(), parameters, &cards)?;
    for (_, dir, _) in &members {
        setup::write_new(&dir.join("genesis.json"), genesis.as_bytes())?;
    }
    Ok(members)
}
