//! The replica: one state machine that takes inputs and gives outputs, and the way an input takes through it.

mod io;

use bytes::Bytes;

pub use self::io::{HaltReason, Input, Output, PeerFault, ReplicaStatus, SubmitError};

use crate::event::VerifiedEvent;
use crate::keys::SigningKey;
use crate::parameters::Config;

/// A member's (or follower's) whole consensus state.
pub struct Replica {
    _private: (),
}

impl Replica {
    /// A replica without a past.
    #[must_use]
    pub fn new(config: Config, signer: Option<SigningKey>, now_ms: u64) -> Self {
        Self::recover(config, signer, now_ms, std::iter::empty())
    }

    /// A replica that continues from its log: all events it persisted, in that order. Outputs again every commit
    /// and certificate that follows from them, and nothing else. It never signs below what the log shows.
    #[must_use]
    pub fn recover(
        _config: Config,
        _signer: Option<SigningKey>,
        _now_ms: u64,
        _log: impl Iterator<Item = VerifiedEvent>,
    ) -> Self {
        unimplemented!()
    }

    /// Takes an input. `now_ms` never goes back from one call to the next.
    pub fn handle(&mut self, _now_ms: u64, _input: Input) {
        unimplemented!()
    }

    /// Takes a transaction for one of the next own events.
    ///
    /// # Errors
    /// The pool is full, the transaction is empty or too large, or this replica has no seat.
    pub fn submit(&mut self, _now_ms: u64, _transaction: Bytes) -> Result<(), SubmitError> {
        unimplemented!()
    }

    /// The next output, oldest first. `Persist` comes before any `Send` of the same event.
    pub fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }

    /// When `Input::Timeout` is due, if nothing else comes in before.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        unimplemented!()
    }
}
