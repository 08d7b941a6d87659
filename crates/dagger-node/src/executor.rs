//! Executes commits on the ledger, in order, on one thread; makes the outcomes known.
//!
//! What must not live here: the order itself (replica) and what a transaction does (ledger).

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagger_client::api::{CommitStage, EventStage};
use dagger_ledger::{CheckedTransaction, CommitInput, CommitLink, NextEpoch};
use shadowgraph::{
    Checkpoint, CheckpointCertificate, Commit, CommitIndex, Committee, Digest, Epoch, Input,
    Member, PublicKey, VerifiedEvent,
};
use tokio::sync::mpsc;

use crate::{
    attest::Attestor,
    data_dir::write_atomically,
    error::NodeError,
    handle::{CommitRecord, OwnCheckpoint, Shared},
    outcomes::{Executed as Indexed, Note},
    parking::Parking,
    replica::{CheckedCache, Control},
    store::{Epochs, SnapshotHead, Snapshots},
};

/// Own checkpoints kept until a certificate comes for them.
const OWN_CHECKPOINTS_MAX: usize = 256;
/// Least time between two wishes for a commit.
const WAKE_INTERVAL_MS: u64 = 250;

/// A node that stops leaves a snapshot if this many commits would have to be executed again.
const SNAPSHOT_AT_STOP_COMMITS: u64 = 256;

/// What the replica hands to the executor.
pub(crate) enum ExecutorInput {
    /// The next commit.
    Commit(Box<Commit>),
    /// A quorum has signed a checkpoint.
    Certificate(Box<CheckpointCertificate>),
}

/// The roots after a checkpoint, which the replica is owed.
#[derive(Debug, Clone)]
pub(crate) struct Executed {
    pub commit: CommitIndex,
    pub outcomes_root: Digest,
    pub state_root: Digest,
    /// Who votes from here on, if the commit ends its epoch.
    pub next: Option<Committee>,
}

impl From<Executed> for Input {
    fn from(executed: Executed) -> Self {
        Self::Executed {
            commit: executed.commit,
            outcomes_root: executed.outcomes_root,
            state_root: executed.state_root,
            next: executed.next,
        }
    }
}

/// The executor: used in place while the log is read back, then on its own thread.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    cache: Arc<CheckedCache>,
    attestor: Arc<Attestor>,
    snapshots: Snapshots,
    epochs: Epochs,
    snapshot_commit: u64,
    saving: Option<std::thread::JoinHandle<()>>,
    own: BTreeMap<u64, Checkpoint>,
    woken_at_ms: u64,
}

impl Executor {
    pub fn new(
        shared: Arc<Shared>,
        cache: Arc<CheckedCache>,
        attestor: Arc<Attestor>,
        snapshots: Snapshots,
        epochs: Epochs,
    ) -> Self {
        let snapshot_commit = shared
            .ledger
            .read()
            .expect("no holder panics")
            .commit_index()
            .unwrap_or(0);
        let own = BTreeMap::new();
        shared.outcomes.note(Note::From(snapshot_commit));
        Self {
            shared,
            cache,
            attestor,
            snapshots,
            epochs,
            snapshot_commit,
            saving: None,
            own,
            woken_at_ms: 0,
        }
    }

    /// Runs until the replica's thread has gone.
    pub fn run(
        mut self,
        mut inputs: mpsc::Receiver<ExecutorInput>,
        fatal: &mpsc::Sender<NodeError>,
    ) {
        let parking = Parking::new();
        loop {
            let wait = self.wake_wait();
            let until = Instant::now() + wait;
            let input = parking.wait(until, |context| inputs.poll_recv(context));
            let result = match input {
                Some(None) => break,
                Some(Some(ExecutorInput::Commit(commit))) => {
                    self.commit(&commit, false).map(|executed| {
                        if let Some(executed) = executed {
                            let control = Control::Input(executed.into());
                            self.shared.replica.control(control);
                        }
                    })
                }
                Some(Some(ExecutorInput::Certificate(certificate))) => self.certified(*certificate),
                None => {
                    self.wake();
                    Ok(())
                }
            };
            if let Err(error) = result {
                let _ = fatal.try_send(error);
                return;
            }
        }
        if self.commits_since_snapshot() >= SNAPSHOT_AT_STOP_COMMITS {
            self.save_snapshot(false);
        }
        if let Some(saving) = self.saving {
            // A panic there has been printed; the snapshot is then simply not there.
            let _ = saving.join();
        }
    }

    /// How long until the ledger waits for a commit that nobody has a transaction for.
    fn wake_wait(&self) -> Duration {
        let deadline_ms = self
            .shared
            .ledger
            .read()
            .expect("no holder panics")
            .next_deadline_ms();
        let now_ms = self.shared.clock.now_ms();
        let wait_ms = deadline_ms.map_or(60_000, |d| {
            d.max(self.woken_at_ms + WAKE_INTERVAL_MS)
                .saturating_sub(now_ms)
        });
        Duration::from_millis(wait_ms.clamp(1, 60_000))
    }

    fn wake(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let deadline_ms = {
            let mut ledger = self.shared.ledger.write().expect("no holder panics");
            // Most leases have been renewed since: they need no commit.
            ledger.look_ahead(now_ms);
            ledger.next_deadline_ms()
        };
        if deadline_ms.is_some_and(|d| d <= now_ms) && now_ms >= self.woken_at_ms + WAKE_INTERVAL_MS
        {
            self.woken_at_ms = now_ms;
            self.shared.replica.control(Control::Input(Input::Wake));
        }
    }

    /// Executes the next commit; `replayed` if it follows from the log of an earlier run.
    ///
    /// # Errors
    /// `E_DIVERGED` if the state on disk is of another commit of that index.
    pub fn commit(
        &mut self,
        commit: &Commit,
        replayed: bool,
    ) -> Result<Option<Executed>, NodeError> {
        if let Some(done) = self.executed_before(commit)? {
            return Ok(done);
        }
        if let Some(consumer) = &self.shared.opaque {
            consumer.committed(commit);
            let executed = commit.is_checkpoint.then_some(Executed {
                commit: commit.index,
                outcomes_root: commit.digest,
                state_root: commit.digest,
                next: None,
            });
            if let Some(executed) = &executed {
                self.checkpoint(commit, executed);
            }
            return Ok(executed);
        }
        let started = Instant::now();
        let (transactions, events) = self.transactions_of(commit);
        let active_members = active_members(&commit.events);
        let input = CommitInput {
            index: commit.index.0,
            digest: commit.digest.0,
            time_ms: commit.time_ms,
            active_members: &active_members,
            transactions: &transactions,
            epoch: commit.epoch.0,
            is_checkpoint: commit.is_checkpoint,
        };
        let mut ledger = self.shared.ledger.write().expect("no holder panics");
        let previous_outcomes_root = ledger.outcomes_root();
        let output = ledger.execute(&input);
        let mut state_root = commit.is_checkpoint.then(|| ledger.state_root());
        if let Some(root) = &mut state_root {
            root[0] ^= u8::from(self.shared.wrong_roots.load(Ordering::Acquire));
        }
        if output.next_epoch.is_none() {
            // Otherwise the ledger numbers its seats anew already.
            self.attestor.committed(&active_members, &ledger);
        }
        drop(ledger);
        let output_root = output.outcomes_root;
        let link = CommitLink::of(commit.index.0, commit.time_ms, &output.outcomes);
        let at_ms = if replayed {
            commit.time_ms
        } else {
            self.shared.clock.now_ms()
        };
        self.shared
            .executed_transactions
            .fetch_add(transactions.len() as u64, Ordering::Relaxed);
        self.shared
            .metrics
            .executed(commit.index.0, transactions.len(), started.elapsed());
        let record = Arc::new(CommitRecord {
            index: commit.index.0,
            time_ms: commit.time_ms,
            digest: dagger_ledger::Digest(commit.digest.0),
            leader: self.shared.event_name(&commit.leader),
            actions: transactions
                .iter()
                .map(|t| t.transaction().map(|t| t.action.kind()))
                .collect(),
            outcomes: output.outcomes,
            changes: output.changes,
        });
        let stage = Arc::new(self.shared.membership().commit_stage(commit, at_ms));
        if let Some(link) = link {
            let previous = dagger_ledger::Digest(previous_outcomes_root);
            let indexed = self.shared.outcomes.reached();
            let mut receipts = self.shared.receipts.lock().expect("no holder panics");
            receipts.executed(link, previous, &record, indexed);
        }
        // Published first and under the lock: whoever is told of an outcome finds its commit, and the reverse.
        let mut known = self.shared.transactions.lock().expect("no holder panics");
        self.shared.publish(Arc::clone(&record));
        for ((outcome, event), transaction) in
            record.outcomes.iter().zip(&events).zip(&transactions)
        {
            debug_assert_eq!(outcome.digest, transaction.digest());
            known.in_event(outcome.digest, event);
            known.executed(&stage, outcome, at_ms);
        }
        drop(known);
        self.index(link, previous_outcomes_root, record, stage, events);
        let next = output.next_epoch.as_ref().map(committee_of).transpose()?;
        let executed = state_root.map(|state_root| Executed {
            commit: commit.index,
            outcomes_root: Digest(output_root),
            state_root: Digest(state_root),
            next,
        });
        if let Some(executed) = &executed {
            self.checkpoint(commit, executed);
            if executed.next.is_some() {
                if !replayed {
                    self.take_new_keys();
                }
                // Whoever is far behind starts from here, and so does the next start of this node.
                self.save_snapshot(true);
            }
        }
        Ok(executed)
    }

    /// Writes what was executed down, behind execution.
    fn index(
        &self,
        link: Option<CommitLink>,
        previous: [u8; 32],
        record: Arc<CommitRecord>,
        stage: Arc<CommitStage>,
        events: Vec<Arc<EventStage>>,
    ) {
        let note = match link {
            Some(link) => Note::Executed(Box::new(Indexed {
                link,
                previous: dagger_ledger::Digest(previous),
                record,
                stage,
                events,
            })),
            None => Note::Empty(record.index),
        };
        self.shared.outcomes.note(note);
    }

    /// The next epoch may seat a key whose file has come since the start. The replica hears of it before it hears of the
    /// epoch's end.
    fn take_new_keys(&self) {
        match self.shared.consensus_keys.look() {
            Ok(keys) => {
                for key in keys {
                    let name = dagger_ledger::Key(key.public().0).to_hex();
                    tracing::info!(key = %name, "took in a consensus key");
                    self.shared.replica.control(Control::HoldKey(Box::new(key)));
                }
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "cannot read the consensus keys");
            }
        }
    }

    /// Whether the state is already past a commit, as it is after a start from a snapshot; the inner value is what the
    /// replica is owed all the same. A commit of an epoch that has ended before it is void.
    fn executed_before(&self, commit: &Commit) -> Result<Option<Option<Executed>>, NodeError> {
        let mut ledger = self.shared.ledger.write().expect("no holder panics");
        let done = ledger.commit_index().unwrap_or(0);
        let (epoch, start) = (ledger.epoch().number, ledger.epoch().start_commit);
        let ended = commit.epoch.0 < epoch;
        let is_end = ended && commit.epoch.0 + 1 == epoch && commit.index.0 == start;
        if !ended && commit.index.0 > done {
            return Ok(None);
        }
        let same = done == commit.index.0 && (!ended || is_end);
        if same && ledger.commit_digest() != commit.digest.0 {
            return Err(NodeError::Internal(format!(
                "the ledger's snapshot is of another commit {done} than the event log says; move the directory `state` away and start again"
            )));
        }
        if !(same && is_end) {
            return Ok(Some(None));
        }
        let next = NextEpoch {
            epoch,
            seats: ledger.committee(),
        };
        Ok(Some(Some(Executed {
            commit: commit.index,
            outcomes_root: Digest(ledger.outcomes_root()),
            state_root: Digest(ledger.state_root()),
            next: Some(committee_of(&next)?),
        })))
    }

    /// The commit's transactions in order, checked, and for each the event it came in.
    fn transactions_of(&self, commit: &Commit) -> (Vec<CheckedTransaction>, Vec<Arc<EventStage>>) {
        let mut transactions = Vec::new();
        let mut events = Vec::new();
        for event in commit.events.iter().filter(|e| e.transaction_count() > 0) {
            let (checked, at_ms) = match self.cache.take(event.digest()) {
                Some(checked) => (checked.transactions, checked.at_ms),
                None => {
                    let wires: Vec<Bytes> = event.transactions().collect();
                    let checked =
                        CheckedTransaction::check_batch(&self.shared.genesis.chain_id, &wires);
                    (checked.into(), event.timestamp_ms())
                }
            };
            let stage = Arc::new(EventStage {
                event: self.shared.event_name(event.reference()),
                at_ms,
            });
            events.extend(std::iter::repeat_n(stage, checked.len()));
            transactions.extend(checked.iter().cloned());
        }
        (transactions, events)
    }

    fn checkpoint(&mut self, commit: &Commit, executed: &Executed) {
        let checkpoint = Checkpoint {
            epoch: commit.epoch,
            commit: commit.index,
            commit_digest: commit.digest,
            outcomes_root: executed.outcomes_root,
            state_root: executed.state_root,
            time_ms: commit.time_ms,
            next_committee: executed.next.as_ref().map(Committee::digest),
        };
        self.own.insert(commit.index.0, checkpoint);
        while self.own.len() > OWN_CHECKPOINTS_MAX {
            self.own.pop_first();
        }
        *self.shared.checkpoint.lock().expect("no holder panics") = Some(OwnCheckpoint {
            checkpoint,
            certificate: None,
        });
    }

    fn commits_since_snapshot(&self) -> u64 {
        let ledger = self.shared.ledger.read().expect("no holder panics");
        ledger
            .commit_index()
            .unwrap_or(0)
            .saturating_sub(self.snapshot_commit)
    }

    /// Saves the ledger as it stands; the file is written beside execution. A failure costs time at the
    /// next start, nothing else. The start of an epoch is always saved, and lets older logs go.
    fn save_snapshot(&mut self, starts_epoch: bool) {
        if starts_epoch && let Some(saving) = self.saving.take() {
            let _ = saving.join();
        }
        if self.saving.take_if(|s| s.is_finished()).is_none() && self.saving.is_some() {
            return;
        }
        let started = Instant::now();
        let (head, state) = {
            let ledger = self.shared.ledger.read().expect("no holder panics");
            let head = SnapshotHead {
                commit: ledger.commit_index().unwrap_or(0),
                commit_digest: ledger.commit_digest(),
                transactions: self.shared.executed_transactions.load(Ordering::Relaxed),
                epoch: ledger.epoch().number,
                starts_epoch,
            };
            (head, ledger.freeze())
        };
        self.snapshot_commit = head.commit;
        let (snapshots, epochs) = (self.snapshots.clone(), self.epochs.clone());
        let shared = Arc::clone(&self.shared);
        let retain = self.shared.config.store.retain;
        self.saving = Some(std::thread::spawn(move || {
            let (commit, epoch) = (head.commit, head.epoch);
            // Nothing up to that commit is executed again once it is there.
            shared.outcomes.settle(commit);
            if let Err(error) = snapshots.save(&head, |out| state.write(out)) {
                tracing::error!(code = error.code(), %error, "cannot save the ledger; a restart will take longer");
                return;
            }
            drop(state);
            let took_ms = started.elapsed().as_millis();
            tracing::info!(commit, epoch, took_ms, "saved the ledger");
            // The epoch before is not proven to have ended yet: its log must stay whatever is configured.
            let first_kept = retain.first_kept(epoch.saturating_sub(1));
            match epochs.prune(Epoch(first_kept)) {
                Ok(0) => {}
                Ok(pruned) => tracing::info!(pruned, first_kept, "removed the logs of old epochs"),
                Err(error) => {
                    tracing::error!(code = error.code(), %error, "cannot remove old logs");
                }
            }
        }));
    }

    /// A quorum has signed a checkpoint.
    ///
    /// # Errors
    /// `E_DIVERGED` if it differs from this node's own.
    pub fn certified(&mut self, certificate: CheckpointCertificate) -> Result<(), NodeError> {
        let theirs = certificate.checkpoint;
        let mut receipts = self.shared.receipts.lock().expect("no holder panics");
        receipts.certified(&certificate);
        drop(receipts);
        let note = Note::Certificate(Box::new(certificate.clone()));
        self.shared.outcomes.note(note);
        let Some(ours) = self.own.remove(&theirs.commit.0) else {
            return Ok(());
        };
        if ours != theirs {
            return Err(diverged(&self.shared, &ours, &certificate));
        }
        self.own.retain(|index, _| *index > theirs.commit.0);
        tracing::debug!(commit = theirs.commit.0, state_root = %theirs.state_root, "checkpoint certified");
        self.shared
            .metrics
            .certified_commit
            .set(i64::try_from(theirs.commit.0).unwrap_or(i64::MAX));
        let mut last = self.shared.checkpoint.lock().expect("no holder panics");
        if last
            .as_ref()
            .is_none_or(|l| l.checkpoint.commit <= theirs.commit)
        {
            *last = Some(OwnCheckpoint {
                checkpoint: theirs,
                certificate: Some(certificate),
            });
        }
        drop(last);
        if self.commits_since_snapshot() >= self.shared.config.store.snapshot_commits {
            self.save_snapshot(false);
        }
        Ok(())
    }
}

/// The committee that the ledger wants.
pub(crate) fn committee_of(next: &NextEpoch) -> Result<Committee, NodeError> {
    let member = |seat: &dagger_ledger::NextSeat| Member {
        key: PublicKey(seat.consensus_key.0),
        weight: seat.weight,
    };
    let members = next.seats.iter().map(member).collect();
    Committee::new(Epoch(next.epoch), members)
        .map_err(|e| NodeError::Internal(format!("the ledger seats no committee: {e}")))
}

/// Per member with events in a commit, the newest round of them.
pub(crate) fn active_members(events: &[VerifiedEvent]) -> Vec<(u16, u64)> {
    let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
    for event in events {
        let round = newest.entry(event.creator().0).or_default();
        *round = (*round).max(event.round().0);
    }
    newest.into_iter().collect()
}

/// Keeps the evidence of a divergence and says what happened.
pub(crate) fn diverged(
    shared: &Shared,
    ours: &Checkpoint,
    certificate: &CheckpointCertificate,
) -> NodeError {
    let theirs = &certificate.checkpoint;
    let detail = format!(
        "after commit {}: state root {} against {}, outcomes root {} against {}",
        theirs.commit, ours.state_root, theirs.state_root, ours.outcomes_root, theirs.outcomes_root
    );
    let evidence = shared
        .config
        .data_dir
        .join("evidence")
        .join(format!("diverged-{}.json", theirs.commit));
    let signers: Vec<u16> = certificate.signatures.iter().map(|(m, _)| m.0).collect();
    let document = serde_json::json!({
        "ours": { "commit": ours.commit.0, "commit_digest": ours.commit_digest.to_string(), "state_root": ours.state_root.to_string(), "outcomes_root": ours.outcomes_root.to_string() },
        "certified": { "commit": theirs.commit.0, "commit_digest": theirs.commit_digest.to_string(), "state_root": theirs.state_root.to_string(), "outcomes_root": theirs.outcomes_root.to_string(), "signers": signers },
        "certificate_borsh": hex::encode(borsh::to_vec(certificate).expect("plain data")),
    });
    if let Err(error) = write_atomically(&evidence, format!("{document:#}\n").as_bytes()) {
        tracing::error!(code = error.code(), %error, "cannot keep the evidence of the divergence");
    }
    NodeError::Diverged { detail, evidence }
}
