//! Reading an event log: from its start to its end, and single events by their names. Any number may read, also while the writer
//! writes and while the log of an ended epoch is sealed.
//!
//! What must not live here: writing.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use bytes::Bytes;

use super::{
    record::{EventKey, RECORD_HEADER_BYTES, record_at},
    sealed::{Frame, Sealed},
    segment::{Next, Opened, Place, Records, SegmentFile},
};
use crate::error::NodeError;

/// Parts of the log that readers keep in memory at once.
const PARTS_MAX: usize = 4;

/// A reader of the log: cheap to clone, reads what has been committed.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// What a log's writer and readers share.
pub(super) struct Shared {
    pub dir: PathBuf,
    pub chain_id: [u8; 32],
    pub index: RwLock<Index>,
    parts: Mutex<VecDeque<(PartName, Arc<Part>)>>,
}

/// What a log consists of.
pub(super) struct Index {
    /// What does not change any more, ascending.
    pub closed: Vec<Closed>,
    /// The segment that is written, or would be: without records it may not be there.
    pub active: SegmentFile,
    pub active_places: BTreeMap<EventKey, Place>,
    /// Bytes of all segments on disk.
    pub bytes: u64,
}

/// What reading a log's index has found besides.
pub(super) struct Found {
    pub segments: u64,
    /// Bytes of the active segment that are good.
    pub good_bytes: u64,
    /// Bytes behind these.
    pub torn_bytes: u64,
}

/// A closed segment, or one frame of a sealed one.
#[derive(Clone)]
pub(super) struct Closed {
    file: SegmentFile,
    frame: Option<Frame>,
    rounds: Option<RangeInclusive<u64>>,
}

/// The segment's number, and where in it the part starts.
type PartName = (u64, u64);

/// What is kept in memory of a closed segment or of a frame.
pub(super) struct Part {
    /// Sorted by key.
    places: Vec<Place>,
    /// The frame's records.
    records: Option<Bytes>,
}

impl Closed {
    /// A segment that is not sealed.
    pub fn plain(file: SegmentFile, places: &[Place]) -> Self {
        let low = places.iter().map(|p| p.key.round).min();
        let high = places.iter().map(|p| p.key.round).max();
        Self {
            file,
            frame: None,
            rounds: low.zip(high).map(|(low, high)| low..=high),
        }
    }

    fn frame(file: &SegmentFile, frame: &Frame) -> Self {
        let (low, high) = frame.header.rounds;
        Self {
            file: file.clone(),
            frame: Some(*frame),
            rounds: Some(low..=high),
        }
    }

    fn first_round(&self) -> u64 {
        self.rounds.as_ref().map_or(0, |rounds| *rounds.start())
    }

    fn name(&self) -> PartName {
        (self.file.number, self.frame.map_or(0, |f| f.offset))
    }
}

impl Part {
    /// Of a segment that is not sealed.
    pub fn plain(places: Vec<Place>) -> Self {
        Self {
            places,
            records: None,
        }
    }

    fn frame(sealed: &Sealed, frame: &Frame) -> Result<Self, NodeError> {
        let records = Bytes::from(sealed.records(frame)?);
        let mut places = Vec::new();
        let mut at = 0;
        while let Some((key, body)) = record_at(&records, at) {
            places.push(Place {
                key,
                offset: frame.offset + at as u64,
                body_bytes: u32::try_from(body.len()).expect("an event is bounded"),
            });
            at += RECORD_HEADER_BYTES + body.len();
        }
        places.sort_unstable_by_key(|p| p.key);
        Ok(Self {
            places,
            records: Some(records),
        })
    }
}

impl Index {
    /// Reads what the log in `dir` consists of, and changes nothing.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_WRONG_NETWORK`, `E_NEWER_FORMAT`, `E_IO`.
    pub fn read(dir: &Path, chain_id: &[u8; 32]) -> Result<(Self, Found), NodeError> {
        let mut segments = SegmentFile::list(dir)?;
        let mut found = Found {
            segments: segments.len() as u64,
            good_bytes: 0,
            torn_bytes: 0,
        };
        let mut this = Self {
            closed: Vec::new(),
            active: SegmentFile::new(dir, found.segments + 1),
            active_places: BTreeMap::new(),
            bytes: 0,
        };
        let last = segments.pop();
        for file in segments {
            this.close(file, chain_id)?;
        }
        match last {
            Some(last) if matches!(last.open(chain_id)?, Opened::Sealed(_)) => {
                this.close(last, chain_id)?;
            }
            Some(last) => {
                let (places, good, torn) = scan_last(&last, chain_id)?;
                (this.active, this.active_places) = (last, places);
                (found.good_bytes, found.torn_bytes) = (good, torn);
                this.bytes += good;
            }
            None => {}
        }
        Ok((this, found))
    }

    fn close(&mut self, file: SegmentFile, chain_id: &[u8; 32]) -> Result<(), NodeError> {
        self.bytes += fs::metadata(&file.path)
            .map_err(|e| NodeError::io("look at", &file.path, e))?
            .len();
        match file.open(chain_id)? {
            Opened::Sealed(sealed) => {
                let frames = sealed.frames.iter();
                self.closed.extend(frames.map(|f| Closed::frame(&file, f)));
            }
            Opened::Plain(_) => {
                let places = file.index(chain_id)?;
                self.closed.push(Closed::plain(file, &places));
            }
        }
        Ok(())
    }

    /// The parts that may hold events of these rounds.
    fn with(&self, rounds: RangeInclusive<u64>) -> Vec<Closed> {
        let touches =
            |r: &RangeInclusive<u64>| r.start() <= rounds.end() && rounds.start() <= r.end();
        let closed = self.closed.iter();
        closed
            .filter(|c| c.rounds.as_ref().is_some_and(touches))
            .cloned()
            .collect()
    }
}

impl Shared {
    pub fn new(dir: &Path, chain_id: [u8; 32], index: Index) -> Self {
        Self {
            dir: dir.to_owned(),
            chain_id,
            index: RwLock::new(index),
            parts: Mutex::default(),
        }
    }

    /// Keeps a part in memory until others have come.
    pub fn keep(&self, closed: &Closed, part: Part) -> Arc<Part> {
        let part = Arc::new(part);
        let mut kept = self.parts.lock().expect("no holder panics");
        kept.push_back((closed.name(), Arc::clone(&part)));
        if kept.len() > PARTS_MAX {
            kept.pop_front();
        }
        part
    }

    fn part(&self, closed: &Closed) -> Result<Arc<Part>, NodeError> {
        let kept = self.parts.lock().expect("no holder panics");
        if let Some((_, part)) = kept.iter().find(|(name, _)| *name == closed.name()) {
            return Ok(Arc::clone(part));
        }
        drop(kept);
        let part = match (&closed.frame, closed.file.open(&self.chain_id)?) {
            (Some(frame), Opened::Sealed(sealed)) => Part::frame(&sealed, frame)?,
            // Sealed since then, or healed: offsets are the same.
            _ => Part::plain(closed.file.index(&self.chain_id)?),
        };
        Ok(self.keep(closed, part))
    }

    fn read_at(&self, segment: &SegmentFile, place: &Place) -> Result<Bytes, NodeError> {
        let bytes = RECORD_HEADER_BYTES + place.body_bytes as usize;
        let record = match segment.open(&self.chain_id)? {
            Opened::Plain(file) => {
                let mut record = vec![0u8; bytes];
                file.read_exact_at(&mut record, place.offset)
                    .map_err(|e| segment.unread(place.offset, e))?;
                Some(Bytes::from(record))
            }
            // It was sealed after its index was read.
            Opened::Sealed(sealed) => match sealed.frame_at(place.offset) {
                Some(frame) => {
                    let records = Bytes::from(sealed.records(frame)?);
                    record_in(&records, frame, place)
                }
                None => None,
            },
        };
        record
            .and_then(|record| body_of(&record, place))
            .ok_or_else(|| {
                segment.damaged(
                    place.offset,
                    "a record is not the one that was written there",
                )
            })
    }
}

/// The bytes of a record within its frame's.
fn record_in(records: &Bytes, frame: &Frame, place: &Place) -> Option<Bytes> {
    let start = usize::try_from(place.offset.checked_sub(frame.offset)?).ok()?;
    let end = start + RECORD_HEADER_BYTES + place.body_bytes as usize;
    (end <= records.len()).then(|| records.slice(start..end))
}

fn body_of(record: &Bytes, place: &Place) -> Option<Bytes> {
    let (key, body) = record_at(record, 0)?;
    (key == place.key && body.len() == place.body_bytes as usize)
        .then(|| record.slice(RECORD_HEADER_BYTES..))
}

impl LogReader {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// Opens a log that nobody writes.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_WRONG_NETWORK`, `E_NEWER_FORMAT`, `E_IO`.
    pub fn open(dir: &Path, chain_id: [u8; 32]) -> Result<Self, NodeError> {
        let (index, _) = Index::read(dir, &chain_id)?;
        Ok(Self {
            shared: Arc::new(Shared::new(dir, chain_id, index)),
        })
    }

    /// Bytes of all segments on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.index.read().expect("no holder panics").bytes
    }

    /// Reads every event, oldest first, up to where the log ends when that is reached.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_IO`.
    pub fn replay(&self) -> Result<Replay, NodeError> {
        let index = self.shared.index.read().expect("no holder panics");
        let mut segments: Vec<SegmentFile> = index.closed.iter().map(|c| c.file.clone()).collect();
        segments.dedup_by_key(|segment| segment.number);
        if !index.active_places.is_empty() {
            segments.push(index.active.clone());
        }
        Ok(Replay {
            chain_id: self.shared.chain_id,
            segments: segments.into(),
            current: None,
        })
    }

    /// The exact bytes of an event, if the log holds it.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED` if its bytes have changed since they were written; `E_IO`.
    pub fn get(&self, key: &EventKey) -> Result<Option<Bytes>, NodeError> {
        let candidates = {
            let index = self.shared.index.read().expect("no holder panics");
            if let Some(place) = index.active_places.get(key) {
                let (file, place) = (index.active.clone(), *place);
                drop(index);
                return self.shared.read_at(&file, &place).map(Some);
            }
            index.with(key.round..=key.round)
        };
        for closed in candidates {
            let part = self.shared.part(&closed)?;
            let Ok(at) = part.places.binary_search_by_key(key, |p| p.key) else {
                continue;
            };
            let place = &part.places[at];
            let in_memory = part.records.as_ref().zip(closed.frame.as_ref());
            if let Some((records, frame)) = in_memory {
                let record = record_in(records, frame, place).expect("its place is from there");
                return Ok(Some(record.slice(RECORD_HEADER_BYTES..)));
            }
            return self.shared.read_at(&closed.file, place).map(Some);
        }
        Ok(None)
    }

    /// Keys of events at or after `from`, of rounds up to `to_round`, ascending, at most `limit`.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_IO`.
    pub fn keys(
        &self,
        from: EventKey,
        to_round: u64,
        limit: usize,
    ) -> Result<Vec<EventKey>, NodeError> {
        let to = EventKey {
            round: to_round,
            creator: u16::MAX,
            digest: [0xff; 32],
        };
        if to < from {
            return Ok(Vec::new());
        }
        let (mut candidates, mut keys) = {
            let index = self.shared.index.read().expect("no holder panics");
            let active = index.active_places.range(from..=to).map(|(k, _)| *k);
            (
                index.with(from.round..=to_round),
                active.take(limit).collect::<Vec<_>>(),
            )
        };
        // Those that begin with the lowest rounds first: a frame is not unpacked for what the answer has no room for.
        candidates.sort_by_key(Closed::first_round);
        for closed in candidates {
            if keys.len() >= limit {
                keys.sort_unstable();
                keys.truncate(limit);
                if keys
                    .last()
                    .is_none_or(|last| last.round < closed.first_round())
                {
                    break;
                }
            }
            let part = self.shared.part(&closed)?;
            let first = part.places.partition_point(|p| p.key < from);
            let found = part.places[first..].iter().map(|p| p.key);
            keys.extend(found.take_while(|k| *k <= to).take(limit));
        }
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }
}

/// Reads the log from its start; ends with the first error.
pub struct Replay {
    chain_id: [u8; 32],
    segments: VecDeque<SegmentFile>,
    current: Option<Records>,
}

impl Replay {
    fn step(&mut self) -> Result<Option<(EventKey, Bytes)>, NodeError> {
        loop {
            if self.current.is_none() {
                let Some(segment) = self.segments.pop_front() else {
                    return Ok(None);
                };
                self.current = Some(segment.records(&self.chain_id)?);
            }
            let records = self.current.as_mut().expect("set above");
            match records.next_record()? {
                Next::Record(place, body) => return Ok(Some((place.key, body.into()))),
                Next::End | Next::Torn(_) => self.current = None,
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Result<(EventKey, Bytes), NodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if matches!(item, Some(Err(_))) {
            self.segments.clear();
            self.current = None;
        }
        item
    }
}

/// Reads the last segment: its index, the length of its good part, and how much follows that.
fn scan_last(
    segment: &SegmentFile,
    chain_id: &[u8; 32],
) -> Result<(BTreeMap<EventKey, Place>, u64, u64), NodeError> {
    let file_bytes = fs::metadata(&segment.path)
        .map_err(|e| NodeError::io("look at", &segment.path, e))?
        .len();
    let mut records = segment.records(chain_id)?;
    let mut places = BTreeMap::new();
    let good = loop {
        match records.next_record()? {
            Next::Record(place, _) => {
                places.insert(place.key, place);
            }
            Next::End => break records.offset,
            Next::Torn(offset) => break offset,
        }
    };
    Ok((places, good, file_bytes - good))
}
