//! The bytes of an event: one canonical form, read without copying the payload, every length checked before use.
//! docs/protocol.md 2.1 to 2.4. Whether an event is valid is not decided here.

use std::sync::Arc;

use borsh::BorshDeserialize;
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{EventDraft, EventRef, Inner, UnverifiedEvent};
use crate::checkpoint::CheckpointVote;
use crate::committee::COMMITTEE_MEMBERS_MAX;
use crate::ids::{ChainId, Digest, Epoch, MemberIndex, Round};
use crate::keys::{Domain, Signature, SigningKey};

/// The version of the format below.
pub const EVENT_VERSION: u8 = 2;
/// The longest event, in bytes.
pub const EVENT_BYTES_MAX: usize = 4 << 20;
/// The most transactions in one event.
pub const EVENT_TRANSACTIONS_MAX: u32 = 1 << 17;
/// The most checkpoint votes in one event.
pub const EVENT_VOTES_MAX: u32 = 16;

const SIGNATURE_BYTES: usize = 64;
const FIXED_HEADER_BYTES: usize = 1 + 32 + 8 + 8 + 2 + 8;
const PARENT_BYTES: usize = 8 + 2 + 32;
/// The most bytes of a vote; one that names no next committee is 32 bytes shorter.
const VOTE_BYTES_MAX: usize = VOTE_TAG_AT + (1 + 32) + 64;
/// Where a vote says whether there is one.
const VOTE_TAG_AT: usize = 8 + 8 + 32 * 3 + 8;

/// Why bytes are not an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than [`EVENT_BYTES_MAX`].
    #[error("an event of {0} bytes, at most {EVENT_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The bytes end before the format does.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes follow the end of the event.
    #[error("{0} bytes follow the event")]
    TrailingBytes(usize),
    /// Another format.
    #[error("event format version {0} is not known")]
    UnknownVersion(u8),
    /// More parents, votes or transactions than allowed.
    #[error("{count} {what}, at most {max} are allowed")]
    OverCount {
        /// What is counted.
        what: &'static str,
        /// The number claimed.
        count: u32,
        /// The bound.
        max: u32,
    },
    /// Parents out of order or two of one creator.
    #[error("the parents are not in strictly ascending order of creator")]
    ParentOrder,
    /// A vote that says neither that there is a next committee nor that there is none.
    #[error("a checkpoint vote is malformed")]
    Vote,
    /// Votes out of order or two for one commit.
    #[error("the checkpoint votes are not in strictly ascending order of commit")]
    VoteOrder,
    /// A transaction without bytes.
    #[error("an empty transaction")]
    EmptyTransaction,
}

/// Where the parts of the wire form lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) header_end: usize,
    payload_end: usize,
    pub(super) transactions: u32,
}

pub(super) fn seal(draft: &EventDraft, signer: &SigningKey) -> UnverifiedEvent {
    let payload: usize = draft.transactions.iter().map(|bytes| 4 + bytes.len()).sum();
    let fixed = FIXED_HEADER_BYTES + 4 * 3 + SIGNATURE_BYTES;
    let mut out = BytesMut::with_capacity(
        fixed
            + draft.parents.len() * PARENT_BYTES
            + draft.checkpoint_votes.len() * VOTE_BYTES_MAX
            + payload,
    );
    out.put_u8(EVENT_VERSION);
    out.put_slice(&draft.chain_id.0);
    out.put_u64_le(draft.epoch.0);
    out.put_u64_le(draft.round.0);
    out.put_u16_le(draft.creator.0);
    out.put_u64_le(draft.timestamp_ms);
    out.put_u32_le(count(draft.parents.len()));
    for parent in &draft.parents {
        out.put_u64_le(parent.round.0);
        out.put_u16_le(parent.creator.0);
        out.put_slice(&parent.digest.0);
    }
    out.put_u32_le(count(draft.checkpoint_votes.len()));
    for vote in &draft.checkpoint_votes {
        out.put_slice(&borsh::to_vec(vote).expect("a vote encodes"));
    }
    let header_end = out.len();
    out.put_u32_le(count(draft.transactions.len()));
    for transaction in &draft.transactions {
        out.put_u32_le(count(transaction.len()));
        out.put_slice(transaction);
    }
    let payload_end = out.len();
    let payload_digest = payload_digest(&out[header_end..]);
    let digest = event_digest(&out[..header_end], &payload_digest);
    let signature = signer.sign(&Domain::Event.signed_bytes(&[&digest.0]));
    out.put_slice(&signature.0);
    UnverifiedEvent(Arc::new(Inner {
        bytes: out.freeze(),
        layout: Layout {
            header_end,
            payload_end,
            transactions: count(draft.transactions.len()),
        },
        chain_id: draft.chain_id,
        epoch: draft.epoch,
        timestamp_ms: draft.timestamp_ms,
        reference: EventRef {
            round: draft.round,
            creator: draft.creator,
            digest,
        },
        parents: draft.parents.clone(),
        checkpoint_votes: draft.checkpoint_votes.clone(),
        payload_digest,
        signature,
    }))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a draft is smaller than 4 GiB")
}

/// The payload enters the event's digest by its own digest, so that a header proves what was signed
/// without the payload. docs/protocol.md 2.3
fn payload_digest(payload: &[u8]) -> Digest {
    Domain::Payload.digest(&[payload])
}

/// docs/protocol.md 2.3
pub(crate) fn event_digest(header: &[u8], payload_digest: &Digest) -> Digest {
    Domain::Event.digest(&[header, &payload_digest.0])
}

pub(super) fn decode(bytes: Bytes) -> Result<UnverifiedEvent, DecodeError> {
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let mut reader = Reader {
        bytes: &bytes,
        at: 0,
    };
    let header = Header::read(&mut reader)?;
    let header_end = reader.at;
    let transactions = reader.count("transactions", EVENT_TRANSACTIONS_MAX)?;
    for _ in 0..transactions {
        let length = reader.u32()?;
        if length == 0 {
            return Err(DecodeError::EmptyTransaction);
        }
        reader.take(length as usize)?;
    }
    let payload_end = reader.at;
    let signature = Signature(reader.array()?);
    if reader.at != bytes.len() {
        return Err(DecodeError::TrailingBytes(bytes.len() - reader.at));
    }
    let payload_digest = payload_digest(&bytes[header_end..payload_end]);
    let digest = event_digest(&bytes[..header_end], &payload_digest);
    Ok(UnverifiedEvent(Arc::new(Inner {
        layout: Layout {
            header_end,
            payload_end,
            transactions,
        },
        chain_id: header.chain_id,
        epoch: header.epoch,
        timestamp_ms: header.timestamp_ms,
        reference: EventRef {
            round: header.round,
            creator: header.creator,
            digest,
        },
        parents: header.parents,
        checkpoint_votes: header.checkpoint_votes,
        payload_digest,
        signature,
        bytes,
    })))
}

/// The part of an event that its creator's rivals need to see: everything but payload and signature.
pub(crate) struct Header {
    pub(crate) chain_id: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) round: Round,
    pub(crate) creator: MemberIndex,
    pub(crate) timestamp_ms: u64,
    pub(crate) parents: Vec<EventRef>,
    pub(crate) checkpoint_votes: Vec<CheckpointVote>,
}

impl Header {
    /// Reads a header that stands alone.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let header = Self::read(&mut reader)?;
        match bytes.len() - reader.at {
            0 => Ok(header),
            rest => Err(DecodeError::TrailingBytes(rest)),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [version] = reader.array()?;
        if version != EVENT_VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let chain_id = ChainId(reader.array()?);
        let epoch = Epoch(reader.u64()?);
        let round = Round(reader.u64()?);
        let creator = MemberIndex(reader.u16()?);
        let timestamp_ms = reader.u64()?;
        let parent_count = reader.count("parents", COMMITTEE_MEMBERS_MAX as u32)?;
        reader.ensure(parent_count as usize * PARENT_BYTES)?;
        let mut parents: Vec<EventRef> = Vec::with_capacity(parent_count as usize);
        for _ in 0..parent_count {
            let parent = EventRef {
                round: Round(reader.u64()?),
                creator: MemberIndex(reader.u16()?),
                digest: Digest(reader.array()?),
            };
            if parents
                .last()
                .is_some_and(|last| last.creator >= parent.creator)
            {
                return Err(DecodeError::ParentOrder);
            }
            parents.push(parent);
        }
        let vote_count = reader.count("checkpoint votes", EVENT_VOTES_MAX)?;
        let mut checkpoint_votes: Vec<CheckpointVote> = Vec::with_capacity(vote_count as usize);
        for _ in 0..vote_count {
            let vote = reader.vote()?;
            if checkpoint_votes
                .last()
                .is_some_and(|last| last.checkpoint.commit >= vote.checkpoint.commit)
            {
                return Err(DecodeError::VoteOrder);
            }
            checkpoint_votes.push(vote);
        }
        Ok(Self {
            chain_id,
            epoch,
            round,
            creator,
            timestamp_ms,
            parents,
            checkpoint_votes,
        })
    }
}

/// Walks the payload again; its lengths were checked when it was decoded.
pub(super) fn transactions(bytes: &Bytes, layout: Layout) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = layout.header_end + 4;
    std::iter::from_fn(move || {
        if at >= layout.payload_end {
            return None;
        }
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        let transaction = bytes.slice(at + 4..at + 4 + length);
        at += 4 + length;
        Some(transaction)
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn ensure(&self, length: usize) -> Result<(), DecodeError> {
        if self.bytes.len() - self.at < length {
            Err(DecodeError::Truncated)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        self.ensure(length)?;
        let part = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("taken to measure"))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn vote(&mut self) -> Result<CheckpointVote, DecodeError> {
        self.ensure(VOTE_TAG_AT + 1)?;
        let length = match self.bytes[self.at + VOTE_TAG_AT] {
            0 => VOTE_BYTES_MAX - 32,
            1 => VOTE_BYTES_MAX,
            _ => return Err(DecodeError::Vote),
        };
        let vote = CheckpointVote::try_from_slice(self.take(length)?);
        Ok(vote.expect("every field but the tag takes any value"))
    }

    fn count(&mut self, what: &'static str, max: u32) -> Result<u32, DecodeError> {
        let count = self.u32()?;
        if count > max {
            Err(DecodeError::OverCount { what, count, max })
        } else {
            Ok(count)
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
