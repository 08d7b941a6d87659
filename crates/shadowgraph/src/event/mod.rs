//! The event: a signed vertex of the graph, as a draft, as checked bytes, and as a verified value.
//! The byte format lives in `codec`, the rules that need no graph in `verify`.

mod codec;
mod verify;

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

pub use self::codec::{
    DecodeError, EVENT_BYTES_MAX, EVENT_TRANSACTIONS_MAX, EVENT_VERSION, EVENT_VOTES_MAX,
};
pub use self::verify::{VerifyError, verify_events};

pub(crate) use self::codec::{Header, event_digest};

use self::codec::Layout;
use crate::checkpoint::CheckpointVote;
use crate::ids::{ChainId, Digest, Epoch, MemberIndex, Round};
use crate::keys::{Domain, Signature, SigningKey};

/// Names an event: where it stands and what it is. Orders by round, creator, digest, as commits do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct EventRef {
    /// The event's round.
    pub round: Round,
    /// Who made it.
    pub creator: MemberIndex,
    /// Its digest, which the signature is not part of.
    pub digest: Digest,
}

impl EventRef {
    /// The virtual event of round 0 that a member's first event cites as its own parent. docs/protocol.md 2.6
    #[must_use]
    pub fn genesis(chain_id: &ChainId, epoch: Epoch, creator: MemberIndex) -> Self {
        let digest = Domain::Genesis.digest(&[
            &chain_id.0,
            &epoch.0.to_le_bytes(),
            &creator.0.to_le_bytes(),
        ]);
        Self {
            round: Round(0),
            creator,
            digest,
        }
    }
}

/// An event before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// The network.
    pub chain_id: ChainId,
    /// The epoch of the committee.
    pub epoch: Epoch,
    /// At least 1.
    pub round: Round,
    /// The seat whose key signs.
    pub creator: MemberIndex,
    /// The creator's clock, Unix milliseconds.
    pub timestamp_ms: u64,
    /// In ascending order of creator, one per creator.
    pub parents: Vec<EventRef>,
    /// The creator's votes for checkpoints.
    pub checkpoint_votes: Vec<CheckpointVote>,
    /// Opaque, none of them empty.
    pub transactions: Vec<Bytes>,
}

impl EventDraft {
    /// Encodes and signs. What it makes is well-formed; whether it is valid is for `verify_events`.
    #[must_use]
    pub fn seal(&self, signer: &SigningKey) -> UnverifiedEvent {
        codec::seal(self, signer)
    }
}

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    layout: Layout,
    chain_id: ChainId,
    epoch: Epoch,
    timestamp_ms: u64,
    reference: EventRef,
    parents: Vec<EventRef>,
    checkpoint_votes: Vec<CheckpointVote>,
    payload_digest: Digest,
    signature: Signature,
}

/// An event whose bytes are well-formed, and nothing more.
#[derive(Clone, Debug)]
pub struct UnverifiedEvent(Arc<Inner>);

/// An event whose signatures and whose rules that need no ancestors hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VerifiedEvent(Arc<Inner>);

impl UnverifiedEvent {
    /// Reads the wire form strictly, keeping the one buffer.
    ///
    /// # Errors
    /// Anything but the one canonical form, and any length or count over its bound.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// The name it claims.
    #[must_use]
    pub fn reference(&self) -> &EventRef {
        &self.0.reference
    }

    /// The epoch it claims: which committee verifies it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The exact wire form.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }
}

impl VerifiedEvent {
    /// Reads an event back from this node's own log, whose entries were verified before they were written.
    ///
    /// For nothing else: no signature is checked.
    ///
    /// # Errors
    /// As [`UnverifiedEvent::decode`].
    pub fn from_own_log(bytes: Bytes) -> Result<Self, DecodeError> {
        codec::decode(bytes).map(Self::trusted)
    }

    /// An event that this replica made itself, or that `verify` has checked.
    fn trusted(event: UnverifiedEvent) -> Self {
        Self(event.0)
    }

    /// Signs a draft of this replica's own.
    pub(crate) fn own(draft: &EventDraft, signer: &SigningKey) -> Self {
        Self::trusted(draft.seal(signer))
    }

    /// Its name.
    #[must_use]
    pub fn reference(&self) -> &EventRef {
        &self.0.reference
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0.reference.digest
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// Its round.
    #[must_use]
    pub fn round(&self) -> Round {
        self.0.reference.round
    }

    /// Who made it.
    #[must_use]
    pub fn creator(&self) -> MemberIndex {
        self.0.reference.creator
    }

    /// The creator's clock when it was made, Unix milliseconds.
    #[must_use]
    pub fn timestamp_ms(&self) -> u64 {
        self.0.timestamp_ms
    }

    /// Its parents in ascending order of creator.
    #[must_use]
    pub fn parents(&self) -> &[EventRef] {
        &self.0.parents
    }

    /// The parent by the same creator.
    #[must_use]
    pub fn own_parent(&self) -> &EventRef {
        let own = self
            .parents()
            .binary_search_by_key(&self.creator(), |parent| parent.creator);
        &self.parents()[own.expect("a verified event has an own parent")]
    }

    /// The creator's votes for checkpoints.
    #[must_use]
    pub fn checkpoint_votes(&self) -> &[CheckpointVote] {
        &self.0.checkpoint_votes
    }

    /// How many transactions it carries.
    #[must_use]
    pub fn transaction_count(&self) -> u32 {
        self.0.layout.transactions
    }

    /// The transactions, as slices of the one buffer.
    pub fn transactions(&self) -> impl Iterator<Item = Bytes> + '_ {
        codec::transactions(&self.0.bytes, self.0.layout)
    }

    /// The exact wire form.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The wire form without payload and signature: what an equivocation proof keeps.
    pub(crate) fn header_bytes(&self) -> Bytes {
        self.0.bytes.slice(..self.0.layout.header_end)
    }

    /// The digest that stands for the payload in the event's digest.
    pub(crate) fn payload_digest(&self) -> &Digest {
        &self.0.payload_digest
    }

    /// The creator's signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }
}

impl PartialEq for VerifiedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for VerifiedEvent {}
