//! The replica: one state machine that takes inputs and gives outputs. This file holds its state and the way an input
//! takes through it; the steps live in `accept` (events in), `propose` (own events), `gossip` (messages) and
//! `checkpoints`.

mod accept;
mod checkpoints;
mod gossip;
mod io;
mod propose;

use std::collections::VecDeque;

use bytes::Bytes;

pub use self::io::{HaltReason, Input, Output, PeerFault, ReplicaStatus, SubmitError};

use self::checkpoints::Checkpoints;
use self::gossip::Gossip;
use self::propose::Proposer;
use crate::committee::{Committee, MemberSet};
use crate::committer::Committer;
use crate::event::VerifiedEvent;
use crate::graph::Graph;
use crate::ids::{MemberIndex, Round};
use crate::keys::SigningKey;
use crate::linearizer::Linearizer;
use crate::message::{Message, Recipient};
use crate::pacing::Pacing;
use crate::parameters::{Config, Parameters};
use crate::pool::Pool;
use crate::schedule::Schedule;
use crate::sync::{Fetch, Pending};

/// A member's (or follower's) whole consensus state.
pub struct Replica {
    config: Config,
    signer: Option<SigningKey>,
    graph: Graph,
    committer: Committer,
    linearizer: Linearizer,
    pending: Pending,
    fetch: Fetch,
    pool: Pool,
    pacing: Pacing,
    proposer: Proposer,
    gossip: Gossip,
    checkpoints: Checkpoints,
    /// Members proven to have equivocated: never cited again. docs/protocol.md 8.3
    equivocators: MemberSet,
    /// The highest round of which the graph holds a quorum.
    complete: Round,
    /// While the log is read back, nothing is persisted or sent.
    recovering: bool,
    halted: bool,
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
    /// All outputs gather in memory; [`Recovery`] reads a long log piece by piece.
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
        let seat_key = config
            .me
            .and_then(|me| config.committee.member(me))
            .map(|member| member.key);
        assert_eq!(
            seat_key,
            signer.as_ref().map(SigningKey::public),
            "the signer is the key of the seat"
        );
        let (committee, parameters) = (&config.committee, &config.parameters);
        let schedule = Schedule::new(
            committee.clone(),
            parameters.leaders_per_round,
            parameters.schedule_interval_rounds,
        );
        Self {
            graph: Graph::new(committee.clone()),
            committer: Committer::new(committee.clone(), schedule),
            linearizer: Linearizer::new(committee.clone(), config.start, parameters),
            pending: Pending::new(parameters),
            fetch: Fetch::new(committee.clone(), parameters.pull_retry_ms, now_ms),
            pool: Pool::new(parameters),
            pacing: Pacing::new(parameters.leader_timeout_ms),
            proposer: Proposer::new(&config, now_ms),
            gossip: Gossip::new(&config, now_ms),
            checkpoints: Checkpoints::new(committee.clone()),
            equivocators: MemberSet::default(),
            complete: Round(0),
            recovering: false,
            halted: false,
            outputs: VecDeque::new(),
            config,
            signer,
        }
    }

    fn committee(&self) -> &Committee {
        &self.config.committee
    }

    fn parameters(&self) -> &Parameters {
        &self.config.parameters
    }

    fn me(&self) -> Option<MemberIndex> {
        self.config.me
    }

    /// Takes an input. `now_ms` never goes back from one call to the next.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        if self.halted {
            return;
        }
        match input {
            Input::Timeout => {}
            Input::Events { from, events } => self.on_events(now_ms, from, events),
            Input::Message { from, message } => self.on_message(now_ms, from, message),
            Input::Executed {
                commit,
                outcomes_root,
                state_root,
                next,
            } => {
                self.on_executed(commit, outcomes_root, state_root, next);
            }
            Input::Foreign { .. } => {}
            Input::Wake => self.proposer.wake_application(self.graph.top()),
        }
        self.progress(now_ms);
    }

    /// Everything that time or new knowledge may have made due.
    fn progress(&mut self, now_ms: u64) {
        if self.halted {
            return;
        }
        self.fetch.look_up(now_ms, self.complete);
        self.probe(now_ms);
        self.propose(now_ms);
        self.exchange_frontier(now_ms);
        self.pull(now_ms);
    }

    /// Takes a transaction for one of the next own events.
    ///
    /// # Errors
    /// The pool is full, the transaction is empty or too large, or this replica has no seat.
    pub fn submit(&mut self, now_ms: u64, transaction: Bytes) -> Result<(), SubmitError> {
        if self.signer.is_none() || self.halted {
            return Err(SubmitError::NotAMember);
        }
        self.pool.submit(transaction)?;
        self.propose(now_ms);
        Ok(())
    }

    /// The next output, oldest first. `Persist` comes before any `Send` of the same event.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Timeout` is due, if nothing else comes in before. May lie in the past: then it is due at once.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.halted {
            return None;
        }
        let own = [
            self.proposer.due_ms,
            self.gossip.next_due_ms(),
            self.pending.next_due_ms(),
        ];
        own.into_iter()
            .chain([self.fetch.next_due_ms(self.proposer.looked_ms)])
            .flatten()
            .min()
    }

    fn output(&mut self, output: Output) {
        if !self.recovering || matches!(output, Output::Commit(_) | Output::Certificate(_)) {
            self.outputs.push_back(output);
        }
    }

    fn send(&mut self, to: Recipient, message: Message) {
        self.output(Output::Send { to, message });
    }

    fn halt(&mut self, reason: HaltReason) {
        if !self.halted {
            self.halted = true;
            self.outputs.push_back(Output::Halt(reason));
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            epoch: self.committee().epoch(),
            epoch_end: None,
            round: self.me().map_or(self.complete, |_| self.proposer.round()),
            last_commit: self.linearizer.index,
            last_commit_digest: self.linearizer.digest,
            last_leader_round: self.linearizer.leader_round,
            floor: self.graph.floor(),
            graph_events: self.graph.len(),
            pending_events: self.pending.len(),
            pool_bytes: self.pool.bytes(),
            pool_transactions: self.pool.len(),
            own_uncommitted_events: self.proposer.in_flight(),
            highest_rounds: self.graph.highest_rounds().to_vec(),
            leader_timeout_ms: self.pacing.wait_ms(),
            awake: self.is_awake(),
            catching_up: self.fetch.behind(),
            signing: self.proposer.signing,
            halted: self.halted,
            last_certified: self.checkpoints.certified(),
            leaders: self.committer.schedule.leader_count(),
        }
    }
}

/// A replica that is reading back its log.
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
        replica.recovering = true;
        Self { replica, now_ms }
    }

    /// Takes the next event of the log.
    pub fn replay(&mut self, event: VerifiedEvent) {
        self.replica.restore(self.now_ms, event);
    }

    /// The next commit or certificate that follows from the events so far.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.replica.poll_output()
    }

    /// Answers a checkpoint commit, so that its roots can be compared with what a quorum certified.
    pub fn executed(
        &mut self,
        commit: crate::ids::CommitIndex,
        outcomes_root: crate::ids::Digest,
        state_root: crate::ids::Digest,
        next: Option<Committee>,
    ) {
        self.replica
            .on_executed(commit, outcomes_root, state_root, next);
    }

    /// The log is at its end: the replica takes part from here on.
    #[must_use]
    pub fn finish(mut self, now_ms: u64) -> Replica {
        self.replica.recovering = false;
        self.replica.start(now_ms);
        self.replica
    }
}
