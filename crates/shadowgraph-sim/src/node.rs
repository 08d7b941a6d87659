//! The driver of one honest node: what a real node does around a replica, against virtual time and the disk model. Performs
//! outputs in order, syncs before it sends or reports a commit, decodes and verifies what comes in.
//! Decides nothing about the network; the world delivers what it hands out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use shadowgraph::{
    CheckpointCertificate, Commit, CommitIndex, Config, Digest, EquivocationProof, EventRef,
    HaltReason, Input, Message, Output, Peer, PeerFault, Recipient, Replica, ReplicaStatus,
    SigningKey, StoreRequest, SubmitError, SyncRequest, VerifiedEvent,
};

use crate::disk::{CrashKind, Disk};
use crate::queue::SkewedClock;
use crate::rng::SimRng;

/// What a node wants the world to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Put these bytes on the network.
    Send(Recipient, Bytes),
    /// Say when the disk has synced up to this length.
    Sync(usize),
    /// Execute this checkpoint commit and report back.
    Execute(Executed),
    /// A commit is durable here; clients may be told.
    Committed(Box<Commit>),
    /// The replica made or accepted this event.
    Persisted(VerifiedEvent),
    /// A certificate came out.
    Certificate(CheckpointCertificate),
    /// An equivocation came out.
    Equivocation(EquivocationProof),
    /// The replica blames a peer.
    Fault(Peer, PeerFault),
    /// The replica stopped for good.
    Halt(HaltReason),
    /// The driver's contract was broken.
    Broken(String),
}

/// The roots after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Which commit.
    pub commit: CommitIndex,
    /// Chained digest of all outcomes.
    pub outcomes_root: Digest,
    /// Digest of the toy state.
    pub state_root: Digest,
}

/// The toy state machine: a hash over everything committed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToyLedger {
    state: Digest,
    outcomes: Digest,
}

impl ToyLedger {
    /// Executes a commit.
    pub fn execute(&mut self, commit: &Commit) -> Executed {
        let mut state = blake3::Hasher::new_derive_key("dagger simulator state v1");
        state.update(&self.state.0);
        let mut count = 0u64;
        for transaction in commit
            .events
            .iter()
            .flat_map(|event| event.transactions().collect::<Vec<_>>())
        {
            state.update(&(transaction.len() as u64).to_le_bytes());
            state.update(&transaction);
            count += 1;
        }
        let mut outcomes = blake3::Hasher::new_derive_key("dagger simulator outcomes v1");
        outcomes.update(&self.outcomes.0);
        outcomes.update(&count.to_le_bytes());
        self.state = Digest(*state.finalize().as_bytes());
        self.outcomes = Digest(*outcomes.finalize().as_bytes());
        Executed {
            commit: commit.index,
            outcomes_root: self.outcomes,
            state_root: self.state,
        }
    }
}

/// A node that keeps to the rules.
pub struct Node {
    config: Config,
    signer: Option<SigningKey>,
    clock: SkewedClock,
    last_now_ms: u64,
    replica: Option<Replica>,
    incarnation: u64,
    disk: Disk,
    /// Everything on the disk, synced or not, by round and creator.
    index: BTreeMap<EventRef, Bytes>,
    syncing: Option<usize>,
    outputs: VecDeque<Output>,
    ledger: ToyLedger,
    /// When the world will next call on account of time, if it was asked to.
    pub timer_us: Option<u64>,
    /// Extra time that each input takes, in microseconds.
    pub slow_us: u64,
    /// Until when earlier inputs keep it busy.
    pub busy_until_us: u64,
    /// Commits reported as durable since the last start.
    pub committed: u64,
}

impl Node {
    /// A node that has never run. Start it.
    pub fn new(config: Config, signer: Option<SigningKey>, clock: SkewedClock) -> Self {
        Self {
            config,
            signer,
            clock,
            last_now_ms: 0,
            replica: None,
            incarnation: 0,
            disk: Disk::new(),
            index: BTreeMap::new(),
            syncing: None,
            outputs: VecDeque::new(),
            ledger: ToyLedger::default(),
            timer_us: None,
            slow_us: 0,
            busy_until_us: 0,
            committed: 0,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// Counts its starts. What was scheduled for an earlier one is void.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What the replica says of itself, if it runs.
    pub fn status(&self) -> Option<ReplicaStatus> {
        self.replica.as_ref().map(Replica::status)
    }

    /// Its own idea of the time, in Unix ms. Never goes back.
    pub fn now_ms(&mut self, now_us: u64) -> u64 {
        self.last_now_ms = self.last_now_ms.max(self.clock.now_ms(now_us));
        self.last_now_ms
    }

    /// The events on its disk, in the order they were written.
    pub fn log(&self) -> Vec<VerifiedEvent> {
        self.disk
            .iter()
            .map(|record| from_log(record.to_vec()))
            .collect()
    }

    /// Whether this event is on its disk.
    pub fn holds(&self, reference: &EventRef) -> bool {
        self.index.contains_key(reference)
    }

    /// The process starts, with whatever the disk has.
    pub fn start(&mut self, now_us: u64) -> Vec<Effect> {
        assert!(!self.is_up(), "a node is started once");
        self.incarnation += 1;
        let log: Vec<VerifiedEvent> = self.disk.recover().into_iter().map(from_log).collect();
        self.index = log
            .iter()
            .map(|event| (*event.reference(), event.bytes().clone()))
            .collect();
        self.ledger = ToyLedger::default();
        self.committed = 0;
        self.busy_until_us = now_us;
        let now_ms = self.now_ms(now_us);
        let replica = Replica::recover(
            self.config.clone(),
            self.signer.clone(),
            now_ms,
            log.into_iter(),
        );
        self.replica = Some(replica);
        self.pump()
    }

    /// The process ends without warning.
    pub fn crash(&mut self, kind: CrashKind, rng: &mut SimRng) {
        self.replica = None;
        self.outputs.clear();
        self.syncing = None;
        self.timer_us = None;
        self.disk.crash(kind, rng);
    }

    /// Someone puts an old copy of the disk in place of the disk of a node that is down.
    pub fn roll_back(&mut self, permille: u32) {
        assert!(!self.is_up(), "a disk is replaced while the node is down");
        self.disk
            .roll_back(self.disk.records() * permille as usize / 1000);
    }

    /// Gives the replica an input, and carries out what follows.
    pub fn handle(&mut self, now_us: u64, input: Input) -> Vec<Effect> {
        let now_ms = self.now_ms(now_us);
        let Some(replica) = &mut self.replica else {
            return Vec::new();
        };
        replica.handle(now_ms, input);
        self.pump()
    }

    /// A client submits a transaction.
    pub fn submit(
        &mut self,
        now_us: u64,
        transaction: Bytes,
    ) -> (Result<(), SubmitError>, Vec<Effect>) {
        let now_ms = self.now_ms(now_us);
        let Some(replica) = &mut self.replica else {
            return (Err(SubmitError::NotAMember), Vec::new());
        };
        let result = replica.submit(now_ms, transaction);
        (result, self.pump())
    }

    /// The disk has synced up to `position`.
    pub fn synced(&mut self, position: usize) -> Vec<Effect> {
        self.syncing = None;
        self.disk.synced_to(position);
        self.pump()
    }

    /// When the replica wants to be called, in virtual time.
    pub fn deadline_us(&self) -> Option<u64> {
        let deadline_ms = self.replica.as_ref()?.next_deadline_ms()?;
        Some(self.clock.when_us(deadline_ms))
    }

    /// Carries out outputs in order, until one has to wait for the disk.
    fn pump(&mut self) -> Vec<Effect> {
        let replica = self
            .replica
            .as_mut()
            .expect("only a running node has outputs");
        while let Some(output) = replica.poll_output() {
            self.outputs.push_back(output);
        }
        let mut effects = Vec::new();
        while let Some(output) = self.outputs.pop_front() {
            let durable_first = matches!(
                output,
                Output::Send { .. } | Output::ReadStore { .. } | Output::Commit(_)
            );
            if durable_first && !self.disk.is_synced() {
                self.outputs.push_front(output);
                if self.syncing.is_none() {
                    self.syncing = Some(self.disk.written());
                    effects.push(Effect::Sync(self.disk.written()));
                }
                break;
            }
            self.perform(output, &mut effects);
        }
        effects
    }

    fn perform(&mut self, output: Output, effects: &mut Vec<Effect>) {
        match output {
            Output::Persist(event) => {
                self.check_causal(&event, effects);
                self.disk.append(event.bytes());
                self.index.insert(*event.reference(), event.bytes().clone());
                effects.push(Effect::Persisted(event));
            }
            Output::Send { to, message } => {
                self.check_persisted(&message, effects);
                effects.push(Effect::Send(to, message.encode()));
            }
            Output::ReadStore { to, request } => {
                let answer = Message::Events(self.read_store(&request));
                effects.push(Effect::Send(Recipient::One(to), answer.encode()));
            }
            Output::Commit(commit) => {
                let executed = self.ledger.execute(&commit);
                let is_checkpoint = commit.is_checkpoint;
                self.committed += 1;
                effects.push(Effect::Committed(Box::new(commit)));
                if is_checkpoint {
                    effects.push(Effect::Execute(executed));
                }
            }
            Output::Certificate(certificate) => effects.push(Effect::Certificate(certificate)),
            Output::Equivocation(proof) => effects.push(Effect::Equivocation(proof)),
            Output::PeerFault { peer, fault } => effects.push(Effect::Fault(peer, fault)),
            // The toy application ends no epoch.
            Output::EpochEnded(_)
            | Output::NeedsSnapshot { .. }
            | Output::ReadEpochEnd { .. }
            | Output::Returned(_) => {}
            Output::Halt(reason) => effects.push(Effect::Halt(reason)),
        }
    }

    /// An own event is on disk before it is sent, and so is what it cites above the floor.
    fn check_persisted(&self, message: &Message, effects: &mut Vec<Effect>) {
        let Message::Events(events) = message else {
            return;
        };
        for bytes in events {
            let event = from_log(bytes.to_vec());
            if Some(event.creator()) != self.config.me {
                continue;
            }
            if !self.index.contains_key(event.reference()) {
                effects.push(Effect::Broken(format!(
                    "own {:?} was sent before it was persisted",
                    event.reference()
                )));
            }
        }
    }

    /// The log is in causal order: an event comes after its parents, except those that are collected.
    fn check_causal(&self, event: &VerifiedEvent, effects: &mut Vec<Effect>) {
        for parent in event.parents().iter().filter(|parent| parent.round.0 > 0) {
            let missing = !self.index.contains_key(parent);
            if missing
                && self
                    .status()
                    .is_some_and(|status| parent.round > status.floor)
            {
                let text = format!(
                    "{:?} was persisted before its parent {parent:?}",
                    event.reference()
                );
                effects.push(Effect::Broken(text));
            }
        }
    }

    fn read_store(&self, request: &StoreRequest) -> Vec<Bytes> {
        let wanted: Vec<&Bytes> = match &request.wanted {
            SyncRequest::Events(references) => {
                let mut references = references.clone();
                references.sort_unstable();
                references
                    .iter()
                    .filter_map(|reference| self.index.get(reference))
                    .collect()
            }
            SyncRequest::After(after) => {
                let wants = |reference: &EventRef| after.wants(reference.round, reference.creator);
                self.index
                    .iter()
                    .filter(|(reference, _)| wants(reference))
                    .map(|(_, bytes)| bytes)
                    .collect()
            }
        };
        let mut total = 0;
        let fits = |bytes: &&Bytes| {
            total += bytes.len();
            total <= request.bytes_max || total == bytes.len()
        };
        wanted.into_iter().take_while(fits).cloned().collect()
    }
}

fn from_log(record: impl Into<Bytes>) -> VerifiedEvent {
    VerifiedEvent::from_own_log(record.into()).expect("the log holds what was written")
}
