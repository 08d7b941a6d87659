//! The replica as drivers see it: it lives through epochs, one `EpochReplica` after the other, and carries over what
//! pends. Here is the change from one epoch to the next; words between epochs are in `strangers`, reading back logs in
//! `recovery`. docs/protocol.md 10.

mod early;
mod recovery;
mod strangers;

use std::collections::VecDeque;

use bytes::Bytes;

pub use self::recovery::Recovery;

use self::early::Early;
use self::strangers::Strangers;
use crate::committee::Committee;
use crate::epoch::EpochEnd;
use crate::event::VerifiedEvent;
use crate::ids::{Epoch, MemberIndex};
use crate::keys::SigningKey;
use crate::parameters::Config;
use crate::replica::{EpochReplica, Input, Output, ReplicaStatus, SubmitError};

/// A member's (or follower's) whole consensus state: one state machine that takes inputs and gives outputs.
pub struct Replica {
    current: EpochReplica,
    /// All that this replica may sign with, in whichever epoch they have a seat; the latest first.
    keys: Vec<SigningKey>,
    strangers: Strangers,
    early: Early,
    /// Outputs of ended epochs that nobody has taken yet. Those of the current one come after them.
    outputs: VecDeque<Output>,
}

impl Replica {
    /// A replica without a past.
    ///
    /// # Panics
    /// If `signer` is not the key of the seat `config.me`, or only one of the two is given.
    #[must_use]
    pub fn new(config: Config, signer: Option<SigningKey>, now_ms: u64) -> Self {
        Self::recover(config, signer, now_ms, std::iter::empty())
    }

    /// A replica that continues from its log: all events it persisted, in that order. Outputs again every commit
    /// and certificate that follows from them, and nothing else. It never signs below what the log shows.
    /// All outputs gather in memory; [`Recovery`] reads a long log piece by piece, and logs of more than one epoch.
    ///
    /// # Panics
    /// As [`Replica::new`].
    #[must_use]
    pub fn recover(
        config: Config,
        signer: Option<SigningKey>,
        now_ms: u64,
        log: impl Iterator<Item = VerifiedEvent>,
    ) -> Self {
        let mut recovery = Recovery::new(config, signer, now_ms);
        for event in log {
            recovery.replay(event);
        }
        recovery.finish(now_ms)
    }

    fn empty(config: Config, signer: Option<SigningKey>, now_ms: u64) -> Self {
        Self {
            keys: signer.iter().cloned().collect(),
            current: EpochReplica::new(config, signer, now_ms),
            strangers: Strangers::default(),
            early: Early::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Holds one more key: from the next epoch in which it has a seat, the replica signs with it. If several keys have one,
    /// the key given last does. docs/protocol.md 10.8
    pub fn hold_key(&mut self, key: SigningKey) {
        self.keys.insert(0, key);
    }

    /// The members of the current epoch: who verifies events, and numbers the peers.
    #[must_use]
    pub fn committee(&self) -> &Committee {
        self.current.committee()
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.committee().epoch()
    }

    /// The seat in the current epoch; none for a follower.
    #[must_use]
    pub fn seat(&self) -> Option<MemberIndex> {
        self.current.config.me
    }

    /// Takes an input. `now_ms` never goes back from one call to the next.
    ///
    /// # Panics
    /// If `Input::Executed` names a next committee that is not of the following epoch.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        if self.current.halted {
            return;
        }
        match input {
            Input::Timeout => {}
            Input::Events { from, events } => self.current.on_events(now_ms, from, events),
            Input::Foreign { from, events } => self.on_foreign(now_ms, from, events),
            Input::Message { from, message } => self.on_message(now_ms, from, message),
            Input::Executed {
                commit,
                outcomes_root,
                state_root,
                next,
            } => self
                .current
                .on_executed(commit, outcomes_root, state_root, next),
            Input::Wake => self.current.wake(),
        }
        self.current.progress(now_ms);
        self.change_epoch(now_ms);
    }

    /// Takes a transaction for one of the next own events.
    ///
    /// # Errors
    /// The pool is full, the transaction is empty or too large, or this replica has no seat.
    pub fn submit(&mut self, now_ms: u64, transaction: Bytes) -> Result<(), SubmitError> {
        self.current.submit(now_ms, transaction)?;
        self.change_epoch(now_ms);
        Ok(())
    }

    /// The next output, oldest first. `Persist` comes before any `Send` of the same event.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs
            .pop_front()
            .or_else(|| self.current.outputs.pop_front())
    }

    /// When `Input::Timeout` is due, if nothing else comes in before. May lie in the past: then it is due at once.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.current.next_deadline_ms()
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        self.current.status()
    }

    /// Goes on to the next epoch for as long as the current one has ended. docs/protocol.md 10.4
    fn change_epoch(&mut self, now_ms: u64) {
        while let Some(end) = self.current.ended() {
            let proven = self.begin(now_ms, &end);
            if self.current.recovering {
                continue;
            }
            self.current.start(now_ms, proven);
            self.greet_early(now_ms);
        }
    }

    /// Puts the next epoch's replica in place of the current one. Returns whether its key is sure to have signed nothing in
    /// that epoch.
    fn begin(&mut self, now_ms: u64, end: &EpochEnd) -> bool {
        let next = end.next.clone();
        let seat = |key: &SigningKey| Some((next.seat(&key.public())?, key.clone()));
        let (me, signer) = self.keys.iter().find_map(seat).unzip();
        let config = Config {
            committee: next.clone(),
            me,
            start: end.start(),
            ..self.current.config.clone()
        };
        let mut next = EpochReplica::new(config, signer, now_ms);
        next.recovering = self.current.recovering;
        next.clocks = (self.current.clocks).renumbered(self.current.committee(), &end.next);
        let same_key = me.is_some() && next.has_key_of(&self.current);
        let proven = same_key && self.current.signed_before_end();
        let pending = self.current.take_pending();
        self.outputs.extend(self.current.outputs.drain(..));
        self.outputs.push_back(Output::EpochEnded(end.clone()));
        if me.is_some() {
            next.pool.put_back(pending.into_iter());
        } else if !pending.is_empty() && !next.recovering {
            self.outputs.push_back(Output::Returned(pending));
        }
        self.early.renumber(self.current.committee(), &end.next);
        self.strangers.epoch_ended(end.clone());
        self.current = next;
        proven
    }
}
