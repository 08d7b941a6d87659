//! The segments of an epoch that has ended, made small: frames of records in the place of the records.
//!
//! ```text
//! segment header of format 2 (56 bytes) | bytes of the segment as it was u64 | crc32c of these u32 | frames | tips
//! tips: names of the events that nothing later in the segment refers to | their number u32 | crc32c of these u32
//! ```
//! Whoever has lost a frame finds the names of what it held in what follows, and where nothing follows, by the tips.
//!
//! A sealed segment has the name that the plain one had, and takes its place by a rename: there is one of them at any time. Offsets
//! of records are those in the plain one, so that whoever has looked one up before reads it after.
//!
//! What must not live here: when a log is sealed; what a frame is made of (`frame`).

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    frame::{FRAME_BYTES, FRAME_HEADER_BYTES, FrameHeader, pack, unpack},
    record::{
        EventKey, Form, KEY_BYTES, SEGMENT_HEADER_BYTES, array, check_segment_header,
        encode_record, encode_segment_header, says,
    },
    segment::{Next, SegmentFile},
};
use crate::error::NodeError;

/// Bytes before the first frame.
pub const SEALED_HEADER_BYTES: usize = SEGMENT_HEADER_BYTES + 8 + 4;
/// The most tips; of more the newest are kept.
const TIPS_MAX: usize = 4096;

/// Where a frame is.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub header: FrameHeader,
    /// Offset of the frame in the file.
    at: u64,
    /// Offset of its first record in the segment as it was.
    pub offset: u64,
}

/// A sealed segment, open.
#[derive(Debug)]
pub struct Sealed {
    segment: SegmentFile,
    file: fs::File,
    pub frames: Vec<Frame>,
    /// Bytes of the segment as it was.
    pub bytes: u64,
}

/// What a sealed segment's first bytes say: how long it was before.
fn decode_header(header: &[u8]) -> Option<u64> {
    let [length, crc] = [56..64, 64..68].map(|range| &header[range]);
    (crc32c::crc32c(length) == u32::from_le_bytes(array(crc)))
        .then(|| u64::from_le_bytes(array(length)))
}

fn encode_header(chain_id: &[u8; 32], number: u64, bytes: u64) -> Vec<u8> {
    let mut out = encode_segment_header(chain_id, number, Form::Sealed).to_vec();
    let length = bytes.to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&crc32c::crc32c(&length).to_le_bytes());
    out
}

fn encode_tips(tips: &BTreeSet<EventKey>) -> Vec<u8> {
    let kept = tips.iter().rev().take(TIPS_MAX);
    let mut out: Vec<u8> = kept.flat_map(|tip| tip.to_bytes()).collect();
    let count = u32::try_from(out.len() / KEY_BYTES).expect("bounded above");
    out.extend_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The tips at the end of `bytes`, and how many bytes they take there.
fn decode_tips(bytes: &[u8]) -> Option<(Vec<EventKey>, usize)> {
    let (before, end) = bytes.split_last_chunk::<8>()?;
    let count = u32::from_le_bytes(array(&end[..4])) as usize;
    if count > TIPS_MAX {
        return None;
    }
    let names = &before[before.len().checked_sub(count * KEY_BYTES)?..];
    let crc = crc32c::crc32c_append(crc32c::crc32c(names), &end[..4]);
    let tips = names.as_chunks().0.iter().map(EventKey::from_bytes);
    (crc == u32::from_le_bytes(array(&end[4..]))).then(|| (tips.collect(), names.len() + 8))
}

impl Sealed {
    /// Finds the frames of a segment whose header says that it is sealed.
    ///
    /// # Errors
    /// As [`check_segment_header`]; `E_STORE_DAMAGED` if the frames are not all there.
    pub fn open(
        segment: &SegmentFile,
        file: fs::File,
        chain_id: &[u8; 32],
    ) -> Result<Self, NodeError> {
        let read = |buffer: &mut [u8], at: u64| {
            file.read_exact_at(buffer, at)
                .map_err(|e| segment.unread(at, e))
        };
        let mut header = [0; SEALED_HEADER_BYTES];
        read(&mut header, 0)?;
        check_segment_header(&segment.path, &header, chain_id, segment.number)?;
        let wrong = |at: u64, what: &str| segment.damaged(at, what);
        let bytes = decode_header(&header)
            .ok_or_else(|| wrong(0, "the checksum of the segment's length does not match"))?;
        let mut frames = Vec::new();
        let (mut at, mut offset) = (SEALED_HEADER_BYTES as u64, SEGMENT_HEADER_BYTES as u64);
        while offset < bytes {
            let mut header = [0; FRAME_HEADER_BYTES];
            read(&mut header, at)?;
            let header = FrameHeader::decode(&header)
                .ok_or_else(|| wrong(at, "no frame starts where one must"))?;
            frames.push(Frame { header, at, offset });
            at += FRAME_HEADER_BYTES as u64 + u64::from(header.packed_bytes);
            offset += u64::from(header.bytes);
        }
        let file_bytes = file.metadata().map_err(|e| segment.unread(0, e))?.len();
        let tips = usize::try_from(file_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        if offset != bytes || tips > TIPS_MAX * KEY_BYTES + 8 {
            return Err(wrong(at, "the frames are not as long as the segment says"));
        }
        let mut end = vec![0; tips];
        read(&mut end, at)?;
        if decode_tips(&end).is_none_or(|(_, bytes)| bytes != tips) {
            return Err(wrong(at, "the frames do not end where the segment does"));
        }
        Ok(Self {
            segment: segment.clone(),
            file,
            frames,
            bytes,
        })
    }

    /// The records of a frame, as they were.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_IO`.
    pub fn records(&self, frame: &Frame) -> Result<Vec<u8>, NodeError> {
        let at = frame.at + FRAME_HEADER_BYTES as u64;
        let mut packed = vec![0; frame.header.packed_bytes as usize];
        self.file
            .read_exact_at(&mut packed, at)
            .map_err(|e| self.segment.unread(at, e))?;
        unpack(&frame.header, &packed).map_err(|why| self.segment.damaged(frame.at, why))
    }

    /// The frame in which the record at `offset` stands.
    pub fn frame_at(&self, offset: u64) -> Option<&Frame> {
        let after = self.frames.partition_point(|f| f.offset <= offset);
        self.frames.get(after.checked_sub(1)?)
    }

    /// All records, one frame after the other.
    pub fn into_reader(self) -> impl Read + Send {
        Reader {
            sealed: self,
            next: 0,
            records: io::Cursor::default(),
        }
    }
}

struct Reader {
    sealed: Sealed,
    next: usize,
    records: io::Cursor<Vec<u8>>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.records.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(frame) = self.sealed.frames.get(self.next) else {
                return Ok(0);
            };
            let records = self.sealed.records(frame).map_err(io::Error::other)?;
            self.records = io::Cursor::new(records);
            self.next += 1;
        }
    }
}

/// What is left of a sealed segment.
pub struct Remains {
    /// The plain segment, without the frames that are lost.
    pub records: Vec<u8>,
    /// Offsets in it at which some are missed.
    pub gaps: Vec<usize>,
    /// See the module; none if they are lost.
    pub tips: Vec<EventKey>,
}

/// Reads what can be read of a sealed segment, whatever has happened to its file; `None` if that is none.
pub fn remains(file: &[u8]) -> Option<Remains> {
    let header = file.get(..SEGMENT_HEADER_BYTES)?;
    let mut is_sealed = says(header, Form::Sealed);
    if !is_sealed && says(header, Form::Plain) {
        return None;
    }
    let (mut records, mut gaps) = (header.to_vec(), Vec::new());
    let tips = decode_tips(file);
    let end = file.len() - tips.as_ref().map_or(0, |(_, bytes)| *bytes);
    let mut at = SEALED_HEADER_BYTES;
    while at < end {
        let left = &file[at..end];
        let frame = FrameHeader::decode(left).and_then(|header| {
            let end = FRAME_HEADER_BYTES + header.packed_bytes as usize;
            Some((header, left.get(FRAME_HEADER_BYTES..end)?))
        });
        let Some((header, packed)) = frame else {
            gaps.push(records.len());
            let next = (1..left.len()).find(|n| FrameHeader::decode(&left[*n..]).is_some());
            at += next.unwrap_or(left.len());
            continue;
        };
        match unpack(&header, packed) {
            Ok(unpacked) => {
                is_sealed = true;
                records.extend_from_slice(&unpacked);
            }
            Err(_) => gaps.push(records.len()),
        }
        at += FRAME_HEADER_BYTES + packed.len();
    }
    let expected = file.get(..SEALED_HEADER_BYTES).and_then(decode_header);
    if gaps.is_empty() && (tips.is_none() || expected != Some(records.len() as u64)) {
        gaps.push(records.len());
    }
    gaps.dedup();
    is_sealed.then(|| Remains {
        records,
        gaps,
        tips: tips.map_or_else(Vec::new, |(tips, _)| tips),
    })
}

/// How sealing a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// It is sealed, and had and has so many bytes.
    Done { before: u64, after: u64 },
    /// It was told to end, and the segment is as it was.
    Left,
}

/// Puts a sealed segment into the place of a plain one that nobody writes any more. `go_on` is asked before each step; wherever
/// it says no, or the process is killed, the segment can be read and can be sealed again.
///
/// # Errors
/// `E_STORE_DAMAGED` if a record is not the one that was written, or one is torn and the segment is not the `last`; `E_DISK_FULL`,
/// `E_IO`. On all of them the segment is as it was.
pub fn seal(
    segment: &SegmentFile,
    chain_id: &[u8; 32],
    last: bool,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Sealing, NodeError> {
    let part = segment.path.with_extension("part");
    let sealed = write_sealed(segment, &part, chain_id, last, go_on);
    if sealed.is_err() {
        // Its space may be what is missing.
        let _ = fs::remove_file(&part);
    }
    sealed
}

fn write_sealed(
    segment: &SegmentFile,
    part: &Path,
    chain_id: &[u8; 32],
    last: bool,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Sealing, NodeError> {
    let fail = |e| NodeError::io("write", part, e);
    let mut out = fs::File::create(part).map_err(fail)?;
    // The length is known at the end.
    out.write_all(&[0; SEALED_HEADER_BYTES]).map_err(fail)?;
    let mut records = segment.records(chain_id)?;
    let (mut frame, mut bytes) = (Vec::new(), SEGMENT_HEADER_BYTES as u64);
    let mut tips = BTreeSet::new();
    loop {
        let more = match records.next_record()? {
            Next::Record(place, body) => {
                encode_record(&mut frame, &place.key, &body);
                true
            }
            Next::Torn(offset) if !last => {
                return Err(segment.damaged(offset, "a closed segment ends within a record"));
            }
            Next::End | Next::Torn(_) => false,
        };
        if frame.len() >= FRAME_BYTES || (!more && !frame.is_empty()) {
            if !go_on() {
                return Ok(Sealing::Left);
            }
            let (header, packed) = pack(&frame, &mut tips).ok_or_else(|| {
                NodeError::Internal("records of the log do not come back from a frame".into())
            })?;
            out.write_all(&header.encode()).map_err(fail)?;
            out.write_all(&packed).map_err(fail)?;
            bytes += frame.len() as u64;
            frame.clear();
        }
        if !more {
            break;
        }
    }
    if !go_on() {
        return Ok(Sealing::Left);
    }
    out.write_all(&encode_tips(&tips)).map_err(fail)?;
    let header = encode_header(chain_id, segment.number, bytes);
    out.write_all_at(&header, 0).map_err(fail)?;
    out.sync_all().map_err(fail)?;
    let after = out.metadata().map_err(fail)?.len();
    put_in_place(segment, part, go_on).map(|done| match done {
        true => Sealing::Done {
            before: bytes,
            after,
        },
        false => Sealing::Left,
    })
}

/// False if it was told to end before that.
fn put_in_place(
    segment: &SegmentFile,
    part: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, NodeError> {
    if !go_on() {
        return Ok(false);
    }
    let index = segment.index_path();
    match fs::remove_file(&index) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(NodeError::io("remove", &index, e));
        }
        _ => {}
    }
    if !go_on() {
        return Ok(false);
    }
    let dir = segment.path.parent().unwrap_or(Path::new("."));
    fs::rename(part, &segment.path)
        .and_then(|()| fs::File::open(dir)?.sync_all())
        .map_err(|e| NodeError::io("replace", &segment.path, e))?;
    Ok(true)
}
