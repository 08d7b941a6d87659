//! The writer of an event log: one sync for each batch.
//!
//! What must not live here: how a log is read (`reader`).

use std::{
    fs,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use nix::{errno::Errno, sys::uio::pwritev};

use super::{
    behind::Behind,
    reader::{Closed, Index, LogReader, Part, Replay, Shared},
    record::{
        EventKey, Form, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, encode_record_header,
        encode_segment_header,
    },
    segment::{Place, SegmentFile},
};
use crate::{config::Durability, error::NodeError};

/// Pieces written at once: no kernel takes more.
const PIECES_MAX: usize = 1024;

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

/// An event that waits to be written, in two pieces so that its body is not copied.
struct Record {
    place: Place,
    header: [u8; RECORD_HEADER_BYTES],
    body: Bytes,
}

/// The writer. There is one per data directory, guarded by the directory's lock.
pub struct EventLog {
    shared: Arc<Shared>,
    options: Options,
    active: Arc<fs::File>,
    behind: Behind,
    /// Length of the active segment that is known to be good.
    written_bytes: u64,
    batch: Vec<Record>,
    batch_bytes: u64,
    unsynced: bool,
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
        let (index, found) = Index::read(dir, &chain_id)?;
        let report = OpenReport {
            segments: found.segments,
            cut_bytes: found.torn_bytes,
        };
        let active = open_to_write(&index.active.path)?;
        if report.cut_bytes > 0 {
            tracing::warn!(
                code = "E_TORN_TAIL",
                segment = index.active.number,
                cut_bytes = report.cut_bytes,
                "the event log ended within a record that was never counted on; cut it off"
            );
            active
                .set_len(found.good_bytes)
                .and_then(|()| active.sync_all())
                .map_err(|e| NodeError::io("cut", &index.active.path, e))?;
        }
        let shared = Arc::new(Shared::new(dir, chain_id, index));
        let mut log = Self {
            shared,
            options,
            active: Arc::new(active),
            behind: Behind::default(),
            written_bytes: found.good_bytes,
            batch: Vec::new(),
            batch_bytes: 0,
            unsynced: false,
        };
        if found.good_bytes == 0 {
            let mut index = log.shared.index.write().expect("no holder panics");
            log.active = create_segment(&log.shared, &index.active, true)?.into();
            log.written_bytes = SEGMENT_HEADER_BYTES as u64;
            index.bytes += log.written_bytes;
        }
        Ok((log, report))
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader::of(&self.shared)
    }

    /// Puts an event into the batch. It is neither durable nor readable before [`Self::write`].
    pub fn append(&mut self, key: EventKey, body: &Bytes) {
        if self.options.discard {
            return;
        }
        let place = Place {
            key,
            offset: self.written_bytes + self.batch_bytes,
            body_bytes: u32::try_from(body.len()).expect("an event is bounded"),
        };
        self.batch_bytes += (RECORD_HEADER_BYTES + body.len()) as u64;
        self.batch.push(Record {
            place,
            header: encode_record_header(&key, body),
            body: body.clone(),
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
        let pieces = self.batch.iter().flat_map(|r| [&r.header[..], &r.body]);
        let mut pieces: Vec<IoSlice> = pieces.map(IoSlice::new).collect();
        if let Err(error) = write_all_vectored_at(&self.active, &mut pieces, self.written_bytes) {
            // What a full disk took of the batch must not look like a record later.
            let _ = self.active.set_len(self.written_bytes);
            let index = self.shared.index.read().expect("no holder panics");
            return Err(NodeError::io("write", &index.active.path, error));
        }
        let written = std::mem::take(&mut self.batch_bytes);
        self.written_bytes += written;
        self.behind.written(&self.active, self.written_bytes);
        self.unsynced = true;
        let mut index = self.shared.index.write().expect("no holder panics");
        index.bytes += written;
        let places = self.batch.drain(..).map(|r| (r.place.key, r.place));
        index.active_places.extend(places);
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
        let places: Vec<Place> = index.active_places.values().copied().collect();
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
        let closed = Closed::plain(file, &places);
        self.shared.keep(&closed, Part::plain(places));
        index.closed.push(closed);
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

/// Makes a segment that holds nothing yet; with `sync` it is on disk with its name.
fn create_segment(
    shared: &Shared,
    segment: &SegmentFile,
    sync: bool,
) -> Result<fs::File, NodeError> {
    let file = open_to_write(&segment.path)?;
    let header = encode_segment_header(&shared.chain_id, segment.number, Form::Plain);
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

/// As `write_all_at`, from several places.
fn write_all_vectored_at(
    file: &fs::File,
    mut pieces: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let some = &pieces[..pieces.len().min(PIECES_MAX)];
        match pwritev(file, some, offset.cast_signed()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut pieces, written);
                offset += written as u64;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
