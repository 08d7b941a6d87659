//! The form of one record and of a segment's header.
//!
//! ```text
//! segment header: magic 8 | format u32 | chain id 32 | number u64 | crc32c u32            = 56 bytes
//!                 format 1: records follow; format 2: frames of them (`sealed`)
//! record:         magic u32 | length u32 | round u64 | creator u16 | digest 32
//!                 | body crc32c u32 | header crc32c u32 | body                             = 58 bytes + body
//! ```
//! All integers little-endian. The header has its own checksum, so that a flipped length cannot make
//! the rest of a segment look like a torn tail.

use std::path::Path;

use crate::error::NodeError;

/// Newest format of the event log this program reads and writes.
pub const FORMAT: u32 = Form::Sealed as u32;
/// Bytes before the first record of a segment.
pub const SEGMENT_HEADER_BYTES: usize = 56;
/// Bytes before a record's body.
pub const RECORD_HEADER_BYTES: usize = 58;
/// No body is larger; a length above this is damage.
pub const BODY_BYTES_MAX: usize = 16 << 20;

const SEGMENT_MAGIC: &[u8; 8] = b"DAGREVLG";
/// The first bytes of every record.
pub const RECORD_MAGIC: u32 = 0x5645_4752;

/// How a segment holds its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    /// One after the other, as they were written.
    Plain = 1,
    /// In compressed frames: the log of an epoch that has ended.
    Sealed = 2,
}

/// Bytes of an event's name.
pub const KEY_BYTES: usize = 8 + 2 + 32;

/// Names an event in the log. Ordered by round first, so that a range of keys is a range of rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// Round of the event.
    pub round: u64,
    /// Seat of its creator.
    pub creator: u16,
    /// Digest of the event.
    pub digest: [u8; 32],
}

impl EventKey {
    /// As it stands in a record's header, and in an event that refers to this one.
    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut out = [0; KEY_BYTES];
        out[..8].copy_from_slice(&self.round.to_le_bytes());
        out[8..10].copy_from_slice(&self.creator.to_le_bytes());
        out[10..].copy_from_slice(&self.digest);
        out
    }

    /// The opposite of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self {
            round: u64::from_le_bytes(array(&bytes[..8])),
            creator: u16::from_le_bytes(array(&bytes[8..10])),
            digest: array(&bytes[10..]),
        }
    }

    /// The smallest key above this one, if there is any.
    pub fn successor(&self) -> Option<Self> {
        let mut next = *self;
        for byte in next.digest.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(next);
            }
        }
        if let Some(creator) = next.creator.checked_add(1) {
            return Some(Self { creator, ..next });
        }
        Some(Self {
            round: next.round.checked_add(1)?,
            creator: 0,
            digest: next.digest,
        })
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub key: EventKey,
    pub body_bytes: u32,
    pub body_crc: u32,
}

/// What stands where a record header is expected.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderRead {
    Good(RecordHeader),
    /// Only zeros: space that was reserved or lost, never a record.
    Zeros,
    Bad(&'static str),
}

/// The header of segment `number`.
pub fn encode_segment_header(
    chain_id: &[u8; 32],
    number: u64,
    form: Form,
) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut out = [0u8; SEGMENT_HEADER_BYTES];
    out[0..8].copy_from_slice(SEGMENT_MAGIC);
    out[8..12].copy_from_slice(&(form as u32).to_le_bytes());
    out[12..44].copy_from_slice(chain_id);
    out[44..52].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&out[..52]);
    out[52..56].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Whether a segment's first bytes name this form. Nothing else of them is looked at.
pub fn says(header: &[u8], form: Form) -> bool {
    header.starts_with(SEGMENT_MAGIC)
        && header
            .get(8..12)
            .is_some_and(|format| u32::from_le_bytes(array(format)) == form as u32)
}

/// Checks the header of segment `number` of the network `chain_id`.
///
/// # Errors
/// `E_NEWER_FORMAT`, `E_WRONG_NETWORK`, `E_STORE_DAMAGED`.
pub fn check_segment_header(
    path: &Path,
    bytes: &[u8],
    chain_id: &[u8; 32],
    number: u64,
) -> Result<Form, NodeError> {
    let damaged = |detail: &str| NodeError::StoreDamaged {
        path: path.to_owned(),
        offset: 0,
        detail: detail.into(),
    };
    if bytes.len() < SEGMENT_HEADER_BYTES || &bytes[0..8] != SEGMENT_MAGIC {
        return Err(damaged("this is not a segment of an event log"));
    }
    let format = u32::from_le_bytes(array(&bytes[8..12]));
    if crc32c::crc32c(&bytes[..52]) != u32::from_le_bytes(array(&bytes[52..56])) {
        return Err(damaged(
            "the checksum of the segment's header does not match",
        ));
    }
    if format > FORMAT {
        return Err(NodeError::NewerFormat {
            path: path.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    let form = match format {
        1 => Form::Plain,
        2 => Form::Sealed,
        _ => return Err(damaged("there has never been such a format")),
    };
    if &bytes[12..44] != chain_id {
        return Err(NodeError::WrongNetwork {
            dir: path.to_owned(),
            found: hex::encode(&bytes[12..44]),
            expected: hex::encode(chain_id),
        });
    }
    if u64::from_le_bytes(array(&bytes[44..52])) != number {
        return Err(damaged(
            "the segment was renamed: its header has another number",
        ));
    }
    Ok(form)
}

/// Appends the record of `body` to `out`.
pub fn encode_record(out: &mut Vec<u8>, key: &EventKey, body: &[u8]) {
    out.extend_from_slice(&encode_record_header(key, body));
    out.extend_from_slice(body);
}

/// What stands before an event's body in its record.
pub fn encode_record_header(key: &EventKey, body: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
    assert!(
        body.len() <= BODY_BYTES_MAX,
        "an event is bounded far below the log's limit"
    );
    let mut out = [0u8; RECORD_HEADER_BYTES];
    let body_bytes = u32::try_from(body.len()).expect("bounded above");
    out[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    out[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    out[8..50].copy_from_slice(&key.to_bytes());
    out[50..54].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&out[..54]);
    out[54..58].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a record header from exactly [`RECORD_HEADER_BYTES`].
pub fn decode_record_header(bytes: &[u8]) -> HeaderRead {
    assert_eq!(bytes.len(), RECORD_HEADER_BYTES);
    if bytes.iter().all(|b| *b == 0) {
        return HeaderRead::Zeros;
    }
    if crc32c::crc32c(&bytes[..54]) != u32::from_le_bytes(array(&bytes[54..58])) {
        return HeaderRead::Bad("the checksum of a record's header does not match");
    }
    if u32::from_le_bytes(array(&bytes[0..4])) != RECORD_MAGIC {
        return HeaderRead::Bad("no record starts where one must");
    }
    let body_bytes = u32::from_le_bytes(array(&bytes[4..8]));
    if body_bytes as usize > BODY_BYTES_MAX {
        return HeaderRead::Bad("a record is longer than any event");
    }
    HeaderRead::Good(RecordHeader {
        key: EventKey::from_bytes(&array(&bytes[8..50])),
        body_bytes,
        body_crc: u32::from_le_bytes(array(&bytes[50..54])),
    })
}

/// The record that starts at `at`, if there is one and it is whole.
pub fn record_at(bytes: &[u8], at: usize) -> Option<(EventKey, &[u8])> {
    let header = bytes.get(at..at.checked_add(RECORD_HEADER_BYTES)?)?;
    if !header.starts_with(&RECORD_MAGIC.to_le_bytes()) {
        return None;
    }
    let HeaderRead::Good(header) = decode_record_header(header) else {
        return None;
    };
    let start = at + RECORD_HEADER_BYTES;
    let body = bytes.get(start..start + header.body_bytes as usize)?;
    (crc32c::crc32c(body) == header.body_crc).then_some((header.key, body))
}

/// The first `N` bytes of a slice that has them.
pub fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("callers slice to the length")
}
