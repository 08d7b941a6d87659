//! What was fetched, verified, and put on disk so that a crash leaves either the old state or the new one.

use std::{
    fs,
    io::{BufReader, Seek, SeekFrom},
    path::PathBuf,
};

use dagger_ledger::Ledger;
use shadowgraph::{Committee, EpochEnd};

use super::wire::Manifest;
use crate::{
    error::NodeError,
    store::{Epochs, SnapshotHead, Snapshots},
};

/// A ledger at an epoch's start, and the proof that it is the network's.
pub(crate) struct Catchup {
    /// How the epochs from this node's own on ended; the last one ended where the ledger stands.
    pub(super) ends: Vec<EpochEnd>,
    pub(super) ledger: Ledger,
    pub(super) transactions: u64,
    /// The file that its snapshot was fetched into.
    pub(super) fetched: PathBuf,
}

impl Catchup {
    /// Checks a fetched snapshot against the end of the epoch before it.
    ///
    /// # Errors
    /// What does not fit: whoever served it lied or is broken.
    pub(super) fn verify(
        ends: Vec<EpochEnd>,
        manifest: &Manifest,
        transactions: u64,
        fetched: PathBuf,
    ) -> Result<Self, String> {
        let end = ends.last().ok_or("no epoch has ended")?;
        let certified = &end.certificate.checkpoint;
        let mut file = fs::File::open(&fetched).map_err(|e| e.to_string())?;
        file.seek(SeekFrom::Start(Snapshots::body_offset()))
            .map_err(|e| e.to_string())?;
        let mut body = BufReader::with_capacity(1 << 18, file);
        let mut ledger = Ledger::restore_from(&mut body).map_err(|e| e.to_string())?;
        let fits = |what: &str, same: bool| {
            if same {
                Ok(())
            } else {
                Err(format!("its {what} is not the certified one"))
            }
        };
        fits("state root", ledger.state_root() == certified.state_root.0)?;
        fits(
            "outcomes root",
            ledger.outcomes_root() == certified.outcomes_root.0,
        )?;
        fits("commit", ledger.commit_index() == Some(certified.commit.0))?;
        fits(
            "commit digest",
            ledger.commit_digest() == certified.commit_digest.0,
        )?;
        fits("time", ledger.time_ms() == certified.time_ms)?;
        fits(
            "epoch",
            ledger.epoch().number == end.next.epoch().0 && manifest.epoch == ledger.epoch().number,
        )?;
        fits("committee", same_seats(&ledger, &end.next))?;
        Ok(Self {
            ends,
            ledger,
            transactions,
            fetched,
        })
    }

    /// The epoch that starts with it.
    pub fn epoch(&self) -> u64 {
        self.ledger.epoch().number
    }

    /// Puts it on disk; returns the ledger and the number of transactions that it is said to stand for.
    ///
    /// # Errors
    /// `E_DISK_FULL`, `E_IO`: the old state then stands.
    pub fn install(
        self,
        epochs: &Epochs,
        snapshots: &Snapshots,
    ) -> Result<(Ledger, u64), NodeError> {
        let head = SnapshotHead {
            commit: self.ledger.commit_index().unwrap_or(0),
            commit_digest: self.ledger.commit_digest(),
            transactions: self.transactions,
            epoch: self.epoch(),
            starts_epoch: true,
        };
        snapshots.adopt(&head, &self.fetched)?;
        // An unbroken chain counts: with its first link, written last, the new epoch is the present one.
        for end in self.ends.iter().rev() {
            epochs.save_end(end)?;
        }
        Ok((self.ledger, self.transactions))
    }
}

fn same_seats(ledger: &Ledger, committee: &Committee) -> bool {
    let seats = ledger.committee();
    seats.len() == committee.len()
        && seats
            .iter()
            .zip(committee.members())
            .all(|(seat, (_, m))| seat.consensus_key.0 == m.key.0 && seat.weight == m.weight)
}
