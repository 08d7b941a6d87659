//! Virtual time and the queue of what happens next. Equal times keep the order in which they were scheduled, so the whole
//! run is a function of the seed. Nothing here may read a clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Microseconds in a millisecond; the simulator counts in the former, replicas in the latter.
pub const MS: u64 = 1_000;
/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

struct Entry<T> {
    at_us: u64,
    sequence: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.sequence) == (other.at_us, other.sequence)
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.sequence).cmp(&(other.at_us, other.sequence))
    }
}

/// The events of a run that are still to come, and the present moment.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
    now_us: u64,
}

impl<T> Queue<T> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
            now_us: 0,
        }
    }

    /// The present moment, in microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// How many events are still to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is still to come.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Schedules `item`. A time in the past means now.
    pub fn push(&mut self, at_us: u64, item: T) {
        self.sequence += 1;
        let entry = Entry {
            at_us: at_us.max(self.now_us),
            sequence: self.sequence,
            item,
        };
        self.heap.push(Reverse(entry));
    }

    /// Moves time to the next event, if it comes no later than `until_us`, and takes it.
    pub fn pop(&mut self, until_us: u64) -> Option<T> {
        if self.heap.peek()?.0.at_us > until_us {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now_us = entry.at_us;
        Some(entry.item)
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A node's own idea of the time: virtual time plus an offset and a drift. Never goes back.
#[derive(Clone, Debug)]
pub struct SkewedClock {
    /// Unix time in ms at the start of the run, as this node sees it.
    origin_ms: u64,
    /// How many microseconds it gains in a second of virtual time; negative loses.
    drift_ppm: i64,
}

impl SkewedClock {
    /// A clock that shows `origin_ms` at the start and gains `drift_ppm` microseconds a second. At most 10 % of drift.
    pub fn new(origin_ms: u64, drift_ppm: i64) -> Self {
        assert!(
            drift_ppm.abs() <= 100_000,
            "a clock that drifts by more than 10 % is not a clock"
        );
        Self {
            origin_ms,
            drift_ppm,
        }
    }

    /// What the clock shows at virtual time `now_us`.
    pub fn now_ms(&self, now_us: u64) -> u64 {
        let gained = i128::from(now_us) * i128::from(self.drift_ppm) / 1_000_000;
        self.origin_ms + ((i128::from(now_us) + gained) / i128::from(MS)) as u64
    }

    /// The first virtual time at which the clock shows `local_ms` or more.
    pub fn when_us(&self, local_ms: u64) -> u64 {
        let wanted_us = i128::from(local_ms.saturating_sub(self.origin_ms)) * i128::from(MS);
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        let mut at = (wanted_us * 1_000_000 / rate) as u64;
        // Rounding can leave the estimate a step short.
        while self.now_ms(at) < local_ms {
            at += 1;
        }
        at
    }
}
