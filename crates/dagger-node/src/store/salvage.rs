//! What can still be read of a damaged log, what is lost between it, and writing the log anew with what was brought back.
//!
//! A closed segment's index says what stood where, so that every loss has a name. Without one the segment is searched: a
//! record whose header is whole is known by name too, and where not even that is left the next whole record is looked for.
//! Of a sealed segment whole frames are lost, without names; it is written anew as a plain one.
//!
//! What must not live here: where lost events come from, and whether they may be brought back.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    record::{
        EventKey, Form, HeaderRead, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
        check_segment_header, decode_record_header, encode_record, encode_segment_header,
        record_at,
    },
    sealed::{Remains, remains},
    segment::{Place, SegmentFile, is_unreadable},
};
use crate::{data_dir::write_atomically, error::NodeError};

/// What a disk fails to read is looked at in pieces of this size.
const BLOCK_BYTES: usize = 4096;

/// What stands in a part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A record, as it was written.
    Whole(EventKey),
    /// A record of this event once stood here.
    Lost(EventKey),
    /// Records once stood here, and nothing says which or how many.
    Unknown,
}

/// A part of a segment. The pieces of a log are in its order, which is causal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    segment: usize,
    offset: u64,
    bytes: u64,
    pub content: Content,
}

/// Takes a whole record; `doubtful` if it was found by searching: a lost event's payload may hold something that looks
/// like a record. False if it is none.
pub(crate) type Judge<'a> = dyn FnMut(usize, EventKey, &[u8], bool) -> bool + 'a;

/// A log, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Salvage {
    dir: PathBuf,
    chain_id: [u8; 32],
    segments: Vec<SalvagedSegment>,
    pub pieces: Vec<Piece>,
    /// Events that once stood before the piece of that number, wherever: what sealed segments say of themselves.
    pub tips: Vec<(EventKey, usize)>,
}

#[derive(Debug)]
struct SalvagedSegment {
    file: SegmentFile,
    is_damaged: bool,
}

impl Salvage {
    /// Reads all segments; `judge` sees every whole record with the number of its piece. Changes nothing.
    ///
    /// # Errors
    /// `E_WRONG_NETWORK`, `E_NEWER_FORMAT`, `E_IO`.
    pub fn read(dir: &Path, chain_id: [u8; 32], judge: &mut Judge<'_>) -> Result<Self, NodeError> {
        let numbers = SegmentFile::numbers(dir)?;
        let last = numbers.last().copied().unwrap_or(0);
        let mut salvage = Self {
            dir: dir.to_owned(),
            chain_id,
            segments: Vec::new(),
            pieces: Vec::new(),
            tips: Vec::new(),
        };
        for number in 1..=last {
            let file = SegmentFile::new(dir, number);
            salvage.segment(file, number == last, judge)?;
        }
        Ok(salvage)
    }

    /// Whether every piece is whole.
    pub fn is_sound(&self) -> bool {
        self.segments.iter().all(|s| !s.is_damaged)
    }

    /// Where a piece stands.
    pub fn place(&self, piece: usize) -> (PathBuf, u64) {
        let piece = &self.pieces[piece];
        (self.segments[piece.segment].file.path.clone(), piece.offset)
    }

    fn segment(
        &mut self,
        file: SegmentFile,
        is_last: bool,
        judge: &mut Judge<'_>,
    ) -> Result<(), NodeError> {
        let segment = self.segments.len();
        let first = self.pieces.len();
        let (bytes, sealed) = read_segment(&file.path)?;
        let is_new = is_last && bytes.iter().all(|b| *b == 0);
        let mut is_damaged = false;
        if !is_new {
            match check_segment_header(&file.path, &bytes, &self.chain_id, file.number) {
                Err(NodeError::StoreDamaged { .. }) => is_damaged = true,
                other => drop(other?),
            }
            let places = file.read_index(None).filter(|places| tile(places));
            let mut reading = Reading {
                segment,
                bytes: &bytes,
                pieces: &mut self.pieces,
                judge,
            };
            match (&sealed, places) {
                (Some(sealed), _) => reading.by_frames(&sealed.gaps),
                (None, Some(places)) => reading.by_index(places),
                (None, None) => reading.by_search(is_last),
            }
        }
        let whole = |piece: &Piece| matches!(piece.content, Content::Whole(_));
        is_damaged |= !self.pieces[first..].iter().all(whole);
        let behind = self.pieces.len();
        let tips = sealed.into_iter().flat_map(|s| s.tips);
        self.tips.extend(tips.map(|tip| (tip, behind)));
        self.segments.push(SalvagedSegment { file, is_damaged });
        Ok(())
    }

    /// Writes every damaged segment anew: whole records as they are, and for each piece that is not whole the events in
    /// `found` under its number, in that order. Each segment is replaced by a rename. Returns how many were.
    ///
    /// # Errors
    /// `E_DISK_FULL`, `E_IO`, `E_STORE_DAMAGED` if what could be read no longer can: what is not yet replaced stands as it was.
    pub fn rewrite(
        &self,
        found: &BTreeMap<usize, Vec<(EventKey, Bytes)>>,
    ) -> Result<usize, NodeError> {
        let mut rewritten = 0;
        for (number, segment) in self.segments.iter().enumerate() {
            if !segment.is_damaged {
                continue;
            }
            let (bytes, _) = read_segment(&segment.file.path)?;
            let number_of = segment.file.number;
            let mut out = encode_segment_header(&self.chain_id, number_of, Form::Plain).to_vec();
            let mut places = Vec::new();
            for (index, piece) in self.pieces.iter().enumerate() {
                if piece.segment != number {
                    continue;
                }
                let mut add = |out: &mut Vec<u8>, key: EventKey, body: &[u8]| {
                    places.push(Place {
                        key,
                        offset: out.len() as u64,
                        body_bytes: u32::try_from(body.len()).expect("an event is bounded"),
                    });
                    encode_record(out, &key, body);
                };
                if let Content::Whole(key) = piece.content {
                    let (_, body) = record_at(&bytes, to_usize(piece.offset))
                        .filter(|(found, _)| *found == key)
                        .ok_or_else(|| {
                            segment
                                .file
                                .damaged(piece.offset, "a record that could be read no longer can")
                        })?;
                    add(&mut out, key, body);
                } else {
                    for (key, body) in found.get(&index).into_iter().flatten() {
                        add(&mut out, *key, body);
                    }
                }
            }
            // Without its index a segment is scanned: no index may outlive what it describes.
            match fs::remove_file(segment.file.index_path()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NodeError::io("remove", &segment.file.index_path(), e));
                }
                _ => {}
            }
            write_atomically(&segment.file.path, &out)?;
            if number + 1 < self.segments.len() {
                places.sort_unstable_by_key(|p| p.key);
                segment.file.write_index(&places, out.len() as u64, true)?;
            }
            rewritten += 1;
        }
        let synced = fs::File::open(&self.dir).and_then(|d| d.sync_all());
        synced.map_err(|e| NodeError::io("sync", &self.dir, e))?;
        Ok(rewritten)
    }
}

/// One segment in memory.
struct Reading<'a, 'b> {
    segment: usize,
    bytes: &'a [u8],
    pieces: &'a mut Vec<Piece>,
    judge: &'a mut Judge<'b>,
}

impl Reading<'_, '_> {
    fn push(&mut self, offset: usize, bytes: usize, content: Content) {
        self.pieces.push(Piece {
            segment: self.segment,
            offset: offset as u64,
            bytes: bytes as u64,
            content,
        });
    }

    fn by_index(&mut self, mut places: Vec<Place>) {
        places.sort_unstable_by_key(|p| p.offset);
        for place in places {
            let offset = to_usize(place.offset);
            let length = RECORD_HEADER_BYTES + place.body_bytes as usize;
            let number = self.pieces.len();
            let whole = record_at(self.bytes, offset).is_some_and(|(key, body)| {
                key == place.key
                    && body.len() == place.body_bytes as usize
                    && (self.judge)(number, key, body, false)
            });
            let content = if whole {
                Content::Whole(place.key)
            } else {
                Content::Lost(place.key)
            };
            self.push(offset, length, content);
        }
    }

    /// The records of a sealed segment's frames; at each of `gaps` others stood once.
    fn by_frames(&mut self, gaps: &[usize]) {
        let mut gaps = gaps.iter().peekable();
        let mut at = SEGMENT_HEADER_BYTES;
        loop {
            if gaps.next_if(|gap| **gap <= at).is_some() {
                self.push(at, 0, Content::Unknown);
                continue;
            }
            let Some((key, body)) = record_at(self.bytes, at) else {
                return;
            };
            let number = self.pieces.len();
            let length = RECORD_HEADER_BYTES + body.len();
            let content = if (self.judge)(number, key, body, false) {
                Content::Whole(key)
            } else {
                Content::Lost(key)
            };
            self.push(at, length, content);
            at += length;
        }
    }

    fn by_search(&mut self, is_last: bool) {
        let (mut at, mut doubtful) = (SEGMENT_HEADER_BYTES, false);
        while at < self.bytes.len() {
            let number = self.pieces.len();
            if let Some((key, body)) = record_at(self.bytes, at)
                && (self.judge)(number, key, body, doubtful)
            {
                let length = RECORD_HEADER_BYTES + body.len();
                self.push(at, length, Content::Whole(key));
                at += length;
                continue;
            }
            // As at an ordinary start: what was being written when the power went was never counted on.
            if is_last && self.is_torn(at) {
                return;
            }
            let lost = match self.header(at) {
                Some(HeaderRead::Good(h)) if !doubtful => {
                    let length = RECORD_HEADER_BYTES + h.body_bytes as usize;
                    (at + length <= self.bytes.len()).then_some((h.key, length))
                }
                _ => None,
            };
            if let Some((key, length)) = lost {
                self.push(at, length, Content::Lost(key));
                at += length;
                continue;
            }
            doubtful = true;
            let next = (at + 1..self.bytes.len()).find(|next| {
                record_at(self.bytes, *next)
                    .is_some_and(|(key, body)| (self.judge)(number + 1, key, body, true))
            });
            let end = next.unwrap_or(self.bytes.len());
            self.push(at, end - at, Content::Unknown);
            if let Some((key, body)) = next.and_then(|next| record_at(self.bytes, next)) {
                let length = RECORD_HEADER_BYTES + body.len();
                self.push(end, length, Content::Whole(key));
                at = end + length;
            } else {
                at = end;
            }
        }
        // A segment that is gone, or that ends before its first record.
        if self.bytes.len() <= SEGMENT_HEADER_BYTES && !is_last {
            self.push(SEGMENT_HEADER_BYTES, 0, Content::Unknown);
        }
    }

    fn header(&self, at: usize) -> Option<HeaderRead> {
        let bytes = self.bytes.get(at..at + RECORD_HEADER_BYTES)?;
        Some(decode_record_header(bytes))
    }

    fn is_torn(&self, at: usize) -> bool {
        let left = &self.bytes[at..];
        let zeros_from = |from: usize| left[from..].iter().all(|b| *b == 0);
        match self.header(at) {
            None => true,
            Some(HeaderRead::Zeros | HeaderRead::Bad(_)) => zeros_from(RECORD_HEADER_BYTES),
            Some(HeaderRead::Good(h)) => {
                let end = RECORD_HEADER_BYTES + h.body_bytes as usize;
                left.len() < end || (left[..end].ends_with(&[0; 16]) && zeros_from(end))
            }
        }
    }
}

/// Whether the records of an index follow one another from the first on.
fn tile(places: &[Place]) -> bool {
    let mut ranges: Vec<(u64, u64)> = places
        .iter()
        .map(|p| {
            (
                p.offset,
                RECORD_HEADER_BYTES as u64 + u64::from(p.body_bytes),
            )
        })
        .collect();
    ranges.sort_unstable();
    let mut end = SEGMENT_HEADER_BYTES as u64;
    ranges.into_iter().all(|(offset, bytes)| {
        let follows = offset == end;
        end = offset.saturating_add(bytes);
        follows
    })
}

/// The bytes of a segment; those of a sealed one as [`remains`] gives them, with the rest of that.
fn read_segment(path: &Path) -> Result<(Vec<u8>, Option<Remains>), NodeError> {
    let bytes = read_all(path)?;
    Ok(match remains(&bytes) {
        Some(mut remains) => (std::mem::take(&mut remains.records), Some(remains)),
        None => (bytes, None),
    })
}

/// The bytes of a file, zeros where the disk cannot read them; none if there is no such file.
fn read_all(path: &Path) -> Result<Vec<u8>, NodeError> {
    let fail = |e| NodeError::io("read", path, e);
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes) {
        Ok(_) => return Ok(bytes),
        Err(e) if is_unreadable(&e) => {}
        Err(e) => return Err(fail(e)),
    }
    bytes = vec![0; to_usize(file.metadata().map_err(fail)?.len())];
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        match file.read_exact_at(block, (number * BLOCK_BYTES) as u64) {
            Err(e) if !is_unreadable(&e) => return Err(fail(e)),
            // A failed read may have left anything in the buffer.
            Err(_) => block.fill(0),
            Ok(()) => {}
        }
    }
    Ok(bytes)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a segment fits into memory")
}
