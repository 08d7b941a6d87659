//! A frame: some of a segment's records, one after the other, made small. It is read without any other frame.
//!
//! ```text
//! frame:  magic u32 | packed bytes u32 | bytes of the records u32 | lowest round u64 | highest round u64
//!         | packed crc32c u32 | header crc32c u32 | packed                                  = 36 bytes + packed
//! packed: zstd of: for each record
//!         body length u32 | holes u16 | for each hole (bytes since the hole before u32, number u32) | body without its holes
//! ```
//! Most of an event at rest is names of other events, which no compression shortens: they are digests. But an event's name
//! follows from its body, so a record's header is left out; and where a body names an earlier event of its frame, which are its
//! holes, that event's number in the frame says enough. A body that is no event of the record's name has [`NAMED`] for the number
//! of its holes, and the name before it.
//!
//! What must not live here: files.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use shadowgraph::{EventRef, VerifiedEvent};

use super::record::{
    BODY_BYTES_MAX, EventKey, KEY_BYTES, RECORD_HEADER_BYTES, array, encode_record, record_at,
};

/// Bytes before a frame's packed ones.
pub const FRAME_HEADER_BYTES: usize = 36;
/// A frame is closed once its records have as many bytes.
pub const FRAME_BYTES: usize = 1 << 20;
/// No frame's records have more bytes.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + RECORD_HEADER_BYTES + BODY_BYTES_MAX;
/// The first bytes of every frame.
const FRAME_MAGIC: [u8; 4] = *b"DGFR";
/// In the place of the number of holes: the record's name follows.
const NAMED: u16 = u16::MAX;
/// Higher levels gain something only where many members cite in many ways (docs/performance.md).
const ZSTD_LEVEL: i32 = 3;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub packed_bytes: u32,
    /// Bytes of the records as they were.
    pub bytes: u32,
    pub rounds: (u64, u64),
    pub packed_crc: u32,
}

impl FrameHeader {
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&FRAME_MAGIC);
        out[4..8].copy_from_slice(&self.packed_bytes.to_le_bytes());
        out[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        out[12..20].copy_from_slice(&self.rounds.0.to_le_bytes());
        out[20..28].copy_from_slice(&self.rounds.1.to_le_bytes());
        out[28..32].copy_from_slice(&self.packed_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if there is one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if !bytes.starts_with(&FRAME_MAGIC)
            || crc32c::crc32c(&bytes[..32]) != u32::from_le_bytes(array(&bytes[32..]))
        {
            return None;
        }
        let header = Self {
            packed_bytes: u32::from_le_bytes(array(&bytes[4..8])),
            bytes: u32::from_le_bytes(array(&bytes[8..12])),
            rounds: (
                u64::from_le_bytes(array(&bytes[12..20])),
                u64::from_le_bytes(array(&bytes[20..28])),
            ),
            packed_crc: u32::from_le_bytes(array(&bytes[28..32])),
        };
        (header.bytes as usize <= FRAME_BYTES_MAX).then_some(header)
    }
}

/// Makes a frame of whole records; `None` if it would not be read back as exactly these. `tips` are the events that no later
/// one refers to: these are added, and those that they refer to taken out.
pub fn pack(records: &[u8], tips: &mut BTreeSet<EventKey>) -> Option<(FrameHeader, Vec<u8>)> {
    let mut content = Vec::with_capacity(records.len());
    let mut numbers: HashMap<EventKey, u32> = HashMap::new();
    let (mut low, mut high) = (u64::MAX, 0);
    let mut at = 0;
    for number in 0.. {
        if at == records.len() {
            break;
        }
        let (key, body) = record_at(records, at)?;
        let event = event(&key, body);
        pack_record(&mut content, &numbers, key, body, event.as_ref());
        for parent in event.iter().flat_map(VerifiedEvent::parents) {
            tips.remove(&key_of(parent));
        }
        tips.insert(key);
        numbers.entry(key).or_insert(number);
        (low, high) = (low.min(key.round), high.max(key.round));
        at += RECORD_HEADER_BYTES + body.len();
    }
    let packed = zstd::bulk::compress(&content, ZSTD_LEVEL).ok()?;
    let header = FrameHeader {
        packed_bytes: u32::try_from(packed.len()).ok()?,
        bytes: u32::try_from(records.len()).ok()?,
        rounds: (low, high),
        packed_crc: crc32c::crc32c(&packed),
    };
    let same = unpack(&header, &packed).is_ok_and(|unpacked| unpacked == records);
    same.then_some((header, packed))
}

/// The records of a frame, as they were.
///
/// # Errors
/// Why it is not what [`pack`] made.
pub fn unpack(header: &FrameHeader, packed: &[u8]) -> Result<Vec<u8>, &'static str> {
    if crc32c::crc32c(packed) != header.packed_crc {
        return Err("the checksum of a frame does not match: a bit has flipped");
    }
    // A record's content is shorter than the record: whatever would grow beyond that ends there.
    let content = zstd::bulk::decompress(packed, header.bytes as usize);
    let content = content.map_err(|_| "a frame cannot be decompressed")?;
    let mut left = content.as_slice();
    let mut records = Vec::with_capacity(header.bytes as usize);
    let mut names = Vec::new();
    while !left.is_empty() {
        let room = header.bytes as usize - records.len();
        let (key, body) =
            unpack_record(&mut left, &names, room).ok_or("a frame holds what is no record")?;
        names.push(key.to_bytes());
        encode_record(&mut records, &key, &body);
    }
    if records.len() == header.bytes as usize {
        Ok(records)
    } else {
        Err("a frame's records are not as long as it says")
    }
}

/// The event `key`, if the body is that.
fn event(key: &EventKey, body: &[u8]) -> Option<VerifiedEvent> {
    let event = VerifiedEvent::from_own_log(Bytes::copy_from_slice(body)).ok()?;
    (key_of(event.reference()) == *key).then_some(event)
}

/// An event's name in the log.
pub fn key_of(event: &EventRef) -> EventKey {
    EventKey {
        round: event.round.0,
        creator: event.creator.0,
        digest: event.digest.0,
    }
}

fn pack_record(
    content: &mut Vec<u8>,
    numbers: &HashMap<EventKey, u32>,
    key: EventKey,
    body: &[u8],
    event: Option<&VerifiedEvent>,
) {
    let length = u32::try_from(body.len()).expect("an event is bounded");
    content.extend_from_slice(&length.to_le_bytes());
    let Some(event) = event else {
        content.extend_from_slice(&NAMED.to_le_bytes());
        content.extend_from_slice(&key.to_bytes());
        content.extend_from_slice(body);
        return;
    };
    let holes = holes(event, body, numbers);
    let count = u16::try_from(holes.len()).expect("parents are fewer than seats");
    content.extend_from_slice(&count.to_le_bytes());
    let mut end = 0;
    for (at, number) in &holes {
        let gap = u32::try_from(at - end).expect("an event is bounded");
        content.extend_from_slice(&gap.to_le_bytes());
        content.extend_from_slice(&number.to_le_bytes());
        end = at + KEY_BYTES;
    }
    let mut end = 0;
    for (at, _) in holes {
        content.extend_from_slice(&body[end..at]);
        end = at + KEY_BYTES;
    }
    content.extend_from_slice(&body[end..]);
}

/// Where in a body names of earlier events stand, and their numbers. Parents stand in their order, one behind the other, so
/// that a search for each finds it where it begins.
fn holes(
    event: &VerifiedEvent,
    body: &[u8],
    numbers: &HashMap<EventKey, u32>,
) -> Vec<(usize, u32)> {
    let mut holes = Vec::with_capacity(event.parents().len());
    let mut from = 0;
    for parent in event.parents() {
        let key = key_of(parent);
        let bytes = key.to_bytes();
        let found = body[from..].windows(KEY_BYTES).position(|w| w == bytes);
        let Some(found) = found else { break };
        let at = from + found;
        if let Some(number) = numbers.get(&key) {
            holes.push((at, *number));
        }
        from = at + KEY_BYTES;
    }
    holes
}

/// Takes a record from the front of `left`; none that is longer than `room`.
fn unpack_record(
    left: &mut &[u8],
    names: &[[u8; KEY_BYTES]],
    room: usize,
) -> Option<(EventKey, Bytes)> {
    let length = u32::from_le_bytes(take(left)?) as usize;
    if RECORD_HEADER_BYTES + length > room || length > BODY_BYTES_MAX {
        return None;
    }
    let count = u16::from_le_bytes(take(left)?);
    if count == NAMED {
        let key = EventKey::from_bytes(&take(left)?);
        let (body, rest) = left.split_at_checked(length)?;
        *left = rest;
        return Some((key, Bytes::copy_from_slice(body)));
    }
    let (mut holes, rest) = left.split_at_checked(usize::from(count) * 8)?;
    *left = rest;
    let mut body = Vec::with_capacity(length);
    while !holes.is_empty() {
        let gap = u32::from_le_bytes(take(&mut holes)?) as usize;
        let number = u32::from_le_bytes(take(&mut holes)?) as usize;
        let (part, rest) = left.split_at_checked(gap)?;
        *left = rest;
        body.extend_from_slice(part);
        body.extend_from_slice(names.get(number)?);
    }
    let (part, rest) = left.split_at_checked(length.checked_sub(body.len())?)?;
    *left = rest;
    body.extend_from_slice(part);
    let body = Bytes::from(body);
    let event = VerifiedEvent::from_own_log(body.clone()).ok()?;
    Some((key_of(event.reference()), body))
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = left.split_first_chunk()?;
    *left = rest;
    Some(*taken)
}
