//! A replica that reads back its logs: of one epoch, or of several in a row with the ends between them. docs/protocol.md 10.9

use super::Replica;
use crate::committee::Committee;
use crate::epoch::EpochEnd;
use crate::event::VerifiedEvent;
use crate::ids::{CommitIndex, Digest};
use crate::keys::SigningKey;
use crate::parameters::Config;
use crate::replica::Output;

/// A replica that is reading back its logs. It begins with the epoch of its configuration: with the oldest log that has to
/// be read.
pub struct Recovery {
    replica: Replica,
    now_ms: u64,
}

impl Recovery {
    /// Begins with an empty graph.
    ///
    /// # Panics
    /// As [`Replica::new`].
    #[must_use]
    pub fn new(config: Config, signer: Option<SigningKey>, now_ms: u64) -> Self {
        let mut replica = Replica::empty(config, signer, now_ms);
        replica.current.recovering = true;
        Self { replica, now_ms }
    }

    /// As [`Replica::hold_key`]. Keys are given before the log of the first epoch in which they have a seat.
    pub fn hold_key(&mut self, key: SigningKey) {
        self.replica.hold_key(key);
    }

    /// Takes the next event of the log.
    ///
    /// # Panics
    /// If the event is of a later epoch than the one that the logs, the answers to their commits and [`Self::ended`] have led
    /// to: the logs are not complete, or not in order.
    pub fn replay(&mut self, event: VerifiedEvent) {
        let epoch = self.replica.epoch();
        assert!(
            event.epoch() <= epoch,
            "an event of {:?} is replayed before {epoch:?} has ended",
            event.epoch()
        );
        if event.epoch() == epoch {
            self.replica.current.restore(self.now_ms, event);
            self.replica.change_epoch(self.now_ms);
        }
    }

    /// The next commit, certificate or end of an epoch that follows from the events so far.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.replica.poll_output()
    }

    /// Answers a checkpoint commit, as `Input::Executed` does, so that its roots can be compared with what a quorum certified.
    /// The answer is due before the next event.
    pub fn executed(
        &mut self,
        commit: CommitIndex,
        outcomes_root: Digest,
        state_root: Digest,
        next: Option<Committee>,
    ) {
        let current = &mut self.replica.current;
        current.on_executed(commit, outcomes_root, state_root, next);
        self.replica.change_epoch(self.now_ms);
    }

    /// The current epoch's log is at its end, and the driver kept this end of the epoch: the log alone may lack the votes.
    /// An end of another epoch says nothing new.
    pub fn ended(&mut self, end: EpochEnd) {
        let current = &mut self.replica.current;
        if end.epoch() == current.committee().epoch() && current.lacks_end() {
            current.learn_end(self.now_ms, end.certificate);
            self.replica.change_epoch(self.now_ms);
        }
    }

    /// The epoch that the logs have led to so far.
    #[must_use]
    pub fn committee(&self) -> &Committee {
        self.replica.committee()
    }

    /// The logs are at their end: the replica takes part from here on.
    #[must_use]
    pub fn finish(mut self, now_ms: u64) -> Replica {
        self.replica.current.recovering = false;
        self.replica.current.start(now_ms, false);
        self.replica.change_epoch(now_ms);
        self.replica
    }
}
