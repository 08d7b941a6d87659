//! What replicas say to one another, and its bytes. docs/protocol.md 7.
//! The meaning of a message lives with its handler, not here.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::committee::COMMITTEE_MEMBERS_MAX;
use crate::epoch::EpochEnd;
use crate::event::{EVENT_BYTES_MAX, EventRef};
use crate::ids::{CommitIndex, Epoch, MemberIndex, Round};

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2 * EVENT_BYTES_MAX;
/// The most events in one message.
pub const MESSAGE_EVENTS_MAX: usize = 4096;
/// The most events that one request names.
pub const REQUEST_EVENTS_MAX: usize = 1024;

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A member of this epoch's committee, proven by the transport.
    Member(MemberIndex),
    /// A node without a seat, under a number that the driver gives it.
    Follower(u64),
}

impl Peer {
    /// Whether it has a seat.
    #[must_use]
    pub const fn is_member(self) -> bool {
        matches!(self, Self::Member(_))
    }
}

/// Whom an output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Every other member. Followers have from one peer each, by the driver, whatever enters its graph. docs/protocol.md 7.11
    All,
    /// One peer.
    One(Peer),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Events in their wire form, ancestors first: a member's own new event, or the answer to a request
    /// (which may be empty). The driver decodes and verifies them and hands them on as `Input::Events`.
    Events(Vec<Bytes>),
    /// Asks for events.
    Request(Request),
    /// Says how far the sender is.
    Frontier(Frontier),
    /// Asks sleeping peers for their event of a round.
    Wake(Wake),
    /// Proves that an epoch ended: the answer to a message of that epoch. docs/protocol.md 10.6
    EpochEnd(Box<EpochEnd>),
}

/// Asks for events of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// The epoch that the events are of.
    pub epoch: Epoch,
    /// Which ones.
    pub wanted: SyncRequest,
}

/// Asks for events that the sender lacks. An
/// `After` has exactly one `Message::Events` for an answer, an `Events` at least one.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SyncRequest {
    /// Exactly these, as far as the peer holds them.
    Events(Vec<EventRef>),
    /// Those of each creator above a round, the lowest rounds first, as many as fit.
    After(After),
}

/// The events of rounds `from..=to` of each creator above `after[creator]`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct After {
    /// The lowest round wanted.
    pub from: Round,
    /// The highest round wanted.
    pub to: Round,
    /// Per seat, the round up to which the sender holds that creator's events.
    pub after: Vec<Round>,
}

impl After {
    /// Whether an event of this round and creator is asked for.
    #[must_use]
    pub fn wants(&self, round: Round, creator: MemberIndex) -> bool {
        self.from <= round
            && round <= self.to
            && self
                .after
                .get(creator.index())
                .is_some_and(|after| round > *after)
    }
}

/// How far a replica is. Exchanged with one peer at a time, now and then.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Frontier {
    /// The epoch that the rounds are of.
    pub epoch: Epoch,
    /// Whether it asks or answers.
    pub exchange: Exchange,
    /// Events of this round and below are no longer in memory.
    pub floor: Round,
    /// The last commit.
    pub commit: CommitIndex,
    /// The sender's clock, Unix milliseconds. docs/protocol.md 2.11
    pub time_ms: u64,
    /// Per seat, the highest round of that creator's events.
    pub highest: Vec<Round>,
}

/// The two halves of a frontier exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Exchange {
    /// The receiver shall answer, repeating the number.
    Ask(u64),
    /// The answer to that number.
    Answer(u64),
}

/// Asks peers that rest to issue their events up to a round at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Wake {
    /// The epoch that the round is of.
    pub epoch: Epoch,
    /// The round whose events the sender needs.
    pub round: Round,
}

/// What the driver looks up in its event log on behalf of a peer, because the graph no longer holds it.
/// It answers the peer with one `Message::Events` of at most `bytes_max`, lowest rounds first, even if empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// The epoch whose log is asked for: the current one, or one that ended.
    pub epoch: Epoch,
    /// Which events.
    pub wanted: SyncRequest,
    /// The most bytes of events to send (one event may always be sent).
    pub bytes_max: usize,
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// No such kind of message.
    #[error("message kind {0} is not known")]
    UnknownKind(u8),
    /// The bytes end before the message does, or go on after it, or a field is not canonical.
    #[error("the message is malformed")]
    Malformed,
    /// More entries than allowed.
    #[error("{count} {what}, at most {max} are allowed")]
    OverCount {
        /// What is counted.
        what: &'static str,
        /// The number claimed.
        count: usize,
        /// The bound.
        max: usize,
    },
}

const KIND_EVENTS: u8 = 0;
const KIND_REQUEST: u8 = 1;
const KIND_FRONTIER: u8 = 2;
const KIND_WAKE: u8 = 3;
const KIND_EPOCH_END: u8 = 4;

impl Message {
    /// The wire form: a kind byte and the borsh form of the body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let small = |kind: u8, body: Result<Vec<u8>, borsh::io::Error>| {
            let body = body.expect("a message encodes");
            let mut out = BytesMut::with_capacity(1 + body.len());
            out.put_u8(kind);
            out.put_slice(&body);
            out.freeze()
        };
        match self {
            Self::Events(events) => encode_events(events),
            Self::Request(request) => small(KIND_REQUEST, borsh::to_vec(request)),
            Self::Frontier(frontier) => small(KIND_FRONTIER, borsh::to_vec(frontier)),
            Self::Wake(wake) => small(KIND_WAKE, borsh::to_vec(wake)),
            Self::EpochEnd(end) => small(KIND_EPOCH_END, borsh::to_vec(end)),
        }
    }

    /// Reads the wire form strictly; events are slices of the one buffer.
    ///
    /// # Errors
    /// Anything but the one canonical form, and any count over its bound, before memory is set aside for it.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong(bytes.len()));
        }
        let Some(kind) = bytes.first().copied() else {
            return Err(MessageError::Malformed);
        };
        let body = bytes.slice(1..);
        match kind {
            KIND_EVENTS => decode_events(&body),
            KIND_REQUEST => decode_request(&body),
            KIND_FRONTIER => {
                let frontier =
                    Frontier::try_from_slice(&body).map_err(|_| MessageError::Malformed)?;
                bound("rounds", frontier.highest.len(), COMMITTEE_MEMBERS_MAX)?;
                Ok(Self::Frontier(frontier))
            }
            KIND_WAKE => Wake::try_from_slice(&body)
                .map(Self::Wake)
                .map_err(|_| MessageError::Malformed),
            KIND_EPOCH_END => {
                let end = EpochEnd::try_from_slice(&body).map_err(|_| MessageError::Malformed)?;
                let signatures = end.certificate.signatures.len();
                bound("signatures", signatures, COMMITTEE_MEMBERS_MAX)?;
                Ok(Self::EpochEnd(Box::new(end)))
            }
            other => Err(MessageError::UnknownKind(other)),
        }
    }
}

fn encode_events(events: &[Bytes]) -> Bytes {
    let length = |length: usize| u32::try_from(length).expect("a message is smaller than 4 GiB");
    let body: usize = events.iter().map(|event| 4 + event.len()).sum();
    let mut out = BytesMut::with_capacity(5 + body);
    out.put_u8(KIND_EVENTS);
    out.put_u32_le(length(events.len()));
    for event in events {
        out.put_u32_le(length(event.len()));
        out.put_slice(event);
    }
    out.freeze()
}

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), MessageError> {
    if count > max {
        Err(MessageError::OverCount { what, count, max })
    } else {
        Ok(())
    }
}

fn decode_events(body: &Bytes) -> Result<Message, MessageError> {
    let mut at = 0;
    let read_u32 = |at: &mut usize| {
        let field = body.get(*at..*at + 4).ok_or(MessageError::Malformed)?;
        *at += 4;
        Ok(u32::from_le_bytes(field.try_into().expect("four bytes")) as usize)
    };
    let count = read_u32(&mut at)?;
    bound("events", count, MESSAGE_EVENTS_MAX)?;
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        let length = read_u32(&mut at)?;
        bound("bytes in an event", length, EVENT_BYTES_MAX)?;
        if body.len() - at < length {
            return Err(MessageError::Malformed);
        }
        events.push(body.slice(at..at + length));
        at += length;
    }
    if at == body.len() {
        Ok(Message::Events(events))
    } else {
        Err(MessageError::Malformed)
    }
}

/// Borsh sets memory aside in small steps as elements arrive, so a claimed count alone costs nothing.
fn decode_request(body: &Bytes) -> Result<Message, MessageError> {
    let request = Request::try_from_slice(body).map_err(|_| MessageError::Malformed)?;
    match &request.wanted {
        SyncRequest::Events(events) => bound("events", events.len(), REQUEST_EVENTS_MAX)?,
        SyncRequest::After(after) => bound("rounds", after.after.len(), COMMITTEE_MEMBERS_MAX)?,
    }
    Ok(Message::Request(request))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
