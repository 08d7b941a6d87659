//! What one member measures: when its own transactions were meant to be submitted, and when they were ordered.

use crate::pool::numbers;
use crate::schedule::{Schedule, now_ns};
use crate::{Digest, Ordered};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};

/// Latencies above this are counted as this, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// Payloads whose place in the order is kept, so that members can be compared.
const PLACES_KEPT: usize = 4096;

/// What one member saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Own transactions ordered within the measured time.
    pub committed: u64,
    /// Own transactions ordered at any time, each counted once.
    pub ordered: u64,
    /// Own transactions that were ordered a second time.
    pub repeated: u64,
    /// Latencies of those that were due within the measured time: microseconds and how often.
    pub latencies: Vec<(u64, u64)>,
    /// The newest payloads: their place in the order, and a digest of the order up to them.
    pub places: Vec<(u64, String)>,
}

/// Records what is ordered of one member's own transactions.
pub struct Recorder {
    seat: u16,
    size: usize,
    schedule: OnceLock<Schedule>,
    inner: Mutex<Inner>,
}

struct Inner {
    histogram: Histogram<u64>,
    seen: Seen,
    order: blake3::Hasher,
    count: u64,
    places: VecDeque<(u64, Digest)>,
    once: Vec<u64>,
}

impl Recorder {
    /// A member's, of transactions of `size` bytes.
    pub fn new(seat: u16, size: usize) -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("good bounds");
        let inner = Inner {
            histogram,
            seen: Seen::default(),
            order: blake3::Hasher::new(),
            count: 0,
            places: VecDeque::new(),
            once: Vec::new(),
        };
        Self {
            seat,
            size,
            schedule: OnceLock::new(),
            inner: Mutex::new(inner),
        }
    }

    /// The load begins with this schedule.
    pub fn begin(&self, schedule: Schedule) {
        self.schedule.set(schedule).expect("a run begins once");
    }

    /// Own transactions ordered so far.
    pub fn ordered_so_far(&self) -> u64 {
        self.inner.lock().expect("no holder panics").seen.ordered
    }

    /// All that was seen.
    pub fn finish(&self) -> Seen {
        let inner = self.inner.lock().expect("no holder panics");
        let mut seen = inner.seen.clone();
        let recorded = inner.histogram.iter_recorded();
        seen.latencies = recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        let place = |(at, digest): &(u64, Digest)| (*at, blake3::Hash::from(*digest).to_string());
        seen.places = inner.places.iter().map(place).collect();
        seen
    }
}

impl Ordered for Recorder {
    fn ordered(&self, creator: u16, name: &Digest, payload: &Bytes) {
        let now_ns = now_ns();
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.order.update(&creator.to_le_bytes()).update(name);
        if inner.places.len() == PLACES_KEPT {
            inner.places.pop_front();
        }
        let place = (inner.count, *inner.order.finalize().as_bytes());
        inner.places.push_back(place);
        inner.count += 1;
        let own = self.schedule.get().filter(|_| creator == self.seat);
        let Some(schedule) = own else { return };
        let measured = schedule.is_measured(now_ns);
        for number in numbers(payload, self.size) {
            if !inner.first(number) {
                inner.seen.repeated += 1;
                continue;
            }
            inner.seen.ordered += 1;
            inner.seen.committed += u64::from(measured);
            let due_ns = schedule.due_ns(number);
            if schedule.is_measured(due_ns) {
                let latency_us = now_ns.saturating_sub(due_ns) / 1000;
                inner.histogram.saturating_record(latency_us.max(1));
            }
        }
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
