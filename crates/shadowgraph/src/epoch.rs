//! Where epochs begin and end: the commit that an epoch's graph starts from, and the proof that an epoch ended there with
//! a certain next committee. docs/protocol.md 10. How a replica gets from one to the next is not decided here.

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::checkpoint::{CertificateError, CheckpointCertificate};
use crate::committee::Committee;
use crate::ids::{ChainId, CommitIndex, Digest, Epoch};

/// The commit that an epoch continues from: the last of the epoch before, or none at all. docs/protocol.md 10.4
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct EpochStart {
    /// Its index; 0 at the genesis. The epoch's first commit has the next one.
    pub commit: CommitIndex,
    /// Its chained digest; zero at the genesis.
    pub commit_digest: Digest,
    /// Its commit time, Unix milliseconds; at the genesis the network's start time.
    pub time_ms: u64,
}

impl EpochStart {
    /// The start of a network at this time.
    #[must_use]
    pub fn genesis(time_ms: u64) -> Self {
        Self {
            time_ms,
            ..Self::default()
        }
    }
}

/// The proof that an epoch ended: a certified checkpoint that names the next committee, and that committee.
/// A chain of these from the genesis committee on proves every committee. docs/protocol.md 10.7
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochEnd {
    /// The epoch's last commit, signed by a quorum of the epoch's members.
    pub certificate: CheckpointCertificate,
    /// Who votes from here on.
    pub next: Committee,
}

/// Why an [`EpochEnd`] proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EpochEndError {
    /// The certificate itself.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certified commit did not end its epoch.
    #[error("the certified commit does not end epoch {0}")]
    NotAnEnd(Epoch),
    /// The committee is not the one whose digest was certified.
    #[error("the next committee is not the one that was certified")]
    OtherCommittee,
    /// The committee is not of the following epoch.
    #[error("the next committee is of epoch {0}, which does not follow epoch {1}")]
    EpochGap(Epoch, Epoch),
}

impl EpochEnd {
    /// The epoch that ended.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.certificate.checkpoint.epoch
    }

    /// Where the next epoch starts.
    #[must_use]
    pub fn start(&self) -> EpochStart {
        let checkpoint = &self.certificate.checkpoint;
        EpochStart {
            commit: checkpoint.commit,
            commit_digest: checkpoint.commit_digest,
            time_ms: checkpoint.time_ms,
        }
    }

    /// Checks that a quorum of `committee`, the epoch's own, ended it with this next committee.
    ///
    /// # Errors
    /// Whatever keeps it from proving that.
    pub fn verify(&self, chain_id: &ChainId, committee: &Committee) -> Result<(), EpochEndError> {
        let epoch = self.epoch();
        if self.next.epoch() != epoch.next() {
            return Err(EpochEndError::EpochGap(self.next.epoch(), epoch));
        }
        match self.certificate.checkpoint.next_committee {
            None => return Err(EpochEndError::NotAnEnd(epoch)),
            Some(digest) if digest != self.next.digest() => {
                return Err(EpochEndError::OtherCommittee);
            }
            Some(_) => {}
        }
        Ok(self.certificate.verify(chain_id, committee)?)
    }
}

#[cfg(test)]
#[path = "epoch_tests.rs"]
mod tests;
