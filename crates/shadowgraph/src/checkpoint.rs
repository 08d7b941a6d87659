//! Checkpoints: the signed statement, its votes, its certificate, and the collection of votes into certificates.
//! When a commit is a checkpoint is the linearizer's business.

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::committee::{Committee, MemberSet};
use crate::ids::{ChainId, CommitIndex, Digest, Epoch, MemberIndex};
use crate::keys::{Domain, Signature, SigningKey};

/// What a quorum signs: the ledger's roots after a commit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Checkpoint {
    /// The epoch of the commit.
    pub epoch: Epoch,
    /// The commit after which the roots hold.
    pub commit: CommitIndex,
    /// That commit's chained digest.
    pub commit_digest: Digest,
    /// The chained root of all outcomes.
    pub outcomes_root: Digest,
    /// The root of the state.
    pub state_root: Digest,
    /// The commit's time.
    pub time_ms: u64,
    /// The digest of the next epoch's committee, if the commit ends its epoch. docs/protocol.md 10.1
    pub next_committee: Option<Digest>,
}

impl Checkpoint {
    /// The exact bytes that a vote signs. docs/protocol.md 9.2
    pub(crate) fn signed_bytes(&self, chain_id: &ChainId) -> Vec<u8> {
        let body = borsh::to_vec(self).expect("a checkpoint encodes");
        Domain::Checkpoint.signed_bytes(&[&chain_id.0, &body])
    }

    /// Signs it as a vote.
    #[must_use]
    pub fn sign(&self, chain_id: &ChainId, signer: &SigningKey) -> CheckpointVote {
        let signature = signer.sign(&self.signed_bytes(chain_id));
        CheckpointVote {
            checkpoint: *self,
            signature,
        }
    }
}

/// A member's signature over a checkpoint; travels inside that member's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointVote {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// The signature of the event's creator.
    pub signature: Signature,
}

/// A checkpoint with signatures of quorum weight: verifiable with the committee alone.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointCertificate {
    /// What is certified.
    pub checkpoint: Checkpoint,
    /// The signers in ascending order of seat.
    pub signatures: Vec<(MemberIndex, Signature)>,
}

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is of another epoch than the committee.
    #[error("the certificate is of epoch {0}, the committee of epoch {1}")]
    WrongEpoch(Epoch, Epoch),
    /// Signers are not in strictly ascending order, or hold no seat.
    #[error("the signers are not distinct seats in ascending order")]
    Signers,
    /// The signers' votes are no quorum.
    #[error("signatures of weight {0}, a quorum is {1}")]
    Weight(u64, u64),
    /// A signature does not verify.
    #[error("the signature of member {0} does not verify")]
    BadSignature(MemberIndex),
}

impl CheckpointCertificate {
    /// Checks that a quorum of `committee` signed the checkpoint. docs/protocol.md 9.4
    ///
    /// # Errors
    /// Another epoch, signers that are not distinct members, too little weight, a bad signature.
    pub fn verify(
        &self,
        chain_id: &ChainId,
        committee: &Committee,
    ) -> Result<(), CertificateError> {
        if self.checkpoint.epoch != committee.epoch() {
            return Err(CertificateError::WrongEpoch(
                self.checkpoint.epoch,
                committee.epoch(),
            ));
        }
        let ascending = self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending
            || self
                .signatures
                .iter()
                .any(|(seat, _)| committee.member(*seat).is_none())
        {
            return Err(CertificateError::Signers);
        }
        let mut signers = MemberSet::default();
        let message = self.checkpoint.signed_bytes(chain_id);
        for (seat, signature) in &self.signatures {
            signers.insert(committee, *seat);
            let key = committee.member(*seat).expect("checked above").key;
            if !key.verify(&message, signature) {
                return Err(CertificateError::BadSignature(*seat));
            }
        }
        if signers.weight() < committee.quorum_weight() {
            return Err(CertificateError::Weight(
                signers.weight(),
                committee.quorum_weight(),
            ));
        }
        Ok(())
    }
}
