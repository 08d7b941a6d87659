//! Recomputes the ledger from a node's event logs, trusting the genesis file alone: the work of an auditor.
//!
//! Signatures of events, of checkpoint votes and of transactions are checked again, the order is decided again, and every
//! root is compared with what a quorum certified in the graph itself.
//!
//! A node that has lost its index of outcomes reads its own logs the same way, from a state that it had (`outcomes`).
//!
//! What must not live here: anything that signs, sends, or writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use dagger_ledger::{CheckedTransaction, CommitInput, CommitOutput, Genesis, Ledger};
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, Commit, Committee, Config, Digest, EpochEnd,
    EpochStart, HaltReason, Output, Parameters, Recovery, Round, UnverifiedEvent, verify_events,
};

use crate::{
    config::NodeConfig,
    cores::open_epochs,
    data_dir::DataDir,
    error::NodeError,
    executor::{active_members, committee_of},
    identity,
    store::{Epochs, LogReader},
};

/// Events whose signatures are checked together.
const BATCH: usize = 256;

/// Why a history could not be recomputed, or is not what was certified.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The data directory cannot be read.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The logs do not reach back to genesis.
    #[error(
        "the log of epoch {missing} is not there: this node does not keep the whole history. Replay the directory of one that does (`retain = \"all\"` in its node.toml from its start on)"
    )]
    Pruned {
        /// First epoch without a log.
        missing: u64,
    },
    /// A log holds what no member signed, or what an honest log cannot hold.
    #[error(
        "the log of epoch {epoch} holds an event that does not verify, in round {round}: {why}"
    )]
    BadEvent {
        /// The log.
        epoch: u64,
        /// Round of the event.
        round: Round,
        /// What is wrong with it.
        why: String,
    },
    /// A quorum certified other roots.
    #[error("commit {commit}: recomputed {ours}, certified {certified}")]
    Diverged {
        /// The commit.
        commit: u64,
        /// State root and outcomes root as recomputed.
        ours: String,
        /// What the quorum signed.
        certified: String,
    },
}

impl ReplayError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Node(error) => error.code(),
            Self::Pruned { .. } => "E_HISTORY_PRUNED",
            Self::BadEvent { .. } => "E_BAD_EVENT",
            Self::Diverged { .. } => "E_DIVERGED",
        }
    }
}

/// How far a replay has come.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The epoch that the logs have led to.
    pub epoch: u64,
    /// Events read and verified.
    pub events: u64,
    /// Transactions executed.
    pub transactions: u64,
    /// The last commit.
    pub commit: u64,
    /// The last commit after which there is a state root; with it the time, and the root.
    pub checkpoint: u64,
    /// Ledger time of that commit.
    pub time_ms: u64,
    /// Root of the state after that commit.
    pub state_root: [u8; 32],
    /// Roots that were found equal to certified ones.
    pub compared: u64,
    /// The last commit among those.
    pub certified: u64,
}

/// Recomputes the ledger from the logs in a data directory whose node is stopped; `progress` is told from time to time how far it is.
/// Memory: one ledger and one epoch's graph. Time: that of the signatures, and of the execution.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    config: &NodeConfig,
    mut progress: impl FnMut(&Replayed),
) -> Result<Replayed, ReplayError> {
    let (genesis, committee) = identity::read_genesis(config)?;
    let _locked = DataDir::open(&config.data_dir, &genesis.chain_id.0)?;
    let epochs = open_epochs(config, &genesis, false)?;
    let mut replay = Replay::new(&genesis, committee, Audit(&mut progress));
    replay.run(&epochs)?;
    let done = replay.done;
    progress(&done);
    Ok(done)
}

/// Hears what a replay comes upon.
pub(crate) trait Listener {
    /// The log of the epoch of `committee` is next; `ledger` is as that epoch starts.
    fn epoch_begins(&mut self, committee: &Committee, ledger: &Ledger);
    /// A commit was executed on the state whose outcomes' root was `previous`.
    fn executed(&mut self, commit: &Commit, previous: [u8; 32], output: CommitOutput);
    /// The log holds that a quorum signed a checkpoint.
    fn certified(&mut self, certificate: &CheckpointCertificate);
    /// Asked from time to time: how far it is, and whether to go on.
    fn goes_on(&mut self, done: &Replayed) -> bool;
}

/// Only wants to know how far it is.
struct Audit<'a, F>(&'a mut F);

impl<F: FnMut(&Replayed)> Listener for Audit<'_, F> {
    fn epoch_begins(&mut self, _: &Committee, _: &Ledger) {}

    fn executed(&mut self, _: &Commit, _: [u8; 32], _: CommitOutput) {}

    fn certified(&mut self, _: &CheckpointCertificate) {}

    fn goes_on(&mut self, done: &Replayed) -> bool {
        (self.0)(done);
        true
    }
}

/// A replay on its way.
pub(crate) struct Replay<L> {
    chain_id: ChainId,
    ledger: Ledger,
    recovery: Recovery,
    /// Own checkpoints that no certificate has come for.
    own: BTreeMap<u64, Checkpoint>,
    /// Set when what was read ends its epoch.
    end: Option<EpochEnd>,
    done: Replayed,
    listener: L,
}

impl<L: Listener> Replay<L> {
    /// From genesis on.
    pub fn new(genesis: &Genesis, committee: Committee, listener: L) -> Self {
        let start = EpochStart::genesis(genesis.time_ms);
        Self::begin(Ledger::from_genesis(genesis), committee, start, listener)
    }

    /// From a state that the end of an epoch led to.
    pub fn after(end: EpochEnd, ledger: Ledger, listener: L) -> Self {
        let start = end.start();
        Self::begin(ledger, end.next, start, listener)
    }

    fn begin(ledger: Ledger, committee: Committee, start: EpochStart, listener: L) -> Self {
        let chain_id = ChainId(ledger.chain_id().0);
        let config = Config {
            chain_id,
            committee,
            me: None,
            start,
            parameters: Parameters::default(),
        };
        Self {
            chain_id,
            ledger,
            recovery: Recovery::new(config, None, crate::clock::unix_ms()),
            own: BTreeMap::new(),
            end: None,
            done: Replayed::default(),
            listener,
        }
    }

    /// Reads the logs, epoch after epoch, until they end or the listener has enough.
    pub fn run(&mut self, epochs: &Epochs) -> Result<(), ReplayError> {
        loop {
            let committee = self.recovery.committee().clone();
            let epoch = committee.epoch();
            let Some(log) = epochs.reader(epoch)? else {
                if epochs.knows_later(epoch) {
                    return Err(ReplayError::Pruned { missing: epoch.0 });
                }
                return Ok(());
            };
            self.listener.epoch_begins(&committee, &self.ledger);
            if !self.log(&log, &committee)? {
                return Ok(());
            }
            if let (None, Some(end)) = (&self.end, epochs.end(epoch)?) {
                self.kept_end(end)?;
            }
            if self.end.take().is_none() || !self.listener.goes_on(&self.done) {
                return Ok(());
            }
        }
    }

    /// What it was given to tell.
    pub fn into_listener(self) -> L {
        self.listener
    }

    /// False if the listener has enough.
    fn log(&mut self, log: &LogReader, committee: &Committee) -> Result<bool, ReplayError> {
        let epoch = committee.epoch();
        let mut batch = Vec::with_capacity(BATCH);
        for record in log.replay()? {
            let (key, bytes) = record?;
            let event = UnverifiedEvent::decode(bytes).map_err(|e| ReplayError::BadEvent {
                epoch: epoch.0,
                round: Round(key.round),
                why: e.to_string(),
            })?;
            batch.push(event);
            if batch.len() == BATCH {
                self.events(std::mem::take(&mut batch), committee)?;
                if !self.listener.goes_on(&self.done) {
                    return Ok(false);
                }
            }
        }
        self.events(batch, committee)?;
        Ok(self.listener.goes_on(&self.done))
    }

    fn events(
        &mut self,
        events: Vec<UnverifiedEvent>,
        committee: &Committee,
    ) -> Result<(), ReplayError> {
        let rounds: Vec<Round> = events.iter().map(|e| e.reference().round).collect();
        let verdicts = verify_events(events, &self.chain_id, committee);
        for (verdict, round) in verdicts.into_iter().zip(rounds) {
            let event = verdict.map_err(|e| ReplayError::BadEvent {
                epoch: committee.epoch().0,
                round,
                why: e.to_string(),
            })?;
            self.done.events += 1;
            self.recovery.replay(event);
            self.outputs()?;
        }
        Ok(())
    }

    /// The log alone may lack the votes that end its epoch: then their certificate was kept beside it.
    fn kept_end(&mut self, end: EpochEnd) -> Result<(), ReplayError> {
        let epoch = end.epoch().0;
        let verified = end.verify(&self.chain_id, self.recovery.committee());
        verified.map_err(|e| ReplayError::BadEvent {
            epoch,
            round: Round(0),
            why: format!("the end of the epoch: {e}"),
        })?;
        self.certified(&end.certificate)?;
        self.recovery.ended(end);
        self.outputs()
    }

    fn outputs(&mut self) -> Result<(), ReplayError> {
        while let Some(output) = self.recovery.poll_output() {
            match output {
                Output::Commit(commit) => self.commit(&commit)?,
                Output::Certificate(certificate) => self.certified(&certificate)?,
                Output::EpochEnded(end) => {
                    self.done.epoch = end.next.epoch().0;
                    self.listener.certified(&end.certificate);
                    self.end = Some(end);
                }
                Output::Halt(HaltReason::Diverged {
                    certificate,
                    state_root,
                    outcomes_root,
                    ..
                }) => {
                    let ours = (state_root, outcomes_root);
                    return Err(diverged(ours, &certificate.checkpoint));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), ReplayError> {
        let with_payload = commit.events.iter().filter(|e| e.transaction_count() > 0);
        let wires: Vec<Bytes> = with_payload.flat_map(|e| e.transactions()).collect();
        let chain_id = self.ledger.chain_id();
        let transactions = CheckedTransaction::check_batch(&chain_id, &wires);
        let previous = self.ledger.outcomes_root();
        let output = self.ledger.execute(&CommitInput {
            index: commit.index.0,
            digest: commit.digest.0,
            time_ms: commit.time_ms,
            active_members: &active_members(&commit.events),
            transactions: &transactions,
            epoch: commit.epoch.0,
            is_checkpoint: commit.is_checkpoint,
        });
        self.done.transactions += transactions.len() as u64;
        self.done.commit = commit.index.0;
        let next = output.next_epoch.as_ref().map(committee_of).transpose()?;
        let outcomes_root = Digest(output.outcomes_root);
        self.listener.executed(commit, previous, output);
        if !commit.is_checkpoint {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            epoch: commit.epoch,
            commit: commit.index,
            commit_digest: commit.digest,
            outcomes_root,
            state_root: Digest(self.ledger.state_root()),
            time_ms: commit.time_ms,
            next_committee: next.as_ref().map(Committee::digest),
        };
        self.done.checkpoint = commit.index.0;
        self.done.time_ms = commit.time_ms;
        self.done.state_root = checkpoint.state_root.0;
        self.own.insert(commit.index.0, checkpoint);
        self.recovery.executed(
            checkpoint.commit,
            checkpoint.outcomes_root,
            checkpoint.state_root,
            next,
        );
        Ok(())
    }

    fn certified(&mut self, certificate: &CheckpointCertificate) -> Result<(), ReplayError> {
        self.listener.certified(certificate);
        let theirs = &certificate.checkpoint;
        let Some(ours) = self.own.remove(&theirs.commit.0) else {
            return Ok(());
        };
        if ours != *theirs {
            return Err(diverged((ours.state_root, ours.outcomes_root), theirs));
        }
        self.own.retain(|commit, _| *commit > theirs.commit.0);
        self.done.compared += 1;
        self.done.certified = theirs.commit.0;
        Ok(())
    }
}

fn diverged((state_root, outcomes_root): (Digest, Digest), theirs: &Checkpoint) -> ReplayError {
    ReplayError::Diverged {
        commit: theirs.commit.0,
        ours: format!("state root {state_root}, outcomes root {outcomes_root}"),
        certified: format!(
            "state root {}, outcomes root {}",
            theirs.state_root, theirs.outcomes_root
        ),
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
