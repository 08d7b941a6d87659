//! What one member measures: when its own transactions were meant to be submitted, and when they were ordered.

use dagger_ledger::Digest;
use dagger_node::opaque::Consumer;
use dagger_node::{CommitRecord, NodeHandle};
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use shadowgraph::Commit;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, OnceLock};
use tokio::sync::broadcast::error::RecvError;

/// Latencies above this are counted as this, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// Commits whose digests are kept, so that members can be compared.
const DIGESTS_KEPT: usize = 4096;
/// Bytes at the start of a transaction that say which one it is.
pub const STAMP_BYTES: usize = 8;

/// Nanoseconds of the machine's monotonic clock: the same for all processes.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has it");
    let (seconds, nanos) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// When transactions are meant to be submitted: number `i` at `start + i / rate`, whatever happens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Schedule {
    pub start_ns: u64,
    /// A second, of this member.
    pub rate: f64,
    pub warmup_ns: u64,
    pub measure_ns: u64,
}

impl Schedule {
    /// When transaction `number` is due.
    pub fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * 1e9 / self.rate) as u64
    }

    /// How many are due by then, the first of them at the start; none at the end and after.
    pub fn due_by(&self, now_ns: u64) -> u64 {
        if self.rate <= 0.0 || now_ns < self.start_ns {
            return 0;
        }
        let periods = |until_ns: u64| (until_ns - self.start_ns) as f64 * self.rate / 1e9;
        if now_ns < self.end_ns() {
            periods(now_ns) as u64 + 1
        } else {
            periods(self.end_ns()).ceil() as u64
        }
    }

    pub fn measure_from_ns(&self) -> u64 {
        self.start_ns + self.warmup_ns
    }

    pub fn end_ns(&self) -> u64 {
        self.measure_from_ns() + self.measure_ns
    }

    pub fn is_measured(&self, at_ns: u64) -> bool {
        (self.measure_from_ns()..self.end_ns()).contains(&at_ns)
    }
}

/// What one member saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Own transactions ordered within the measured time.
    pub committed: u64,
    /// Own transactions that were ordered a second time.
    pub repeated: u64,
    /// Own transactions ordered at any time.
    pub ordered: u64,
    /// Of these, those that the ledger refused.
    pub refused_by_ledger: u64,
    /// Latencies of those that were due within the measured time: microseconds and how often.
    pub latencies: Vec<(u64, u64)>,
    /// The newest commits: index and digest.
    pub digests: Vec<(u64, String)>,
    /// Commits within the measured time.
    pub commits: u64,
    /// Rounds of leaders within the measured time.
    pub rounds: u64,
}

/// Records what is ordered of one member's own transactions.
pub struct Recorder {
    seat: u16,
    schedule: OnceLock<Schedule>,
    inner: Mutex<Inner>,
}

struct Inner {
    histogram: Histogram<u64>,
    seen: Seen,
    digests: VecDeque<(u64, String)>,
    once: Vec<u64>,
    rounds: Option<(u64, u64)>,
}

impl Recorder {
    pub fn new(seat: u16) -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("good bounds");
        Self {
            seat,
            schedule: OnceLock::new(),
            inner: Mutex::new(Inner {
                histogram,
                seen: Seen::default(),
                digests: VecDeque::new(),
                once: Vec::new(),
                rounds: None,
            }),
        }
    }

    pub fn begin(&self, schedule: Schedule) {
        self.schedule.set(schedule).expect("a run begins once");
    }

    /// Own transactions ordered so far.
    pub fn ordered(&self) -> u64 {
        self.inner.lock().expect("no holder panics").seen.ordered
    }

    pub fn finish(&self) -> Seen {
        let inner = self.inner.lock().expect("no holder panics");
        let mut seen = inner.seen.clone();
        let recorded = inner.histogram.iter_recorded();
        seen.latencies = recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        seen.digests = inner.digests.iter().cloned().collect();
        seen.rounds = inner.rounds.map_or(0, |(first, last)| last - first);
        seen
    }
}

impl Inner {
    /// Whether transaction `number` is ordered for the first time.
    fn first(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.once.len() <= word {
            self.once.resize(word * 2 + 1, 0);
        }
        let fresh = self.once[word] & bit == 0;
        self.once[word] |= bit;
        fresh
    }
}

impl Recorder {
    /// A commit was ordered; `own` are the numbers of this member's transactions in it, and whether each was executed as asked.
    fn commit(&self, (index, digest): (u64, String), round: u64, own: &[(u64, bool)]) {
        let now_ns = now_ns();
        let mut inner = self.inner.lock().expect("no holder panics");
        if inner.digests.len() == DIGESTS_KEPT {
            inner.digests.pop_front();
        }
        inner.digests.push_back((index, digest));
        let Some(schedule) = self.schedule.get() else {
            return;
        };
        let measured = schedule.is_measured(now_ns);
        if measured {
            inner.seen.commits += 1;
            let first = inner.rounds.map_or(round, |(first, _)| first);
            inner.rounds = Some((first, round));
        }
        for (number, good) in own {
            if !inner.first(*number) {
                inner.seen.repeated += 1;
                continue;
            }
            inner.seen.ordered += 1;
            inner.seen.refused_by_ledger += u64::from(!good);
            inner.seen.committed += u64::from(measured);
            let due_ns = schedule.due_ns(*number);
            if schedule.is_measured(due_ns) {
                let latency_us = now_ns.saturating_sub(due_ns) / 1000;
                inner.histogram.saturating_record(latency_us.max(1));
            }
        }
    }

    /// Records what the ledger executes, as any client that follows this node's commits would see it.
    pub async fn follow(&self, node: NodeHandle, numbers: &HashMap<Digest, u64>) {
        let mut changes = node.changes();
        let mut next = 0;
        loop {
            match changes.recv().await {
                Ok(record) if record.index >= next => {
                    next = record.index + 1;
                    self.executed(&record, numbers);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    for record in node.commits(next, usize::MAX) {
                        next = record.index + 1;
                        self.executed(&record, numbers);
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn executed(&self, record: &CommitRecord, numbers: &HashMap<Digest, u64>) {
        let own: Vec<(u64, bool)> = record
            .outcomes
            .iter()
            .filter_map(|outcome| Some((*numbers.get(&outcome.digest)?, outcome.code.is_ok())))
            .collect();
        let commit = (record.index, record.digest.to_hex());
        self.commit(commit, record.leader.round, &own);
    }
}

impl Consumer for Recorder {
    fn committed(&self, commit: &Commit) {
        let number = |transaction: &[u8]| {
            let stamp = transaction[..STAMP_BYTES].try_into().expect("that long");
            (u64::from_le_bytes(stamp), true)
        };
        let mut own = Vec::new();
        if self.schedule.get().is_some() {
            for event in commit.events.iter().filter(|e| e.creator().0 == self.seat) {
                own.extend(event.transactions().map(|bytes| number(&bytes)));
            }
        }
        let name = (commit.index.0, commit.digest.to_string());
        self.commit(name, commit.leader.round.0, &own);
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
