//! A start: the logs on disk, epoch after epoch, fed to a replica, and what follows from them to the executor.

use std::sync::Arc;

use shadowgraph::{Config, Epoch, EpochEnd, Output, Recovery, Replica, VerifiedEvent};

use super::turn::halted;
use crate::{
    consensus_keys::ConsensusKeys,
    error::NodeError,
    executor::{Executed, Executor},
    handle::Shared,
    outcomes::Note,
    rules::check_known,
    store::{Epochs, EventLog, LogReader},
};

/// What a replica is made of, apart from its logs.
pub(crate) struct Origin {
    /// The configuration of the first epoch.
    pub genesis: Config,
    /// What this node signs with where it has a seat.
    pub keys: Arc<ConsensusKeys>,
}

/// A replica at the end of its logs.
pub(crate) struct Recovered {
    pub replica: Replica,
    /// The log of the epoch that it is in.
    pub log: EventLog,
    /// Events read.
    pub events: u64,
}

impl Origin {
    /// A recovery that begins with the epoch after `before`.
    fn recovery(&self, before: Option<&EpochEnd>, now_ms: u64) -> Recovery {
        let mut config = self.genesis.clone();
        if let Some(end) = before {
            config.start = end.start();
            config.committee = end.next.clone();
        }
        config.me = self.keys.seat(&config.committee);
        let (signer, others): (Vec<_>, Vec<_>) = self.keys.all().into_iter().partition(|key| {
            config.me.is_some() && config.committee.seat(&key.public()) == config.me
        });
        let mut recovery = Recovery::new(config, signer.into_iter().next(), now_ms);
        for key in others {
            recovery.hold_key(key);
        }
        recovery
    }
}

/// Reads the logs back, from the epoch that the ledger is in to the present one.
///
/// # Errors
/// `E_HISTORY_MISSING` if they do not lead from the one to the other; [`NodeError::LogDamaged`], `E_IO`, `E_DIVERGED`, `E_DUPLICATE_KEY`,
/// `E_NEWER_PROTOCOL`.
pub(crate) fn recover(
    origin: &Origin,
    shared: &Shared,
    epochs: &Epochs,
    executor: &mut Executor,
) -> Result<Recovered, NodeError> {
    let present = match epochs.last_end()? {
        Some(end) => end.next.epoch(),
        None => Epoch(0),
    };
    let reached = shared.ledger_epoch();
    let missing = || NodeError::HistoryMissing {
        from: reached.0,
        to: present.0,
    };
    // A state one epoch ahead was executed, and the certificate had not come yet.
    if reached.0 > present.0 + 1 {
        return Err(missing());
    }
    let first = reached.min(present);
    let before = match first.0.checked_sub(1) {
        Some(before) => epochs.end(Epoch(before))?,
        None => None,
    };
    let mut reading = Reading {
        recovery: origin.recovery(before.as_ref(), shared.clock.now_ms()),
        events: 0,
        end: None,
    };
    let mut epoch = first;
    loop {
        check_known(shared, epoch)?;
        shared.enter_epoch(reading.recovery.committee().clone());
        let kept = epochs.end(epoch)?;
        let read = reading.epoch(epochs, epoch, kept.is_none(), shared, executor);
        let written = read.map_err(|e| e.in_log(epoch.0))?;
        if let (None, Some(end)) = (&reading.end, &kept) {
            // The log alone may lack the votes.
            reading.recovery.ended(end.clone());
            reading.outputs(shared, executor)?;
        }
        match (reading.end.take(), written) {
            (Some(end), _) => {
                let certificate = Box::new(end.certificate.clone());
                shared.outcomes.note(Note::Certificate(certificate));
                if kept.is_none() {
                    epochs.save_end(&end)?;
                }
                epoch = end.next.epoch();
            }
            (None, None) => return Err(missing()),
            (None, Some(log)) => {
                return Ok(Recovered {
                    replica: reading.recovery.finish(shared.clock.now_ms()),
                    log,
                    events: reading.events,
                });
            }
        }
    }
}

/// A recovery in the middle of its logs.
struct Reading {
    recovery: Recovery,
    events: u64,
    /// Set when what was read ends its epoch.
    end: Option<EpochEnd>,
}

impl Reading {
    /// Reads an epoch's log, and opens it for writing if it is to be `written` on.
    fn epoch(
        &mut self,
        epochs: &Epochs,
        epoch: Epoch,
        written: bool,
        shared: &Shared,
        executor: &mut Executor,
    ) -> Result<Option<EventLog>, NodeError> {
        let log = written.then(|| epochs.log(epoch)).transpose()?;
        if let Some(reader) = epochs.reader(epoch)? {
            self.log(&reader, shared, executor)?;
        }
        Ok(log)
    }

    fn log(
        &mut self,
        log: &LogReader,
        shared: &Shared,
        executor: &mut Executor,
    ) -> Result<(), NodeError> {
        for record in log.replay()? {
            let (key, bytes) = record?;
            let event = VerifiedEvent::from_own_log(bytes).map_err(|e| {
                NodeError::Internal(format!(
                    "the event log holds an event of round {} that does not decode: {e}",
                    key.round
                ))
            })?;
            self.events += 1;
            self.recovery.replay(event);
            self.outputs(shared, executor)?;
        }
        Ok(())
    }

    fn outputs(&mut self, shared: &Shared, executor: &mut Executor) -> Result<(), NodeError> {
        while let Some(output) = self.recovery.poll_output() {
            match output {
                Output::Commit(commit) => {
                    if let Some(executed) = executor.commit(&commit, true)? {
                        let Executed {
                            commit,
                            outcomes_root,
                            state_root,
                            next,
                        } = executed;
                        self.recovery
                            .executed(commit, outcomes_root, state_root, next);
                    }
                }
                Output::Certificate(certificate) => executor.certified(certificate)?,
                Output::EpochEnded(end) => self.end = Some(end),
                Output::Halt(reason) => return Err(halted(shared, reason)),
                _ => {}
            }
        }
        Ok(())
    }
}
