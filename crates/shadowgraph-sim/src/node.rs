//! The driver of one honest node: what a real node does around a replica, against virtual time and the disk model. Performs
//! outputs in order, syncs before it sends or reports a commit, decodes and verifies what comes in.
//! Decides nothing about the network; the world delivers what it hands out.

mod records;
mod shelves;
mod start;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use shadowgraph::{
    ChainId, CheckpointCertificate, Commit, Epoch, EpochEnd, EpochStart, EquivocationProof,
    EventRef, HaltReason, Input, Message, Output, Parameters, Peer, PeerFault, Recipient, Replica,
    ReplicaStatus, StoreRequest, SubmitError, SyncRequest, VerifiedEvent,
};

use crate::disk::{CrashKind, Disk};
use crate::epochs::Epochs;
use crate::queue::SkewedClock;
use crate::rng::SimRng;
use crate::toy_ledger::{Executed, ToyLedger};

pub use self::records::LogReader;
use self::records::{Records, append_end, append_event, ends, from_log};
use self::shelves::Shelves;

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
    /// These are on disk, ancestors first: send them on to whoever subscribes.
    News(Vec<Bytes>),
    /// A certificate came out.
    Certificate(CheckpointCertificate),
    /// An equivocation came out.
    Equivocation(EquivocationProof),
    /// The replica blames a peer.
    Fault(Peer, PeerFault),
    /// The epoch ended, durably.
    EpochEnded(EpochEnd),
    /// The rules of the epoch that begins are of a version that the program does not know: it ends.
    Outdated(u32),
    /// Somebody else must order these.
    Returned(Vec<Bytes>),
    /// Nobody serves the events that the node lacks.
    NeedsSnapshot,
    /// The replica stopped for good.
    Halt(HaltReason),
    /// The disk is not what was written: the node does not start.
    Refused,
    /// The driver's contract was broken.
    Broken(String),
}

/// What stays the same over a node's starts.
pub struct Identity {
    /// Its number.
    pub node: usize,
    /// The network.
    pub chain_id: ChainId,
    /// Parameters of its replica.
    pub parameters: Parameters,
    /// The epochs of the run.
    pub epochs: Arc<Epochs>,
    /// How many ended epochs it keeps.
    pub retain: Option<u64>,
}

/// A node that keeps to the rules.
pub struct Node {
    identity: Identity,
    clock: SkewedClock,
    last_now_ms: u64,
    replica: Option<Replica>,
    incarnation: u64,
    disk: Disk,
    /// Whether the disk takes no more: the node waits, and hears nothing meanwhile.
    pub disk_full: bool,
    backup: Option<Disk>,
    /// Everything on the disk, synced or not.
    shelves: Shelves,
    /// The ends on the disk.
    ends: Vec<EpochEnd>,
    /// The epoch that the last start began with.
    first: Epoch,
    syncing: Option<usize>,
    outputs: VecDeque<Output>,
    /// Events that subscribers get once they are on disk.
    news: Vec<Bytes>,
    ledger: ToyLedger,
    /// When the world will next call on account of time, if it was asked to.
    pub timer_us: Option<u64>,
    /// Extra time that each input takes, in microseconds.
    pub slow_us: u64,
    /// Until when earlier inputs keep it busy.
    pub busy_until_us: u64,
    /// Commits reported as durable since the last start.
    pub committed: u64,
    /// The newest version of the rules that its program knows, and the one it has from the next start on.
    knows: u32,
    installed: u32,
}

impl Node {
    /// A node that has never run. Start it.
    pub fn new(identity: Identity, clock: SkewedClock) -> Self {
        Self {
            ledger: ToyLedger::new(Arc::clone(&identity.epochs), 1),
            identity,
            clock,
            last_now_ms: 0,
            replica: None,
            incarnation: 0,
            disk: Disk::new(),
            disk_full: false,
            backup: None,
            shelves: Shelves::default(),
            ends: Vec::new(),
            first: Epoch(0),
            syncing: None,
            outputs: VecDeque::new(),
            news: Vec::new(),
            timer_us: None,
            slow_us: 0,
            busy_until_us: 0,
            committed: 0,
            knows: 1,
            installed: 1,
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

    /// The epoch it is in; that of its disk's end while it is down.
    pub fn epoch(&self) -> Epoch {
        match &self.replica {
            Some(replica) => replica.epoch(),
            None => Epoch(self.ends.len() as u64),
        }
    }

    /// Whether it has a seat now.
    pub fn has_seat(&self) -> bool {
        self.replica
            .as_ref()
            .is_some_and(|replica| replica.seat().is_some())
    }

    /// The events on its disk, in the order they were written.
    pub fn log(&self, reader: &mut LogReader) -> Vec<VerifiedEvent> {
        reader.read(&self.disk)
    }

    /// The events that a start would read back.
    pub fn readable(&self) -> Vec<VerifiedEvent> {
        let records = Records::read(self.disk.iter());
        let first = self.first_epoch(&records);
        let read = |event: &VerifiedEvent| event.epoch() >= first;
        records.events.into_iter().filter(read).collect()
    }

    /// Whether this event is on its disk.
    pub fn holds(&self, epoch: Epoch, reference: &EventRef) -> bool {
        self.shelves.get(epoch, reference).is_some()
    }

    /// The epoch that a start begins with.
    fn first_epoch(&self, records: &Records) -> Epoch {
        let current = records.ends.last().map_or(0, |end| end.next.epoch().0);
        let kept = self.identity.retain.unwrap_or(u64::MAX);
        // A disk that was filled from a snapshot knows earlier ends, and no logs before the last.
        let has_log = |epoch: &u64| records.events.iter().any(|event| event.epoch().0 == *epoch);
        let first = (current.saturating_sub(kept)..current).find(has_log);
        Epoch(first.unwrap_or(current))
    }

    /// The commit that the current start began with.
    pub fn started_from(&self) -> u64 {
        self.start_of(self.first).commit.0
    }

    fn start_of(&self, epoch: Epoch) -> EpochStart {
        let end = self.ends.iter().find(|end| end.next.epoch() == epoch);
        end.map_or_else(Epochs::genesis, EpochEnd::start)
    }

    fn keep_end(&mut self, end: EpochEnd, effects: &mut Vec<Effect>) {
        if !self.ends.contains(&end) {
            append_end(&mut self.disk, &end);
            self.ends.push(end.clone());
        }
        effects.push(Effect::EpochEnded(end));
    }

    /// The version that the rules of an epoch are of, if the program does not know it.
    fn unknown_version(&self, epoch: Epoch) -> Option<u32> {
        let version = self.identity.epochs.version(epoch);
        (version > self.knows).then_some(version)
    }

    /// Whether it runs the newer program, or will from its next start on.
    pub fn is_upgraded(&self) -> bool {
        self.installed == 2
    }

    /// A newer program is put in place; it counts from the next start on.
    pub fn upgrade(&mut self) {
        self.installed = 2;
    }

    /// Executes a commit and reports it; nothing if it is void. Returns the answer that a checkpoint is owed.
    fn execute(&mut self, commit: Commit, effects: &mut Vec<Effect>) -> Option<Executed> {
        let executed = self.ledger.execute(&commit)?;
        let is_checkpoint = commit.is_checkpoint;
        self.committed += 1;
        effects.push(Effect::Committed(Box::new(commit)));
        is_checkpoint.then(|| {
            effects.push(Effect::Execute(executed.clone()));
            executed
        })
    }

    /// The ends on its disk.
    pub fn ends(&self) -> &[EpochEnd] {
        &self.ends
    }

    /// The process ends without warning.
    pub fn crash(&mut self, kind: CrashKind, rng: &mut SimRng) {
        self.replica = None;
        self.outputs.clear();
        self.news.clear();
        self.syncing = None;
        self.timer_us = None;
        // What a full disk did not take is nowhere.
        let lost = self.disk_full.then_some(CrashKind::PowerLosingAll);
        self.disk.crash(lost.unwrap_or(kind), rng);
        self.ends = ends(&self.disk);
    }

    /// Someone puts an old copy of the disk in place of the disk of a node that is down.
    pub fn roll_back(&mut self, permille: u32) {
        assert!(!self.is_up(), "a disk is replaced while the node is down");
        self.disk
            .roll_back(self.disk.records() * permille as usize / 1000);
        self.ends = ends(&self.disk);
    }

    /// Someone copies the disk.
    pub fn back_up(&mut self) {
        self.backup = Some(self.disk.clone());
    }

    /// Someone puts the copy in place of the disk of a node that is down.
    pub fn restore(&mut self) {
        assert!(!self.is_up(), "a disk is replaced while the node is down");
        self.disk = self.backup.take().expect("a backup was made before");
        self.ends = ends(&self.disk);
    }

    /// A node that never ran gets a copy of another's disk.
    pub fn copy_disk(&mut self, other: &Self) {
        assert!(!self.is_up(), "a disk is replaced while the node is down");
        self.disk = other.disk.clone();
    }

    /// A bit of the disk of a node that is down flips.
    pub fn rot(&mut self, permille: u32) {
        assert!(!self.is_up(), "the disk rots while the node is down");
        self.disk.rot(permille);
    }

    /// What the disk still has to take; none if nothing waits for it.
    pub fn unsynced(&self) -> Option<usize> {
        self.syncing.map(|_| self.disk.written())
    }

    /// Someone sets the clock of a machine whose node is down.
    pub fn set_clock(&mut self, clock: SkewedClock) {
        assert!(!self.is_up(), "a running node's clock is never set");
        self.clock = clock;
        self.last_now_ms = 0;
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
                Output::Send { .. }
                    | Output::ReadStore { .. }
                    | Output::ReadEpochEnd { .. }
                    | Output::Commit(_)
                    | Output::Returned(_)
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
        if !self.news.is_empty() && self.disk.is_synced() {
            effects.push(Effect::News(std::mem::take(&mut self.news)));
        }
        effects
    }

    fn perform(&mut self, output: Output, effects: &mut Vec<Effect>) {
        match output {
            Output::Persist(event) => {
                self.check_causal(&event, effects);
                append_event(&mut self.disk, &event);
                self.shelves.put(&event);
                self.news.push(event.bytes().clone());
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
                // The answer takes its time; the world brings it.
                self.execute(commit, effects);
            }
            Output::Certificate(certificate) => effects.push(Effect::Certificate(certificate)),
            Output::Equivocation(proof) => effects.push(Effect::Equivocation(proof)),
            Output::PeerFault { peer, fault } => effects.push(Effect::Fault(peer, fault)),
            Output::EpochEnded(end) => {
                let unknown = self.unknown_version(end.next.epoch());
                self.keep_end(end, effects);
                if let Some(version) = unknown {
                    // docs/protocol.md 10.10: nothing of that epoch is written or sent.
                    self.outputs.clear();
                    effects.push(Effect::Outdated(version));
                }
            }
            Output::NeedsSnapshot { .. } => effects.push(Effect::NeedsSnapshot),
            Output::ReadEpochEnd { to, epoch } => {
                if let Some(end) = self.ends.iter().find(|end| end.epoch() == epoch) {
                    let message = Message::EpochEnd(Box::new(end.clone()));
                    effects.push(Effect::Send(Recipient::One(to), message.encode()));
                }
            }
            Output::Returned(transactions) => effects.push(Effect::Returned(transactions)),
            Output::Halt(reason) => effects.push(Effect::Halt(reason)),
        }
    }

    /// An own event is on disk before it is sent, and so is what it cites above the floor.
    fn check_persisted(&self, message: &Message, effects: &mut Vec<Effect>) {
        let Message::Events(events) = message else {
            return;
        };
        for bytes in events {
            let event = from_log(bytes.clone());
            let creator = self.identity.epochs.node_of(event.epoch(), event.creator());
            if creator != Some(self.identity.node) {
                continue;
            }
            if !self.holds(event.epoch(), event.reference()) {
                effects.push(Effect::Broken(format!(
                    "own {:?} was sent before it was persisted",
                    event.reference()
                )));
            }
        }
    }

    /// The log is in causal order: an event comes after its parents, except those that are collected.
    fn check_causal(&self, event: &VerifiedEvent, effects: &mut Vec<Effect>) {
        let parents = event.parents().iter().filter(|parent| parent.round.0 > 0);
        for parent in self.shelves.lacking(event.epoch(), parents) {
            let counts = |status: ReplicaStatus| {
                status.epoch == event.epoch() && parent.round > status.floor
            };
            if self.status().is_some_and(counts) {
                let text = format!(
                    "{:?} was persisted before its parent {parent:?}",
                    event.reference()
                );
                effects.push(Effect::Broken(text));
            }
        }
    }

    fn read_store(&self, request: &StoreRequest) -> Vec<Bytes> {
        let kept = self.identity.retain.unwrap_or(u64::MAX);
        if request.epoch.0 < (self.ends.len() as u64).saturating_sub(kept) {
            return Vec::new();
        }
        let wanted: Vec<&Bytes> = match &request.wanted {
            SyncRequest::Events(references) => {
                let mut references = references.clone();
                references.sort_unstable();
                references
                    .iter()
                    .filter_map(|reference| self.shelves.get(request.epoch, reference))
                    .collect()
            }
            SyncRequest::After(after) => {
                let wants = |round, creator| after.wants(round, creator);
                self.shelves.of_epoch(request.epoch, wants)
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
