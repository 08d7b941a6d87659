//! Some of the machines: their connections to the member, and heartbeats spread evenly over the interval.

use super::{PATIENCE, failed, machine_key};
use crate::bench::process::{say, told};
use crate::failure::{Done, Exit, Failure};
use dagger_ledger::{Genesis, Key};
use dagger_node::heartbeats::{HeardBy, Heartbeats};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Handshakes under way at once.
const HANDSHAKES: usize = 32;

#[derive(Serialize, Deserialize)]
pub struct Plan {
    pub genesis: PathBuf,
    pub member_key: [u8; 32],
    pub member: SocketAddr,
    /// Number of the first machine, and the ids of all on the ledger.
    pub first: usize,
    pub ids: Vec<u32>,
    pub interval_ms: u64,
    /// Machines with lower numbers subscribe.
    pub subscribers: usize,
}

/// Since the report before.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    pub sent: u64,
    /// How long answers took, in microseconds, and how many took so long.
    pub answers: Vec<(u64, u64)>,
}

/// What is counted until the next report.
struct Counts {
    sent: AtomicU64,
    answers: Mutex<Histogram<u64>>,
}

impl Counts {
    fn take(&self) -> Report {
        let mut answers = self.answers.lock().expect("no holder panics");
        let values = answers.iter_recorded();
        let values = values.map(|v| (v.value_iterated_to(), v.count_at_value()));
        let report = Report {
            sent: self.sent.swap(0, Ordering::Relaxed),
            answers: values.collect(),
        };
        answers.reset();
        report
    }
}

/// Says when all are connected; at the word sends heartbeats, and reports whenever it is asked; until it is killed.
pub fn run(plan: &Plan) -> Done {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    let answers = Histogram::new_with_bounds(1, 600_000_000, 3).expect("good bounds");
    let counts = Arc::new(Counts {
        sent: AtomicU64::new(0),
        answers: Mutex::new(answers),
    });
    let machines = runtime.block_on(connect(plan, &counts))?;
    say(&"connected")?;
    let _: String = told()?;
    let interval = Duration::from_millis(plan.interval_ms);
    runtime.spawn(beat(machines, interval, Arc::clone(&counts)));
    loop {
        let _: String = told()?;
        say(&counts.take())?;
    }
}

async fn connect(plan: &Plan, counts: &Arc<Counts>) -> Done<Vec<(u32, Heartbeats)>> {
    let text = std::fs::read(&plan.genesis).map_err(|e| Failure::file("the genesis", &e))?;
    let genesis = Genesis::from_json(&text)
        .map_err(|error| Failure::new(Exit::Failure, "E_GENESIS_INVALID", error.to_string()))?;
    let member = &HeardBy {
        chain_id: genesis.chain_id.0,
        node_key: Key(plan.member_key),
        address: plan.member,
    };
    let one = |(at, id): (usize, u32)| async move {
        let counts = Arc::clone(counts);
        let answered = Arc::new(move |after: Duration| {
            let us = after.as_micros() as u64;
            let mut answers = counts.answers.lock().expect("no holder panics");
            answers.saturating_record(us);
        });
        let key = machine_key(plan.first + at);
        let machine = Heartbeats::start(key.signing(), member, answered)
            .await
            .map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))?;
        while !machine.is_connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if plan.first + at < plan.subscribers {
            machine.subscribe();
        }
        Done::Ok((id, machine))
    };
    let all = futures_util::stream::iter(plan.ids.iter().copied().enumerate())
        .map(one)
        .buffer_unordered(HANDSHAKES)
        .try_collect();
    tokio::time::timeout(PATIENCE, all)
        .await
        .map_err(|_| failed("the machines did not reach the member in time"))?
}

/// One after the other, so that each sends one in every interval.
async fn beat(machines: Vec<(u32, Heartbeats)>, interval: Duration, counts: Arc<Counts>) {
    let start = tokio::time::Instant::now();
    for turn in 0.. {
        for (at, (id, machine)) in machines.iter().enumerate() {
            let due = interval * turn + interval.mul_f64(at as f64 / machines.len() as f64);
            tokio::time::sleep_until(start + due).await;
            machine.beat(*id);
            counts.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}
