//! The event log: one writer, any number of readers, one sync per batch.

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
    behind::Behind,
    record::{
        EventKey, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, encode_record, encode_segment_header,
    },
    segment::{Next, Place, Records, SegmentFile},
};
use crate::{config::Durability, error::NodeError};

/// Indexes of closed segments that readers keep in memory at once.
const CLOSED_INDEXES_MAX: usize = 4;

/// How a log is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A segment is closed once it is this large.
    pub segment_bytes: u64,
    /// What a commit of the log must survive.
    pub durability: Durability,
    /// Nothing is written and nothing can be read back: for benchmarks without a disk.
    pub discard: bool,
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Segments on disk.
    pub segments: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
}

/// The writer. There is one per data directory, guarded by the directory's lock.
pub struct EventLog {
    shared: Arc<Shared>,
    options: Options,
    active: Arc<fs::File>,
    behind: Behind,
    /// Length of the active segment that is known to be good.
    written_bytes: u64,
    batch: Vec<u8>,
    batch_places: Vec<Place>,
    unsynced: bool,
}

/// A reader of the log: cheap to clone, reads what has been committed.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    chain_id: [u8; 32],
    index: RwLock<Index>,
    closed_indexes: Mutex<VecDeque<(u64, Arc<Vec<Place>>)>>,
}

struct Index {
    /// Closed segments, ascending.
    closed: Vec<ClosedSegment>,
    active: SegmentFile,
    active_places: BTreeMap<EventKey, Place>,
    bytes: u64,
}

#[derive(Clone)]
struct ClosedSegment {
    file: SegmentFile,
    rounds: Option<RangeInclusive<u64>>,
}

impl EventLog {
    /// Opens the log in `dir`, or makes an empty one; cuts off a torn tail.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_WRONG_NETWORK`, `E_NEWER_FORMAT`, `E_DISK_FULL`, `E_IO`. Nothing is changed on an error.
    pub fn open(
        dir: &Path,
        chain_id: [u8; 32],
        options: Options,
    ) -> Result<(Self, OpenReport), NodeError> {
        fs::create_dir_all(dir).map_err(|e| NodeError::io("create", dir, e))?;
        let mut segments = SegmentFile::list(dir)?;
        let mut report = OpenReport {
            segments: segments.len() as u64,
            cut_bytes: 0,
        };
        let last = segments.pop();
        let mut closed = Vec::with_capacity(segments.len());
        let mut bytes = 0;
        for file in segments {
            let places = file.index(&chain_id)?;
            bytes += fs::metadata(&file.path)
                .map_err(|e| NodeError::io("look at", &file.path, e))?
                .len();
            closed.push(ClosedSegment {
                rounds: rounds_of(&places),
                file,
            });
        }
        let (segment, active, places, good_bytes) = match last {
            Some(last) => {
                let (places, good, cut) = scan_last(&last, &chain_id)?;
                report.cut_bytes = cut;
                let file = open_to_write(&last.path)?;
                if cut > 0 {
                    tracing::warn!(
                        code = "E_TORN_TAIL",
                        segment = last.number,
                        cut_bytes = cut,
                        "the event log ended within a record that was never counted on; cut it off"
                    );
                    file.set_len(good)
                        .and_then(|()| file.sync_all())
                        .map_err(|e| NodeError::io("cut", &last.path, e))?;
                }
                (last, file, places, good)
            }
            None => {
                let first = SegmentFile::new(dir, 1);
                let file = open_to_write(&first.path)?;
                (first, file, BTreeMap::new(), 0)
            }
        };
        bytes += good_bytes;
        let index = Index {
            closed,
            active: segment,
            active_places: places,
            bytes,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            chain_id,
            index: RwLock::new(index),
            closed_indexes: Mutex::default(),
        });
        let mut log = Self {
            shared,
            options,
            active: Arc::new(active),
            behind: Behind::default(),
            written_bytes: good_bytes,
            batch: Vec::new(),
            batch_places: Vec::new(),
            unsynced: false,
        };
        if good_bytes == 0 {
            let mut index = log.shared.index.write().expect("no holder panics");
            log.active = create_segment(&log.shared, &index.active, true)?.into();
            log.written_bytes = SEGMENT_HEADER_BYTES as u64;
            index.bytes += log.written_bytes;
        }
        Ok((log, report))
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Puts an event into the batch. It is neither durable nor readable before [`Self::write`].
    pub fn append(&mut self, key: EventKey, body: &[u8]) {
        if self.options.discard {
            return;
        }
        let offset = self.written_bytes + self.batch.len() as u64;
        let body_bytes = u32::try_from(body.len()).expect("an event is bounded");
        encode_record(&mut self.batch, &key, body);
        self.batch_places.push(Place {
            key,
            offset,
            body_bytes,
        });
    }

    /// Hands the batch to the kernel: readable from now on, and safe from a crash of this process.
    ///
    /// # Errors
    /// `E_DISK_FULL`, `E_IO`: the batch is kept and may be written again later.
    pub fn write(&mut self) -> Result<(), NodeError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.active.write_all_at(&self.batch, self.written_bytes) {
            // What a full disk took of the batch must not look like a record later.
            let _ = self.active.set_len(self.written_bytes);
            let index = self.shared.index.read().expect("no holder panics");
            return Err(NodeError::io("write", &index.active.path, error));
        }
        self.written_bytes += self.batch.len() as u64;
        self.behind.written(&self.active, self.written_bytes);
        self.unsynced = true;
        let mut index = self.shared.index.write().expect("no holder panics");
        index.bytes += self.batch.len() as u64;
        index
            .active_places
            .extend(self.batch_places.drain(..).map(|p| (p.key, p)));
        drop(index);
        self.batch.clear();
        Ok(())
    }

    /// Writes the batch and makes everything so far as durable as the options ask: one sync.
    ///
    /// # Errors
    /// `E_DISK_FULL` (may be tried again), `E_IO` (must not: the kernel may have dropped what it could not write).
    pub fn commit(&mut self) -> Result<(), NodeError> {
        self.write()?;
        if self.unsynced && self.options.durability == Durability::Fsync {
            let path = || {
                self.shared
                    .index
                    .read()
                    .expect("no holder panics")
                    .active
                    .path
                    .clone()
            };
            self.active
                .sync_data()
                .map_err(|e| NodeError::io("sync", &path(), e))?;
        }
        self.unsynced = false;
        if self.written_bytes >= self.options.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Whether something is in the batch or not yet synced.
    pub fn is_dirty(&self) -> bool {
        self.unsynced || !self.batch.is_empty()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.shared.index.read().expect("no holder panics").bytes
    }

    /// Reads every event, oldest first.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_IO`.
    pub fn replay(&self) -> Result<Replay, NodeError> {
        self.reader().replay()
    }

    /// Closes the active segment and begins the next. Without space for that the active one just grows on.
    fn rotate(&mut self) -> Result<(), NodeError> {
        let mut index = self.shared.index.write().expect("no holder panics");
        let places: Arc<Vec<Place>> = Arc::new(index.active_places.values().copied().collect());
        let next = SegmentFile::new(&self.shared.dir, index.active.number + 1);
        let sync = self.options.durability == Durability::Fsync;
        let begun = self
            .close_active(&index.active, &places)
            .and_then(|()| create_segment(&self.shared, &next, sync));
        let next_file = match begun {
            Ok(file) => file,
            Err(NodeError::DiskFull { .. }) => {
                // An empty next segment would be harmless, but its space is needed.
                let _ = fs::remove_file(&next.path);
                let _ = fs::remove_file(index.active.index_path());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.behind.closed(&self.active, self.written_bytes);
        self.active = next_file.into();
        let file = std::mem::replace(&mut index.active, next);
        index.active_places.clear();
        self.shared.keep_index(file.number, Arc::clone(&places));
        index.closed.push(ClosedSegment {
            rounds: rounds_of(&places),
            file,
        });
        index.bytes += SEGMENT_HEADER_BYTES as u64;
        self.written_bytes = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Completes the active segment: first its bytes, then its index, which recovery trusts. Where the kernel's word is
    /// enough nothing is synced here either: a sync would hold up every writer of the file system.
    fn close_active(&self, segment: &SegmentFile, places: &[Place]) -> Result<(), NodeError> {
        let sync = self.options.durability == Durability::Fsync;
        if sync {
            self.active
                .sync_all()
                .map_err(|e| NodeError::io("sync", &segment.path, e))?;
        }
        segment.write_index(places, self.written_bytes, sync)
    }
}

impl Shared {
    fn keep_index(&self, segment: u64, places: Arc<Vec<Place>>) {
        let mut kept = self.closed_indexes.lock().expect("no holder panics");
        kept.push_back((segment, places));
        if kept.len() > CLOSED_INDEXES_MAX {
            kept.pop_front();
        }
    }
}

impl LogReader {
    /// Reads every event, oldest first, up to where the log ends when that is reached.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_IO`.
    pub fn replay(&self) -> Result<Replay, NodeError> {
        let index = self.shared.index.read().expect("no holder panics");
        let mut segments: VecDeque<SegmentFile> =
            index.closed.iter().map(|c| c.file.clone()).collect();
        segments.push_back(index.active.clone());
        Ok(Replay {
            chain_id: self.shared.chain_id,
            segments,
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
                return read_at(&file, &place).map(Some);
            }
            segments_with(&index, key.round..=key.round)
        };
        for segment in candidates {
            let places = self.closed_index(&segment)?;
            if let Ok(at) = places.binary_search_by_key(key, |p| p.key) {
                return read_at(&segment, &places[at]).map(Some);
            }
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
        let (candidates, mut keys) = {
            let index = self.shared.index.read().expect("no holder panics");
            let active = index.active_places.range(from..=to).map(|(k, _)| *k);
            (
                segments_with(&index, from.round..=to_round),
                active.take(limit).collect::<Vec<_>>(),
            )
        };
        for segment in candidates {
            let places = self.closed_index(&segment)?;
            let first = places.partition_point(|p| p.key < from);
            keys.extend(
                places[first..]
                    .iter()
                    .map(|p| p.key)
                    .take_while(|k| *k <= to)
                    .take(limit),
            );
        }
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }

    fn closed_index(&self, segment: &SegmentFile) -> Result<Arc<Vec<Place>>, NodeError> {
        let kept = self.shared.closed_indexes.lock().expect("no holder panics");
        if let Some((_, places)) = kept.iter().find(|(n, _)| *n == segment.number) {
            return Ok(Arc::clone(places));
        }
        drop(kept);
        let places = Arc::new(segment.index(&self.shared.chain_id)?);
        self.shared.keep_index(segment.number, Arc::clone(&places));
        Ok(places)
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

/// Makes a segment that holds nothing yet; with `sync` it is on disk with its name.
fn create_segment(
    shared: &Shared,
    segment: &SegmentFile,
    sync: bool,
) -> Result<fs::File, NodeError> {
    let file = open_to_write(&segment.path)?;
    let header = encode_segment_header(&shared.chain_id, segment.number);
    let on_disk = || {
        file.sync_all()?;
        fs::File::open(&shared.dir)?.sync_all()
    };
    file.write_all_at(&header, 0)
        .and_then(|()| if sync { on_disk() } else { Ok(()) })
        .map_err(|e| NodeError::io("start", &segment.path, e))?;
    Ok(file)
}

fn open_to_write(path: &Path) -> Result<fs::File, NodeError> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| NodeError::io("open", path, e))
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

fn rounds_of(places: &[Place]) -> Option<RangeInclusive<u64>> {
    let low = places.iter().map(|p| p.key.round).min()?;
    let high = places.iter().map(|p| p.key.round).max()?;
    Some(low..=high)
}

fn segments_with(index: &Index, rounds: RangeInclusive<u64>) -> Vec<SegmentFile> {
    let touches = |r: &RangeInclusive<u64>| r.start() <= rounds.end() && rounds.start() <= r.end();
    index
        .closed
        .iter()
        .filter(|c| c.rounds.as_ref().is_some_and(touches))
        .map(|c| c.file.clone())
        .collect()
}

fn read_at(segment: &SegmentFile, place: &Place) -> Result<Bytes, NodeError> {
    let file =
        fs::File::open(&segment.path).map_err(|e| NodeError::io("open", &segment.path, e))?;
    let mut record = vec![0u8; RECORD_HEADER_BYTES + place.body_bytes as usize];
    file.read_exact_at(&mut record, place.offset)
        .map_err(|e| segment.unread(place.offset, e))?;
    let damaged = || NodeError::StoreDamaged {
        path: segment.path.clone(),
        offset: place.offset,
        detail: "a record is not the one that was written there".into(),
    };
    match super::record::decode_record_header(&record[..RECORD_HEADER_BYTES]) {
        super::record::HeaderRead::Good(h)
            if h.key == place.key && h.body_bytes == place.body_bytes =>
        {
            let body = Bytes::from(record).slice(RECORD_HEADER_BYTES..);
            if crc32c::crc32c(&body) == h.body_crc {
                Ok(body)
            } else {
                Err(damaged())
            }
        }
        _ => Err(damaged()),
    }
}
