//! The replica of one epoch: a state machine over one graph. This file holds its state; the steps live in `accept` (events
//! in), `propose` (own events), `gossip` (messages), `checkpoints` and `ending`. That there are other epochs is known to
//! `epochs` alone.

mod accept;
mod checkpoints;
mod ending;
mod gossip;
mod io;
mod propose;

use std::collections::VecDeque;

use bytes::Bytes;

pub use self::io::{HaltReason, Input, Output, PeerFault, ReplicaStatus, SubmitError};

use self::checkpoints::Checkpoints;
use self::ending::Ending;
use self::gossip::Gossip;
use self::propose::Proposer;
use crate::clocks::Clocks;
use crate::committee::{Committee, MemberSet};
use crate::committer::Committer;
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

/// A member's (or follower's) consensus state in one epoch.
pub(crate) struct EpochReplica {
    pub(crate) config: Config,
    signer: Option<SigningKey>,
    graph: Graph,
    committer: Committer,
    linearizer: Linearizer,
    pending: Pending,
    fetch: Fetch,
    pub(crate) pool: Pool,
    pacing: Pacing,
    proposer: Proposer,
    gossip: Gossip,
    pub(crate) clocks: Clocks,
    checkpoints: Checkpoints,
    ending: Ending,
    /// Members proven to have equivocated: never cited again. docs/protocol.md 8.3
    equivocators: MemberSet,
    /// The highest round of which the graph holds a quorum.
    complete: Round,
    /// While the log is read back, nothing is persisted or sent.
    pub(crate) recovering: bool,
    pub(crate) halted: bool,
    pub(crate) outputs: VecDeque<Output>,
}

impl EpochReplica {
    /// An empty graph: nothing is sent before [`Self::start`].
    ///
    /// # Panics
    /// If `signer` is not the key of the seat `config.me`, or only one of the two is given.
    pub(crate) fn new(config: Config, signer: Option<SigningKey>, now_ms: u64) -> Self {
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
            clocks: Clocks::new(committee.len()),
            checkpoints: Checkpoints::new(committee.clone()),
            ending: Ending::default(),
            equivocators: MemberSet::default(),
            complete: Round(0),
            recovering: false,
            halted: false,
            outputs: VecDeque::new(),
            config,
            signer,
        }
    }

    pub(crate) fn committee(&self) -> &Committee {
        &self.config.committee
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.config.parameters
    }

    fn me(&self) -> Option<MemberIndex> {
        self.config.me
    }

    /// Whether both sign with one key.
    pub(crate) fn has_key_of(&self, other: &Self) -> bool {
        let key = |replica: &Self| replica.signer.as_ref().map(SigningKey::public);
        key(self) == key(other)
    }

    /// The application wants a commit.
    pub(crate) fn wake(&mut self) {
        self.proposer.wake_application(self.graph.top());
    }

    /// Everything that time or new knowledge may have made due.
    pub(crate) fn progress(&mut self, now_ms: u64) {
        if self.halted {
            return;
        }
        self.fetch.look_up(now_ms, self.complete);
        self.probe(now_ms);
        self.propose(now_ms);
        self.exchange_frontier(now_ms);
        self.pull(now_ms);
        self.ask_for_snapshot(now_ms);
    }

    /// Takes a transaction for one of the next own events.
    pub(crate) fn submit(&mut self, now_ms: u64, transaction: Bytes) -> Result<(), SubmitError> {
        if self.signer.is_none() || self.halted {
            return Err(SubmitError::NotAMember);
        }
        let was_empty = self.pool.len() == 0;
        self.pool.submit(now_ms, transaction)?;
        // A further one makes nothing due that was not.
        if was_empty {
            self.propose(now_ms);
        }
        Ok(())
    }

    /// When something is due, if nothing else comes in before.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        if self.halted {
            return None;
        }
        let own = [
            self.proposer.due_ms,
            self.gossip.next_due_ms(),
            self.pending.next_due_ms(),
        ];
        own.into_iter()
            .chain([
                self.fetch.next_due_ms(self.proposer.looked_ms),
                self.snapshot_due_ms(),
            ])
            .flatten()
            .min()
    }

    pub(crate) fn output(&mut self, output: Output) {
        if !self.recovering || matches!(output, Output::Commit(_) | Output::Certificate(_)) {
            self.outputs.push_back(output);
        }
    }

    pub(crate) fn send(&mut self, to: Recipient, message: Message) {
        self.output(Output::Send { to, message });
    }

    fn halt(&mut self, reason: HaltReason) {
        if !self.halted {
            self.halted = true;
            self.outputs.push_back(Output::Halt(reason));
        }
    }

    /// What it is doing.
    pub(crate) fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            epoch: self.committee().epoch(),
            epoch_end: self.ending.commit(),
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
            split_checkpoint: self.checkpoints.split(),
            leaders: self.committer.schedule.leader_count(),
            clock_offsets_ms: self.clocks.offsets_ms().to_vec(),
            clock_median_ms: self.clocks.median_ms(self.committee(), self.me()),
            clock_correction_ms: self.clocks.correction_ms(),
        }
    }
}
