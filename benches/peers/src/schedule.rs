//! The open loop: transactions go in when they are due, whether or not earlier ones have come out.
//!
//! The same as that of `dagger bench consensus`.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;

/// The least time between two batches: what is due meanwhile goes together.
const TICK: Duration = Duration::from_millis(1);
/// Transactions handed in at once.
const BATCH_MAX: u64 = 4096;

/// Nanoseconds of the machine's monotonic clock: the same for all processes.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has it");
    let (seconds, nanos) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// When transactions are meant to be submitted: number `i` at `start + i / rate`, whatever happens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// When the load begins.
    pub start_ns: u64,
    /// Transactions a second, of this member.
    pub rate: f64,
    /// Load before anything is measured.
    pub warmup_ns: u64,
    /// Load that is measured.
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

    /// When measuring begins.
    pub fn measure_from_ns(&self) -> u64 {
        self.start_ns + self.warmup_ns
    }

    /// When the load and measuring end.
    pub fn end_ns(&self) -> u64 {
        self.measure_from_ns() + self.measure_ns
    }

    /// Whether this moment is within the measured time.
    pub fn is_measured(&self, at_ns: u64) -> bool {
        (self.measure_from_ns()..self.end_ns()).contains(&at_ns)
    }
}

/// Hands the numbers that are due to `submit`, until the schedule ends; how many there were.
pub fn feed(schedule: &Schedule, mut submit: impl FnMut(Range<u64>)) -> u64 {
    let mut sent = 0;
    while sent < schedule.due_by(schedule.end_ns()) {
        let due = schedule.due_by(now_ns());
        if due <= sent {
            let wait_ns = schedule.due_ns(sent).saturating_sub(now_ns());
            std::thread::sleep(Duration::from_nanos(wait_ns).max(TICK));
            continue;
        }
        let upto = due.min(sent + BATCH_MAX);
        submit(sent..upto);
        sent = upto;
    }
    sent
}
