//! Transactions that wait for an own event, first in, first out, within a bound of bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::event::EVENT_TRANSACTIONS_MAX;
use crate::parameters::Parameters;
use crate::replica::SubmitError;

/// Bytes of an event that are not transactions, with room for 200 parents and all votes.
const EVENT_OVERHEAD_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Pool {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
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
            event_bytes_max: parameters.event_bytes_max.min(hard_max),
            event_transactions_max: parameters
                .event_transactions_max
                .min(EVENT_TRANSACTIONS_MAX as usize),
        }
    }

    pub(crate) fn submit(&mut self, transaction: Bytes) -> Result<(), SubmitError> {
        if transaction.is_empty() {
            return Err(SubmitError::Empty);
        }
        if cost(&transaction) > self.event_bytes_max {
            return Err(SubmitError::TooLarge);
        }
        if self.bytes + cost(&transaction) > self.bytes_max {
            return Err(SubmitError::PoolFull);
        }
        self.bytes += cost(&transaction);
        self.waiting.push_back(transaction);
        Ok(())
    }

    /// Puts transactions back to the front, in their order. They were accepted once, so no bound refuses them; there
    /// are never more than the own events of the collection depth carried, or what pended when an epoch ended.
    pub(crate) fn put_back(&mut self, transactions: impl DoubleEndedIterator<Item = Bytes>) {
        for transaction in transactions.rev() {
            self.bytes += cost(&transaction);
            self.waiting.push_front(transaction);
        }
    }

    /// Takes what fits into one event.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        let (mut taken, mut bytes) = (0, 0);
        for transaction in self.waiting.iter().take(self.event_transactions_max) {
            if bytes + cost(transaction) > self.event_bytes_max {
                break;
            }
            bytes += cost(transaction);
            taken += 1;
        }
        self.bytes -= bytes;
        self.waiting.drain(..taken).collect()
    }

    /// Takes everything.
    pub(crate) fn take_all(&mut self) -> VecDeque<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Takes out one transaction that turns out to be in an own event of the log already.
    pub(crate) fn remove(&mut self, transaction: &Bytes) {
        // They were made in this order: nearly always the first.
        let found = self
            .waiting
            .iter()
            .position(|waiting| waiting == transaction);
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
