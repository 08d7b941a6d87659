//! A bucket of tokens: how often a peer may ask for something.

#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    left: u64,
    capacity: u64,
    /// Milliseconds that one token takes to come back.
    refill_ms: u64,
    refilled_ms: u64,
}

impl Tokens {
    pub(crate) fn new(capacity: u64, refill_ms: u64, now_ms: u64) -> Self {
        Self {
            left: capacity,
            capacity,
            refill_ms: refill_ms.max(1),
            refilled_ms: now_ms,
        }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn take(&mut self, now_ms: u64) -> bool {
        let back = now_ms.saturating_sub(self.refilled_ms) / self.refill_ms;
        if self.left + back >= self.capacity {
            self.left = self.capacity;
            self.refilled_ms = now_ms;
        } else {
            self.left += back;
            self.refilled_ms += back * self.refill_ms;
        }
        let any = self.left > 0;
        self.left -= u64::from(any);
        any
    }
}
