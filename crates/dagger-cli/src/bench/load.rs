//! The open loop: transactions go in when they are due, whether or not earlier ones have come out.

use super::recorder::{STAMP_BYTES, Schedule, now_ns};
use bytes::{Bytes, BytesMut};
use dagger_node::replica::Batch;
use std::ops::Range;
use std::time::Duration;

/// The least time between two batches of opaque bytes: what is due meanwhile goes together.
pub const TICK: Duration = Duration::from_millis(1);
/// The same of signed transactions: their signatures are checked together.
pub const SIGNED_TICK: Duration = Duration::from_millis(8);
/// Transactions handed in at once.
const BATCH_MAX: u64 = 4096;

/// What was handed in to one member.
pub struct Fed {
    pub submitted: u64,
    batches: Vec<Batch>,
    refused_before: u64,
}

impl Fed {
    /// How many were refused so far: the last answers come with the next turns of the replica.
    pub fn refused(&self) -> u64 {
        self.refused_before + self.batches.iter().map(Batch::refused).sum::<u64>()
    }
}

/// Hands the numbers that are due to `submit`, until the schedule ends.
pub fn feed(schedule: &Schedule, tick: Duration, submit: impl Fn(Range<u64>) -> Batch) -> Fed {
    let mut batches: Vec<Batch> = Vec::new();
    let (mut sent, mut refused_before) = (0, 0);
    while sent < schedule.due_by(schedule.end_ns()) {
        let due = schedule.due_by(now_ns());
        if due <= sent {
            let wait_ns = schedule.due_ns(sent).saturating_sub(now_ns());
            std::thread::sleep(Duration::from_nanos(wait_ns).max(tick));
            continue;
        }
        let upto = due.min(sent + BATCH_MAX);
        batches.push(submit(sent..upto));
        sent = upto;
        // What was taken long ago has its answer.
        if batches.len() > 4096 {
            refused_before += batches.drain(..2048).map(|b| b.refused()).sum::<u64>();
        }
    }
    Fed {
        submitted: sent,
        batches,
        refused_before,
    }
}

/// What an opaque transaction is filled with.
pub fn filler(size: usize) -> Vec<u8> {
    (0..size).map(|_| rand::random()).collect()
}

/// Opaque transactions of these numbers.
pub fn opaque(filler: &[u8], numbers: Range<u64>) -> Vec<Bytes> {
    let count = (numbers.end - numbers.start) as usize;
    let mut all = BytesMut::with_capacity(count * filler.len());
    for number in numbers {
        all.extend_from_slice(&number.to_le_bytes());
        all.extend_from_slice(&filler[STAMP_BYTES..]);
    }
    let all = all.freeze();
    (0..count)
        .map(|i| all.slice(i * filler.len()..(i + 1) * filler.len()))
        .collect()
}
