//! A process of a benchmark: one member, or all of them where the network is in memory.
//!
//! It speaks JSON lines with the process that started it: a plan in, "ready" out, a schedule in, a report out.

use super::load;
use super::process::{cpu_seconds, log_errors, say, told};
use super::recorder::{Recorder, Schedule, Seen, now_ns};
use super::signed::Signed;
use crate::failure::{Done, Exit, Failure};
use dagger_node::config::{Durability, NodeConfig};
use dagger_node::node::Node;
use dagger_node::opaque::{MemoryNetwork, Opaque};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a process shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Directories of the members that it runs, each with keys and genesis, and their seats.
    pub members: Vec<(u16, PathBuf, std::net::SocketAddr)>,
    /// How many members there are in all.
    pub n: u16,
    pub in_memory: bool,
    pub discard_log: bool,
    pub fsync: bool,
    pub round_interval_ms: Option<u64>,
    pub size: usize,
    /// Transactions that are signed for the ledger before the load starts; opaque bytes without.
    pub signed: Option<u64>,
    /// How long after the load's end it is waited for what has not come out.
    pub drain_ms: u64,
}

/// What a process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub members: Vec<MemberReport>,
    /// User and system time of the process within the measured time.
    pub cpu_seconds: f64,
    /// The most memory it ever had resident.
    pub resident_bytes: u64,
}

/// What one member measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberReport {
    pub seat: u16,
    pub submitted: u64,
    pub refused: u64,
    /// Bytes of frames sent within the measured time.
    pub sent_bytes: u64,
    pub dropped_frames: u64,
    /// What checking one signature costs here, where transactions have one.
    pub signature_us: Option<f64>,
    pub seen: Seen,
}

struct Member {
    seat: u16,
    node: Node,
    recorder: Arc<Recorder>,
    signed: Option<Arc<Signed>>,
}

/// Runs what standard input says.
pub fn run() -> Done {
    log_errors();
    let plan: Plan = told()?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    let mut members = runtime.block_on(start(&plan))?;
    if let Some(count) = plan.signed {
        for (member, (seat, dir, _)) in members.iter_mut().zip(&plan.members) {
            let handle = member.node.handle().clone();
            let signed = Arc::new(Signed::prepare(&handle, dir, (*seat, plan.n), count)?);
            let (recorder, followed) = (Arc::clone(&member.recorder), Arc::clone(&signed));
            runtime.spawn(async move { recorder.follow(handle, &followed.numbers).await });
            member.signed = Some(signed);
        }
    }
    say(&"ready")?;
    let schedule: Schedule = told()?;
    let report = measure(&plan, &members, schedule);
    say(&report)?;
    // The others may need this member's votes for what has not come out yet. The input ends when all have reported.
    let _ = std::io::stdin().read_line(&mut String::new());
    // The data goes with the benchmark; nothing is left to be done in order.
    std::process::exit(0);
}

async fn start(plan: &Plan) -> Done<Vec<Member>> {
    let network = plan.in_memory.then(MemoryNetwork::default);
    let mut members = Vec::new();
    for (seat, dir, listen) in &plan.members {
        let mut config = NodeConfig::new(dir);
        config.listen = *listen;
        config.api = None;
        config.machine = false;
        config.durability = if plan.fsync {
            Durability::Fsync
        } else {
            Durability::Os
        };
        if let Some(interval_ms) = plan.round_interval_ms {
            config.round_interval_ms = interval_ms;
        }
        let recorder = Arc::new(Recorder::new(*seat));
        let node = if plan.signed.is_some() {
            Node::start(config).await
        } else {
            let opaque = Opaque {
                consumer: Arc::clone(&recorder) as _,
                network: network.clone(),
                discard_log: plan.discard_log,
            };
            Node::start_opaque(config, opaque).await
        };
        let node =
            node.map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))?;
        members.push(Member {
            seat: *seat,
            node,
            recorder,
            signed: None,
        });
    }
    let others = usize::from(plan.n) - 1;
    let connected = |member: &Member| {
        let peers = member.node.handle().status().peers;
        peers.iter().filter(|peer| peer.connected).count() >= others
    };
    while !members.iter().all(connected) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(members)
}

fn measure(plan: &Plan, members: &[Member], schedule: Schedule) -> Report {
    for member in members {
        member.recorder.begin(schedule);
    }
    let (mut fed, mut window) = (Vec::new(), None);
    std::thread::scope(|scope| {
        let feeders: Vec<_> = members
            .iter()
            .map(|m| scope.spawn(|| feed(m, &schedule, plan.size)))
            .collect();
        sleep_until(schedule.measure_from_ns());
        let before = (cpu_seconds(), members.iter().map(sent).collect::<Vec<_>>());
        sleep_until(schedule.end_ns());
        let after = (cpu_seconds(), members.iter().map(sent).collect::<Vec<_>>());
        window = Some((before, after));
        fed = feeders
            .into_iter()
            .map(|feeder| feeder.join().expect("a feeder does not panic"))
            .collect();
    });
    let ((cpu_before, sent_before), (cpu_after, sent_after)) = window.expect("set above");
    let until_ns = now_ns() + plan.drain_ms * 1_000_000;
    let drained = || {
        let mut both = members.iter().zip(&fed);
        both.all(|(m, fed)| m.recorder.ordered() + fed.refused() >= fed.submitted)
    };
    while !drained() && now_ns() < until_ns {
        std::thread::sleep(Duration::from_millis(10));
    }
    if !drained() {
        for member in members {
            // Says where what is missing is stuck.
            let status = member.node.replica_status();
            tracing::warn!(seat = member.seat, ?status, "not everything came out");
        }
    }
    let reports = members.iter().zip(&fed).enumerate();
    let reports = reports.map(|(i, (member, fed))| MemberReport {
        seat: member.seat,
        submitted: fed.submitted,
        refused: fed.refused(),
        sent_bytes: sent_after[i] - sent_before[i],
        dropped_frames: member.node.dropped_frames(),
        signature_us: member.signed.as_ref().and_then(|s| s.signature_us),
        seen: member.recorder.finish(),
    });
    Report {
        members: reports.collect(),
        cpu_seconds: cpu_after - cpu_before,
        resident_bytes: resident_bytes(),
    }
}

fn feed(member: &Member, schedule: &Schedule, size: usize) -> load::Fed {
    let node = &member.node;
    if let Some(signed) = &member.signed {
        return load::feed(schedule, load::SIGNED_TICK, |numbers| {
            signed.submit(node.handle(), numbers)
        });
    }
    let filler = load::filler(size);
    load::feed(schedule, load::TICK, |numbers| {
        node.submit_opaque(load::opaque(&filler, numbers))
    })
}

fn sent(member: &Member) -> u64 {
    member.node.sent_bytes()
}

fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
}

fn resident_bytes() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    usage.max_rss().unsigned_abs() * 1024
}
