//! One segment: reading it from end to end, and the sorted index file beside a closed one.
//!
//! The index file is a cache: if it is missing or its checksum does not match, the segment is scanned
//! again. `<number>.idx` = entries (round u64 | creator u16 | digest 32 | offset u64 | body length u32)
//! sorted by key, then the segment's length u64 and a crc32c of all before it. A sealed segment has none.

use std::{
    fs,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    record::{
        EventKey, Form, HeaderRead, KEY_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, array,
        check_segment_header, decode_record_header, says,
    },
    sealed::Sealed,
};
use crate::{data_dir::write_atomically, error::NodeError};

const INDEX_ENTRY_BYTES: usize = KEY_BYTES + 8 + 4;

/// Where a record is within its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub key: EventKey,
    /// Offset of the record's header.
    pub offset: u64,
    pub body_bytes: u32,
}

/// A segment that is open, in whichever form it was then.
pub enum Opened {
    Plain(fs::File),
    Sealed(Sealed),
}

/// A segment on disk.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    pub number: u64,
    pub path: PathBuf,
}

impl SegmentFile {
    pub fn new(dir: &Path, number: u64) -> Self {
        Self {
            number,
            path: dir.join(format!("{number:010}.log")),
        }
    }

    pub fn index_path(&self) -> PathBuf {
        self.path.with_extension("idx")
    }

    /// That bytes at `offset` are not what was written there.
    pub fn damaged(&self, offset: u64, detail: impl Into<String>) -> NodeError {
        NodeError::StoreDamaged {
            path: self.path.clone(),
            offset,
            detail: detail.into(),
        }
    }

    /// A read that failed: damage where the bytes are gone.
    pub fn unread(&self, offset: u64, error: std::io::Error) -> NodeError {
        // Frames of a sealed segment are read as one file is.
        let error = match error.downcast::<NodeError>() {
            Ok(known) => return known,
            Err(error) => error,
        };
        if is_unreadable(&error) {
            return self.damaged(offset, "the disk cannot read it");
        }
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return self.damaged(offset, "the file ends before it");
        }
        NodeError::io("read", &self.path, error)
    }

    /// The numbers of a directory's segments, ascending.
    pub fn numbers(dir: &Path) -> Result<Vec<u64>, NodeError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| NodeError::io("list", dir, e))? {
            let path = entry.map_err(|e| NodeError::io("list", dir, e))?.path();
            if path.extension().is_some_and(|e| e == "log") {
                let number = path
                    .file_stem()
                    .and_then(|s| s.to_str())
                    .and_then(|s| s.parse::<u64>().ok());
                numbers.extend(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All segments of a directory, ascending and without a gap.
    pub fn list(dir: &Path) -> Result<Vec<Self>, NodeError> {
        let numbers = Self::numbers(dir)?;
        if let Some((missing, _)) = (1..).zip(&numbers).find(|(due, found)| due != *found) {
            let missing = Self::new(dir, missing);
            return Err(missing.damaged(0, "this segment of the event log is missing"));
        }
        Ok(numbers.into_iter().map(|n| Self::new(dir, n)).collect())
    }

    /// Opens the segment. Of a plain one nothing is checked.
    pub fn open(&self, chain_id: &[u8; 32]) -> Result<Opened, NodeError> {
        let file = fs::File::open(&self.path).map_err(|e| NodeError::io("open", &self.path, e))?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) if says(&header, Form::Sealed) => {
                Sealed::open(self, file, chain_id).map(Opened::Sealed)
            }
            // What a plain one lacks is found by whoever reads it.
            _ => Ok(Opened::Plain(file)),
        }
    }

    /// Reads every record in order.
    pub fn records(&self, chain_id: &[u8; 32]) -> Result<Records, NodeError> {
        let file = match self.open(chain_id)? {
            Opened::Plain(file) => file,
            Opened::Sealed(sealed) => {
                return Ok(Records {
                    segment: self.clone(),
                    file_bytes: sealed.bytes,
                    reader: Box::new(sealed.into_reader()),
                    offset: SEGMENT_HEADER_BYTES as u64,
                    headless: false,
                });
            }
        };
        let file_bytes = file
            .metadata()
            .map_err(|e| NodeError::io("look at", &self.path, e))?
            .len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0u8; SEGMENT_HEADER_BYTES];
        if file_bytes >= SEGMENT_HEADER_BYTES as u64 {
            reader
                .read_exact(&mut header)
                .map_err(|e| self.unread(0, e))?;
        }
        let mut records = Records {
            segment: self.clone(),
            reader: Box::new(reader),
            file_bytes,
            offset: 0,
            headless: header.iter().all(|b| *b == 0),
        };
        if records.headless && records.only_zeros_follow()? {
            // Created, but the power went before its header was on disk: nothing was ever in it.
            return Ok(records);
        }
        check_segment_header(&self.path, &header, chain_id, self.number)?;
        records.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(records)
    }

    /// The index of a closed plain segment, from its file or by scanning.
    pub fn index(&self, chain_id: &[u8; 32]) -> Result<Vec<Place>, NodeError> {
        let segment_bytes = fs::metadata(&self.path).map(|m| m.len()).unwrap_or(0);
        if let Some(places) = self.read_index(Some(segment_bytes)) {
            return Ok(places);
        }
        let mut records = self.records(chain_id)?;
        let mut places = Vec::new();
        loop {
            match records.next_record()? {
                Next::Record(place, _) => places.push(place),
                Next::End => break,
                Next::Torn(offset) => {
                    return Err(self.damaged(offset, "a closed segment ends within a record"));
                }
            }
        }
        places.sort_unstable_by_key(|p| p.key);
        // It may have been sealed meanwhile, and needs none then.
        if matches!(self.open(chain_id)?, Opened::Plain(_)) {
            self.write_index(&places, records.offset, true)?;
        }
        Ok(places)
    }

    /// What the index file says, if it is whole and of a segment of that length.
    pub fn read_index(&self, segment_bytes: Option<u64>) -> Option<Vec<Place>> {
        let bytes = fs::read(self.index_path()).ok()?;
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let (entries, length) = body.split_at_checked(body.len().checked_sub(8)?)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(array(crc))
            || segment_bytes.is_some_and(|bytes| u64::from_le_bytes(array(length)) != bytes)
            || entries.len() % INDEX_ENTRY_BYTES != 0
        {
            return None;
        }
        let place = |e: &[u8]| Place {
            key: EventKey::from_bytes(&array(&e[0..42])),
            offset: u64::from_le_bytes(array(&e[42..50])),
            body_bytes: u32::from_le_bytes(array(&e[50..54])),
        };
        Some(entries.chunks_exact(INDEX_ENTRY_BYTES).map(place).collect())
    }

    /// Writes the index of this segment, which is `segment_bytes` long and will not change any more. Its checksum tells
    /// if it was never whole on disk, so it need not be synced.
    pub fn write_index(
        &self,
        sorted: &[Place],
        segment_bytes: u64,
        sync: bool,
    ) -> Result<(), NodeError> {
        let mut out = Vec::with_capacity(sorted.len() * INDEX_ENTRY_BYTES + 12);
        for place in sorted {
            out.extend_from_slice(&place.key.to_bytes());
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.body_bytes.to_le_bytes());
        }
        out.extend_from_slice(&segment_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let path = self.index_path();
        if sync {
            write_atomically(&path, &out)
        } else {
            fs::write(&path, &out).map_err(|e| NodeError::io("write", &path, e))
        }
    }
}

/// Whether the disk has lost what was to be read.
pub fn is_unreadable(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
}

/// One step of reading a segment.
pub enum Next {
    Record(Place, Vec<u8>),
    /// The segment ends here, on the border of a record.
    End,
    /// The segment ends within a record that starts at this offset: writing it was interrupted.
    Torn(u64),
}

/// Reads a segment from its start.
pub struct Records {
    segment: SegmentFile,
    reader: Box<dyn Read + Send>,
    /// Of the plain segment, if this one is sealed.
    file_bytes: u64,
    /// Where the next record starts; after the last one, the length of the good part.
    pub offset: u64,
    headless: bool,
}

impl Records {
    /// The next record.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED` if bytes that were once a record no longer are one.
    pub fn next_record(&mut self) -> Result<Next, NodeError> {
        if self.headless {
            return Ok(if self.file_bytes == 0 {
                Next::End
            } else {
                Next::Torn(0)
            });
        }
        let left = self.file_bytes - self.offset;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < RECORD_HEADER_BYTES as u64 {
            return Ok(Next::Torn(self.offset));
        }
        let mut header = [0u8; RECORD_HEADER_BYTES];
        self.fill(&mut header)?;
        let header = match decode_record_header(&header) {
            HeaderRead::Good(header) => header,
            // A record has a body that is not all zeros: a header with nothing behind it was never whole.
            HeaderRead::Zeros | HeaderRead::Bad(_) if self.only_zeros_follow()? => {
                return Ok(Next::Torn(self.offset));
            }
            // Space that was never written is at the end; here something was.
            HeaderRead::Zeros => {
                return Err(self
                    .segment
                    .damaged(self.offset, "a record is gone: zeros stand in its place"));
            }
            HeaderRead::Bad(why) => return Err(self.segment.damaged(self.offset, why)),
        };
        if left < RECORD_HEADER_BYTES as u64 + u64::from(header.body_bytes) {
            return Ok(Next::Torn(self.offset));
        }
        let mut body = vec![0u8; header.body_bytes as usize];
        self.fill(&mut body)?;
        if crc32c::crc32c(&body) != header.body_crc {
            if body.ends_with(&[0; 16]) && self.only_zeros_follow()? {
                return Ok(Next::Torn(self.offset));
            }
            return Err(self.segment.damaged(
                self.offset,
                "the checksum of a record does not match: a bit has flipped",
            ));
        }
        let place = Place {
            key: header.key,
            offset: self.offset,
            body_bytes: header.body_bytes,
        };
        self.offset += RECORD_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        Ok(Next::Record(place, body))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), NodeError> {
        self.reader
            .read_exact(buffer)
            .map_err(|e| self.segment.unread(self.offset, e))
    }

    /// Whether nothing or only zeros follow: blocks that never reached the disk.
    fn only_zeros_follow(&mut self) -> Result<bool, NodeError> {
        let mut block = [0u8; 4096];
        loop {
            match self
                .reader
                .read(&mut block)
                .map_err(|e| self.segment.unread(self.offset, e))?
            {
                0 => return Ok(true),
                n if block[..n].iter().any(|b| *b != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}
