//! Proof that a member signed two events of one round. Self-contained: the committee alone verifies it.
//! docs/protocol.md 8.

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::committee::Committee;
use crate::event::{Header, VerifiedEvent, event_digest};
use crate::ids::{ChainId, Digest, MemberIndex, Round};
use crate::keys::{Domain, Signature};

/// A signed event without its payload, which the payload's digest stands for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedHeader {
    /// The wire form of the event up to its payload.
    pub header: Vec<u8>,
    /// The digest of the payload.
    pub payload_digest: Digest,
    /// The creator's signature over the event's digest.
    pub signature: Signature,
}

impl SignedHeader {
    /// The signed part of an event.
    #[must_use]
    pub fn of(event: &VerifiedEvent) -> Self {
        Self {
            header: event.header_bytes().to_vec(),
            payload_digest: *event.payload_digest(),
            signature: *event.signature(),
        }
    }

    /// The digest of the event.
    #[must_use]
    pub fn digest(&self) -> Digest {
        event_digest(&self.header, &self.payload_digest)
    }
}

/// Two different events that one member signed for one round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EquivocationProof {
    /// The event with the lower digest.
    pub first: SignedHeader,
    /// The other.
    pub second: SignedHeader,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// A header does not decode.
    #[error("a header of the proof is malformed")]
    Malformed,
    /// Both halves are one event, or they are not in ascending order of digest.
    #[error("the two events are not distinct and in ascending order of digest")]
    Order,
    /// They differ in chain, epoch, round or creator, or are not of this chain and committee.
    #[error("the two events are not of one slot of this committee")]
    Slot,
    /// A signature does not verify.
    #[error("a signature of the proof does not verify")]
    BadSignature,
}

impl EquivocationProof {
    /// Puts two events of one slot together.
    #[must_use]
    pub fn new(one: &VerifiedEvent, other: &VerifiedEvent) -> Self {
        let (first, second) = if one.digest() < other.digest() {
            (one, other)
        } else {
            (other, one)
        };
        Self {
            first: SignedHeader::of(first),
            second: SignedHeader::of(second),
        }
    }

    /// Checks it; returns who equivocated, and in which round.
    ///
    /// # Errors
    /// Whatever keeps it from proving that a member of `committee` signed two events of one round.
    pub fn verify(
        &self,
        chain_id: &ChainId,
        committee: &Committee,
    ) -> Result<(MemberIndex, Round), ProofError> {
        let first = Header::decode(&self.first.header).map_err(|_| ProofError::Malformed)?;
        let second = Header::decode(&self.second.header).map_err(|_| ProofError::Malformed)?;
        if self.first.digest() >= self.second.digest() {
            return Err(ProofError::Order);
        }
        let slot = |header: &Header| (header.chain_id, header.epoch, header.round, header.creator);
        if slot(&first) != slot(&second)
            || first.chain_id != *chain_id
            || first.epoch != committee.epoch()
        {
            return Err(ProofError::Slot);
        }
        let member = committee.member(first.creator).ok_or(ProofError::Slot)?;
        for half in [&self.first, &self.second] {
            let message = Domain::Event.signed_bytes(&[&half.digest().0]);
            if !member.key.verify(&message, &half.signature) {
                return Err(ProofError::BadSignature);
            }
        }
        Ok((first.creator, first.round))
    }
}

#[cfg(test)]
#[path = "equivocation_tests.rs"]
mod tests;
