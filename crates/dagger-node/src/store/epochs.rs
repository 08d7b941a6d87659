//! The epochs of a data directory: one directory for each, with its event log and, once it has ended, the proof of that.
//!
//! ```text
//! events/<epoch>/0000000001.log ... the log; sealed some time after the epoch's end, gone once pruned
//! events/<epoch>/end                magic 8 | format u32 | BLAKE3 of the body 32 | body (an EpochEnd, borsh); kept for ever
//! ```
//! The epoch after the last end of an unbroken chain from 0 is the present one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use shadowgraph::{Epoch, EpochEnd};
use tokio::sync::Notify;

use super::{
    EventLog, LogReader, Options,
    record::array,
    sealed::{Sealing, seal},
    segment::{Opened, SegmentFile},
};
use crate::{data_dir::write_atomically, error::NodeError};

const END_FILE: &str = "end";
const MAGIC: &[u8; 8] = b"DAGREEND";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 8 + 4 + 32;

/// The epochs on disk. Cheap to clone; there is one writer, guarded by the data directory's lock.
#[derive(Clone)]
pub struct Epochs {
    dir: PathBuf,
    chain_id: [u8; 32],
    options: Options,
    readers: Arc<Mutex<BTreeMap<u64, LogReader>>>,
    /// Held by whoever replaces or removes files of logs that nobody writes any more.
    changing: Arc<Mutex<()>>,
    ended: Arc<Notify>,
}

/// What sealing an epoch's log came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealReport {
    /// Segments that were sealed.
    pub segments: u64,
    /// Bytes that they had.
    pub before: u64,
    /// Bytes that they have.
    pub after: u64,
}

impl Epochs {
    /// Opens the directory, making it if need be.
    ///
    /// # Errors
    /// `E_IO`, `E_DISK_FULL`.
    pub fn open(dir: &Path, chain_id: [u8; 32], options: Options) -> Result<Self, NodeError> {
        fs::create_dir_all(dir).map_err(|e| NodeError::io("create", dir, e))?;
        Ok(Self {
            dir: dir.to_owned(),
            chain_id,
            options,
            readers: Arc::default(),
            changing: Arc::default(),
            ended: Arc::default(),
        })
    }

    /// Where an epoch's log is.
    pub(crate) fn path(&self, epoch: Epoch) -> PathBuf {
        self.dir.join(format!("{:010}", epoch.0))
    }

    /// The log of an epoch, for writing; an empty one if there is none yet.
    ///
    /// # Errors
    /// As [`EventLog::open`].
    pub fn log(&self, epoch: Epoch) -> Result<EventLog, NodeError> {
        let (log, _) = EventLog::open(&self.path(epoch), self.chain_id, self.options)?;
        let mut readers = self.readers.lock().expect("no holder panics");
        readers.insert(epoch.0, log.reader());
        Ok(log)
    }

    /// A reader of an epoch's log; `None` if it was pruned or never there.
    ///
    /// # Errors
    /// As [`EventLog::open`].
    pub fn reader(&self, epoch: Epoch) -> Result<Option<LogReader>, NodeError> {
        let mut readers = self.readers.lock().expect("no holder panics");
        if let Some(reader) = readers.get(&epoch.0) {
            return Ok(Some(reader.clone()));
        }
        if !self.has_log(epoch) {
            return Ok(None);
        }
        // An ended epoch's log has no writer any more.
        let reader = LogReader::open(&self.path(epoch), self.chain_id)?;
        readers.insert(epoch.0, reader.clone());
        Ok(Some(reader))
    }

    /// An epoch's log was written anew: whoever reads it next looks at it again.
    pub(crate) fn forget(&self, epoch: Epoch) {
        let mut readers = self.readers.lock().expect("no holder panics");
        readers.remove(&epoch.0);
    }

    /// Seals what is not yet sealed of an ended epoch's log. `go_on` is asked before each step, some milliseconds of work;
    /// once it says no the rest is left as it is.
    ///
    /// # Errors
    /// As [`seal`]; what is sealed by then stays so.
    pub fn seal(
        &self,
        epoch: Epoch,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<SealReport, NodeError> {
        let mut report = SealReport::default();
        let dir = self.path(epoch);
        let last = SegmentFile::numbers(&dir)?.pop();
        for number in 1..=last.unwrap_or(0) {
            let _changing = self.changing();
            let segment = SegmentFile::new(&dir, number);
            // Removed meanwhile.
            if !segment.path.exists() {
                break;
            }
            if let Opened::Sealed(_) = segment.open(&self.chain_id)? {
                continue;
            }
            match seal(&segment, &self.chain_id, Some(number) == last, go_on)? {
                Sealing::Done { before, after } => {
                    report.segments += 1;
                    report.before += before;
                    report.after += after;
                }
                Sealing::Left => break,
            }
        }
        if report.segments > 0 {
            // What it keeps in memory to find single events in a plain log is no longer needed.
            self.forget(epoch);
        }
        Ok(report)
    }

    /// For as long as it is held no file of a log that nobody writes is replaced or removed by anybody else.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().expect("no holder panics")
    }

    /// Waits until an epoch has ended since this was last asked.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Whether the epoch's log is there.
    pub fn has_log(&self, epoch: Epoch) -> bool {
        let entries = fs::read_dir(self.path(epoch)).into_iter().flatten();
        entries.flatten().any(|e| e.file_name() != END_FILE)
    }

    /// Whether anything of a later epoch is there.
    pub(crate) fn knows_later(&self, epoch: Epoch) -> bool {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut kept = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        kept.any(|kept| kept > epoch.0)
    }

    /// Keeps the proof that an epoch ended: on disk when this returns.
    ///
    /// # Errors
    /// `E_IO`, `E_DISK_FULL`.
    pub fn save_end(&self, end: &EpochEnd) -> Result<(), NodeError> {
        let dir = self.path(end.epoch());
        fs::create_dir_all(&dir).map_err(|e| NodeError::io("create", &dir, e))?;
        let body = borsh::to_vec(end).expect("an epoch's end encodes");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&checksum(&body));
        bytes.extend_from_slice(&body);
        write_atomically(&dir.join(END_FILE), &bytes)?;
        let synced = fs::File::open(&self.dir).and_then(|d| d.sync_all());
        synced.map_err(|e| NodeError::io("sync", &self.dir, e))?;
        self.ended.notify_one();
        Ok(())
    }

    /// How an epoch ended, if it did.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_NEWER_FORMAT`, `E_IO`.
    pub fn end(&self, epoch: Epoch) -> Result<Option<EpochEnd>, NodeError> {
        let path = self.path(epoch).join(END_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(NodeError::io("read", &path, e)),
        };
        let damaged = || NodeError::StoreDamaged {
            path: path.clone(),
            offset: 0,
            detail: "this is not the proof of an epoch's end that was written there".into(),
        };
        if bytes.len() < HEAD_BYTES || &bytes[..8] != MAGIC {
            return Err(damaged());
        }
        let format = u32::from_le_bytes(array(&bytes[8..12]));
        if format > FORMAT {
            return Err(NodeError::NewerFormat {
                path,
                found: format,
                known: FORMAT,
            });
        }
        let body = &bytes[HEAD_BYTES..];
        let end: Option<EpochEnd> = borsh::from_slice(body).ok();
        let whole = checksum(body) == array::<32>(&bytes[12..44]);
        end.filter(|end| whole && end.epoch() == epoch)
            .map(Some)
            .ok_or_else(damaged)
    }

    /// How the last ended epoch ended; `None` in the first epoch.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub fn last_end(&self) -> Result<Option<EpochEnd>, NodeError> {
        let ended = (0..).take_while(|e| self.path(Epoch(*e)).join(END_FILE).exists());
        match ended.last() {
            Some(epoch) => self.end(Epoch(epoch)),
            None => Ok(None),
        }
    }

    /// Removes the logs of all epochs before `first_kept`; their ends stay. Returns how many it removed.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn prune(&self, first_kept: Epoch) -> Result<u64, NodeError> {
        let _changing = self.changing();
        let mut pruned = 0;
        for epoch in (0..first_kept.0).map(Epoch) {
            if !self.has_log(epoch) {
                continue;
            }
            self.readers
                .lock()
                .expect("no holder panics")
                .remove(&epoch.0);
            let dir = self.path(epoch);
            for entry in fs::read_dir(&dir).map_err(|e| NodeError::io("list", &dir, e))? {
                let entry = entry.map_err(|e| NodeError::io("list", &dir, e))?;
                if entry.file_name() != END_FILE {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(|e| NodeError::io("remove", &path, e))?;
                }
            }
            pruned += 1;
        }
        Ok(pruned)
    }
}

fn checksum(body: &[u8]) -> [u8; 32] {
    blake3::derive_key("dagger epoch end file v1", body)
}
