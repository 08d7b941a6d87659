//! Fills an index that begins late with what this node's own logs say of the time before: reads them again from the oldest state that it
//! still has (genesis, where it keeps all), on a thread of its own, beside everything else, with half of its time at most.
//!
//! What must not live here: how a log is read and executed (`replay`), and what an index holds (`older`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dagger_client::api::{EventStage, OutcomesRebuild};
use dagger_ledger::{CommitLink, CommitOutput, Digest, Ledger};
use shadowgraph::{CheckpointCertificate, Commit, Committee, Epoch, EpochEnd};

use super::{
    Executed, Note,
    index::{Index, IndexError, Mark},
    older::Older,
};
use crate::{
    error::NodeError,
    handle::{CommitRecord, Shared},
    membership::Membership,
    replay::{Listener, Replay, ReplayError, Replayed},
    store::{Epochs, Snapshots},
};

/// How often the index is looked at until it says what it begins with.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest pause after a piece of work.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Why the logs did not fill the index.
#[derive(Debug, thiserror::Error)]
enum RebuildError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("the index cannot be written: {0}")]
    Index(#[from] IndexError),
    #[error("the state that they begin with cannot be used: {0}")]
    State(String),
    #[error("they lead to commit {reached}, and the index begins after {until}")]
    Ends { reached: u64, until: u64 },
    #[error("the index was closed")]
    Closed,
}

/// Starts to fill the index of a node that has read its logs back.
pub(crate) fn start(shared: &Arc<Shared>, epochs: Epochs, snapshots: Snapshots) {
    let rebuild = Rebuild {
        shared: Arc::clone(shared),
        epochs,
        snapshots,
    };
    let thread = std::thread::Builder::new().name("outcomes-older".into());
    match thread.spawn(move || rebuild.run()) {
        Ok(thread) => {
            let rebuilder = &shared.outcomes.rebuilder;
            *rebuilder.lock().expect("no holder panics") = Some(thread);
        }
        Err(error) => tracing::warn!(%error, "no thread to read older outcomes from the logs"),
    }
}

struct Rebuild {
    shared: Arc<Shared>,
    epochs: Epochs,
    snapshots: Snapshots,
}

/// A state that logs lead on from.
enum Base {
    Genesis,
    /// The snapshot of the state with which an epoch starts, by its commit.
    EpochStart(u64),
}

impl Rebuild {
    fn run(self) {
        let Some(until) = self.lacks() else {
            return;
        };
        let bases = match self.bases(until) {
            Ok(bases) => bases,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "cannot look for the logs of older outcomes");
                return;
            }
        };
        for base in bases {
            let started = Instant::now();
            let filled = self.fill_from(&base, until);
            self.show(None);
            if self.is_stopping() {
                return;
            }
            match filled {
                Ok(from) => {
                    let took_ms = started.elapsed().as_millis();
                    tracing::info!(
                        from,
                        until,
                        took_ms,
                        "the index of outcomes has what was read from the logs"
                    );
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, until, "older outcomes cannot be read from the logs");
                }
            }
        }
    }

    /// The last commit that the index lacks, once it has said what it begins with.
    fn lacks(&self) -> Option<u64> {
        loop {
            let (_, mark) = self.shared.outcomes.read_marked()?;
            if self.is_stopping() {
                return None;
            }
            if mark.known_from() > 0 {
                return mark.lacks();
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.outcomes.inner.queue.is_stopping()
    }

    /// The states from which unbroken logs lead on, the oldest first.
    fn bases(&self, until: u64) -> Result<Vec<Base>, NodeError> {
        let present = self.epochs.last_end()?.map_or(0, |end| end.next.epoch().0);
        let logs = (0..present).rev();
        let unbroken = logs.take_while(|epoch| self.epochs.has_log(Epoch(*epoch)));
        let first = unbroken.last().unwrap_or(present);
        let mut bases = Vec::new();
        if first == 0 {
            bases.push(Base::Genesis);
        }
        for commit in self.snapshots.epoch_starts()? {
            let snapshot = self.snapshots.epoch_start(commit)?;
            if snapshot.is_some_and(|s| s.head.epoch >= first && commit < until) {
                bases.push(Base::EpochStart(commit));
            }
        }
        Ok(bases)
    }

    /// Fills the index with what follows `base`; returns its first commit then.
    fn fill_from(&self, base: &Base, until: u64) -> Result<u64, RebuildError> {
        let from = match base {
            Base::Genesis => 1,
            Base::EpochStart(commit) => commit + 1,
        };
        let (index, _) = self.index()?;
        let filling = Filling {
            rebuild: self,
            identity: index.identity,
            older: Older::new(&index),
            notes: Vec::new(),
            membership: None,
            from,
            until,
            reached: 0,
            failed: None,
            since: Instant::now(),
        };
        drop(index);
        let mut replay = match base {
            Base::Genesis => {
                let (genesis, committee) = crate::identity::read_genesis(&self.shared.config)?;
                Replay::new(&genesis, committee, filling)
            }
            Base::EpochStart(commit) => {
                let (end, ledger) = self.epoch_start(*commit)?;
                Replay::after(end, ledger, filling)
            }
        };
        replay.run(&self.epochs)?;
        let mut filling = replay.into_listener();
        filling.write();
        filling.joined()
    }

    fn index(&self) -> Result<(Arc<Index>, Mark), RebuildError> {
        self.shared
            .outcomes
            .read_marked()
            .ok_or(RebuildError::Closed)
    }

    /// A state that this node has kept, and the end of the epoch that led to it.
    fn epoch_start(&self, commit: u64) -> Result<(EpochEnd, Ledger), RebuildError> {
        let wrong = |why: &str| RebuildError::State(why.into());
        let snapshot = self.snapshots.epoch_start(commit)?;
        let snapshot = snapshot.ok_or_else(|| wrong("it is gone"))?;
        let before = snapshot.head.epoch.checked_sub(1);
        let end = before.map(|epoch| self.epochs.end(Epoch(epoch)));
        let end = end.transpose()?.flatten();
        let end = end.ok_or_else(|| wrong("nothing says how the epoch before it ended"))?;
        let restored = snapshot.read(|mut body| Ledger::restore_from(&mut body));
        let mut ledger = restored.map_err(RebuildError::State)?;
        let certified = &end.certificate.checkpoint;
        let same = ledger.state_root() == certified.state_root.0
            && ledger.outcomes_root() == certified.outcomes_root.0
            && ledger.commit_index() == Some(certified.commit.0);
        if same {
            Ok((end, ledger))
        } else {
            Err(wrong("it is not the one that was certified"))
        }
    }

    fn show(&self, rebuild: Option<OutcomesRebuild>) {
        let shown = &self.shared.outcomes.inner.rebuild;
        *shown.lock().expect("no holder panics") = rebuild;
    }
}

impl Drop for Rebuild {
    /// Also after a panic.
    fn drop(&mut self) {
        self.show(None);
    }
}

/// Writes into the index what a replay comes upon.
struct Filling<'a> {
    rebuild: &'a Rebuild,
    /// Of the index that it began with.
    identity: u64,
    older: Older,
    /// Not written yet.
    notes: Vec<Note>,
    /// Who held the seats of the epoch that is read.
    membership: Option<Membership>,
    from: u64,
    until: u64,
    /// The last commit executed.
    reached: u64,
    failed: Option<RebuildError>,
    /// When this piece of work began.
    since: Instant,
}

impl Filling<'_> {
    fn write(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        let written = self.rebuild.index().and_then(|(index, _)| {
            if index.identity == self.identity {
                Ok(index.write_older(&mut self.older, &notes)?)
            } else {
                Err(RebuildError::Closed)
            }
        });
        self.failed = self.failed.take().or(written.err());
    }

    /// Whether all is read that the index lacks, and what proves it.
    fn is_whole(&self) -> bool {
        self.reached >= self.until && self.older.is_certified()
    }

    /// Joins what was written to the rest of the index.
    fn joined(self) -> Result<u64, RebuildError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (from, until, reached) = (self.from, self.until, self.reached);
        if reached < until {
            return Err(RebuildError::Ends { reached, until });
        }
        let (index, _) = self.rebuild.index()?;
        let joined = index.finish_older(self.older, from, until)?;
        drop(index);
        let outcomes = &self.rebuild.shared.outcomes;
        outcomes.note(Note::Older(joined));
        Ok(from)
    }
}

impl Listener for Filling<'_> {
    fn epoch_begins(&mut self, committee: &Committee, ledger: &Ledger) {
        let keys = &self.rebuild.shared.consensus_keys;
        self.membership = Some(Membership::new(committee.clone(), ledger, keys));
    }

    fn executed(&mut self, commit: &Commit, previous: [u8; 32], output: CommitOutput) {
        self.reached = commit.index.0;
        let link = CommitLink::of(commit.index.0, commit.time_ms, &output.outcomes);
        let (Some(link), true) = (link, self.reached <= self.until) else {
            return;
        };
        let membership = self.membership.as_ref().expect("an epoch began");
        let mut events = Vec::with_capacity(output.outcomes.len());
        for event in commit.events.iter().filter(|e| e.transaction_count() > 0) {
            let stage = Arc::new(EventStage {
                event: membership.event_name(event.reference()),
                at_ms: event.timestamp_ms(),
            });
            events.extend(std::iter::repeat_n(
                stage,
                event.transaction_count() as usize,
            ));
        }
        let stage = membership.commit_stage(commit, commit.time_ms);
        let record = CommitRecord {
            index: commit.index.0,
            time_ms: commit.time_ms,
            digest: Digest(commit.digest.0),
            leader: stage.leader.clone(),
            actions: vec![None; output.outcomes.len()],
            outcomes: output.outcomes,
            changes: output.changes,
        };
        self.notes.push(Note::Executed(Box::new(Executed {
            link,
            previous: Digest(previous),
            record: Arc::new(record),
            stage: Arc::new(stage),
            events,
        })));
    }

    fn certified(&mut self, certificate: &CheckpointCertificate) {
        let note = Note::Certificate(Box::new(certificate.clone()));
        self.notes.push(note);
    }

    fn goes_on(&mut self, _: &Replayed) -> bool {
        self.write();
        self.rebuild.show(Some(OutcomesRebuild {
            from_commit: self.from,
            at_commit: self.reached,
            to_commit: self.until,
        }));
        // The node's own work comes first.
        std::thread::sleep(self.since.elapsed().min(PAUSE_MAX));
        self.since = Instant::now();
        let stopping = self.rebuild.is_stopping();
        if stopping {
            self.failed.get_or_insert(RebuildError::Closed);
        }
        self.failed.is_none() && !self.is_whole()
    }
}
