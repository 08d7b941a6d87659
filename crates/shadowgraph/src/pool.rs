//! Transactions that wait for an own event, first in, first out, within a bound of bytes and one of time: who hands in
//! more than is ordered is told so at once, instead of waiting ever longer.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::event::EVENT_TRANSACTIONS_MAX;
use crate::parameters::Parameters;
use crate::replica::SubmitError;

/// Bytes of an event that are not transactions, with room for 200 parents and all votes.
const EVENT_OVERHEAD_BYTES: usize = 16 << 10;

#[derive(Debug)]
struct Waiting {
    transaction: Bytes,
    /// None where it has been in an event before.
    since_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    bytes_max: usize,
    wait_max_ms: u64,
    event_bytes_max: usize,
    event_transactions_max: usize,
}

impl Pool {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let hard_max = crate::event::EVENT_BYTES_MAX - EVENT_OVERHEAD_BYTES;
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: parameters.pool_bytes_max,
            wait_max_ms: parameters.pool_wait_max_ms,
            event_bytes_max: parameters.event_bytes_max.min(hard_max),
            event_transactions_max: parameters
                .event_transactions_max
                .min(EVENT_TRANSACTIONS_MAX as usize),
        }
    }

    pub(crate) fn submit(&mut self, now_ms: u64, transaction: Bytes) -> Result<(), SubmitError> {
        if transaction.is_empty() {
            return Err(SubmitError::Empty);
        }
        if cost(&transaction) > self.event_bytes_max {
            return Err(SubmitError::TooLarge);
        }
        if self.bytes + cost(&transaction) > self.bytes_max || self.is_stuck(now_ms) {
            return Err(SubmitError::PoolFull);
        }
        self.bytes += cost(&transaction);
        self.waiting.push_back(Waiting {
            transaction,
            since_ms: Some(now_ms),
        });
        Ok(())
    }

    /// Whether what waits goes out more slowly than it came in. What two events can carry may wait for as long as it takes:
    /// without a quorum, or between epochs, nothing goes out at all.
    fn is_stuck(&self, now_ms: u64) -> bool {
        let oldest_ms = self.waiting.front().and_then(|oldest| oldest.since_ms);
        self.bytes > 2 * self.event_bytes_max
            && oldest_ms.is_some_and(|since_ms| since_ms + self.wait_max_ms < now_ms)
    }

    /// Puts transactions back to the front, in their order. They were accepted once, so no bound refuses them; there
    /// are never more than the own events of the collection depth carried, or what pended when an epoch ended.
    pub(crate) fn put_back(&mut self, transactions: impl DoubleEndedIterator<Item = Bytes>) {
        for transaction in transactions.rev() {
            self.bytes += cost(&transaction);
            self.waiting.push_front(Waiting {
                transaction,
                since_ms: None,
            });
        }
    }

    /// Takes what fits into one event.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        let (mut taken, mut bytes) = (0, 0);
        for waiting in self.waiting.iter().take(self.event_transactions_max) {
            if bytes + cost(&waiting.transaction) > self.event_bytes_max {
                break;
            }
            bytes += cost(&waiting.transaction);
            taken += 1;
        }
        self.bytes -= bytes;
        let taken = self.waiting.drain(..taken);
        taken.map(|waiting| waiting.transaction).collect()
    }

    /// Takes everything.
    pub(crate) fn take_all(&mut self) -> VecDeque<Bytes> {
        self.bytes = 0;
        let all = std::mem::take(&mut self.waiting);
        all.into_iter().map(|waiting| waiting.transaction).collect()
    }

    /// Takes out one transaction that turns out to be in an own event of the log already.
    pub(crate) fn remove(&mut self, transaction: &Bytes) {
        // They were made in this order: nearly always the first.
        let found = self
            .waiting
            .iter()
            .position(|waiting| waiting.transaction == *transaction);
        if let Some(position) = found {
            self.waiting.remove(position);
            self.bytes -= cost(transaction);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A transaction with its length field.
fn cost(transaction: &Bytes) -> usize {
    transaction.len() + 4
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
