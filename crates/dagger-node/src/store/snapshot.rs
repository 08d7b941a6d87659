//! Snapshots of the ledger, so that a restart need not execute history again.
//!
//! `state/ledger-<commit>.snap` = magic 8 | format u32 | chain id 32 | commit u64 | commit digest 32 | transactions u64
//! | epoch u64 | body length u64 | BLAKE3 of all of that and the body 32 | body. A snapshot is a cache of what the event
//! logs say: one that does not verify is passed over, and then the one before it or the genesis is the start.
//!
//! One whose state is that of an epoch's start is called `epoch-<commit>.snap`. Nodes that are far behind fetch those, and
//! the logs of the epochs before it may go.

use std::{
    fs,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::record::array;
use crate::error::NodeError;

const MAGIC: &[u8; 8] = b"DAGRSNAP";
const FORMAT: u32 = 2;
const HEAD_BYTES: usize = 8 + 4 + 32 + 8 + 32 + 8 + 8 + 8;
/// Snapshots kept of either kind: the newest, and one more in case the newest is damaged or is being fetched by a peer.
const KEPT: usize = 2;
const LEDGER_PREFIX: &str = "ledger-";
const EPOCH_PREFIX: &str = "epoch-";

/// Bytes of a file before the body.
const BODY_OFFSET: u64 = HEAD_BYTES as u64 + 32;
/// Read and hashed at once.
const BLOCK_BYTES: usize = 256 << 10;

/// What a snapshot is the state of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Last commit executed.
    pub commit: u64,
    /// Its chained digest.
    pub commit_digest: [u8; 32],
    /// Transactions executed up to it.
    pub transactions: u64,
    /// The epoch that the state is of.
    pub epoch: u64,
    /// Whether it is the state at that epoch's start.
    pub starts_epoch: bool,
}

/// The snapshots of one data directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    chain_id: [u8; 32],
}

/// An open snapshot, whose body (`Ledger::snapshot`) is read in parts. Removing its file does it no harm.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// What it is the state of.
    pub head: SnapshotHead,
    /// Bytes of the body.
    pub body_bytes: u64,
    path: PathBuf,
    file: fs::File,
    hash: [u8; 32],
    head_bytes: [u8; HEAD_BYTES],
}

impl OpenSnapshot {
    /// Part of the body.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn read_at(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>, NodeError> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("a part")];
        self.file
            .read_exact_at(&mut bytes, BODY_OFFSET + range.start)
            .map_err(|e| NodeError::io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// What the body is to be checked with, part after part.
    pub fn checksum(&self) -> Checksum {
        let mut hasher = hasher();
        hasher.update(&self.head_bytes);
        Checksum {
            hasher,
            expected: self.hash,
        }
    }

    /// What `accept` makes of the body, if the file is whole.
    ///
    /// # Errors
    /// Why it is not, or what `accept` says.
    pub(crate) fn read<T, E: std::fmt::Display>(
        &self,
        accept: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    ) -> Result<T, String> {
        let mut body = self.body().map_err(|e| e.to_string())?;
        let accepted = accept(&mut body);
        match body.ends_whole() {
            Ok(true) => accepted.map_err(|e| e.to_string()),
            Ok(false) => Err("its checksum does not match".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The body as a stream, which is hashed on its way.
    fn body(&self) -> Result<Hashing<'_>, NodeError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(BODY_OFFSET))
            .map_err(|e| NodeError::io("read", &self.path, e))?;
        Ok(Hashing {
            reader: BufReader::with_capacity(BLOCK_BYTES, file.take(self.body_bytes)),
            checksum: self.checksum(),
        })
    }
}

/// Tells whether a snapshot is as it was written, once its body was read through.
pub struct Checksum {
    hasher: blake3::Hasher,
    expected: [u8; 32],
}

impl Checksum {
    /// Takes the next part of the body.
    pub fn update(&mut self, part: &[u8]) {
        self.hasher.update(part);
    }

    /// Whether all of it matches the checksum in the file.
    pub fn matches(&self) -> bool {
        *self.hasher.finalize().as_bytes() == self.expected
    }
}

/// A body on its way.
struct Hashing<'a> {
    reader: BufReader<io::Take<&'a fs::File>>,
    checksum: Checksum,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.checksum.update(&buffer[..read]);
        Ok(read)
    }
}

impl Hashing<'_> {
    /// Reads what is left and compares.
    fn ends_whole(mut self) -> io::Result<bool> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.checksum.matches())
    }
}

impl Snapshots {
    /// Opens the directory, making it if need be.
    ///
    /// # Errors
    /// `E_IO`, `E_DISK_FULL`.
    pub fn open(dir: &Path, chain_id: [u8; 32]) -> Result<Self, NodeError> {
        fs::create_dir_all(dir).map_err(|e| NodeError::io("create", dir, e))?;
        Ok(Self {
            dir: dir.to_owned(),
            chain_id,
        })
    }

    /// Writes a snapshot with the body that `write` gives, then removes those that are too old.
    ///
    /// # Errors
    /// `E_DISK_FULL`, `E_IO`: the older ones then stand.
    pub fn save(
        &self,
        head: &SnapshotHead,
        write: impl FnOnce(&mut BufWriter<&fs::File>) -> io::Result<()>,
    ) -> Result<(), NodeError> {
        let file = tempfile::NamedTempFile::new_in(&self.dir)
            .map_err(|e| NodeError::io("write", &self.dir, e))?;
        let mut out = BufWriter::with_capacity(BLOCK_BYTES, file.as_file());
        let written = out
            .seek(SeekFrom::Start(BODY_OFFSET))
            .and_then(|_| write(&mut out))
            .and_then(|()| out.flush());
        drop(out);
        written.map_err(|e| NodeError::io("write", file.path(), e))?;
        self.complete(head, file.into_temp_path())
    }

    /// Makes a fetched file, whose body stands where [`Self::body_offset`] says, the snapshot of `head`.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn adopt(&self, head: &SnapshotHead, fetched: &Path) -> Result<(), NodeError> {
        let file = tempfile::TempPath::try_from_path(fetched)
            .map_err(|e| NodeError::io("write", fetched, e))?;
        self.complete(head, file)
    }

    /// Writes what stands before the body of a file.
    fn complete(&self, head: &SnapshotHead, path: tempfile::TempPath) -> Result<(), NodeError> {
        let fail = |e| NodeError::io("write", &path, e);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        let body_bytes = file.metadata().map_err(fail)?.len() - BODY_OFFSET;
        let head_bytes = self.encode(head, body_bytes);
        let mut hasher = hasher();
        hasher.update(&head_bytes);
        (&file).seek(SeekFrom::Start(BODY_OFFSET)).map_err(fail)?;
        hasher.update_reader(&file).map_err(fail)?;
        file.write_all_at(&head_bytes, 0)
            .and_then(|()| file.write_all_at(hasher.finalize().as_bytes(), HEAD_BYTES as u64))
            .map_err(fail)?;
        self.put(head, path)
    }

    /// Gives a complete file its name.
    fn put(&self, head: &SnapshotHead, file: tempfile::TempPath) -> Result<(), NodeError> {
        let path = self.path(head.commit, head.starts_epoch);
        let fail = |e| NodeError::io("write", &path, e);
        fs::File::open(&file)
            .and_then(|f| f.sync_all())
            .map_err(fail)?;
        file.persist(&path).map_err(|e| fail(e.error))?;
        fs::File::open(&self.dir)
            .and_then(|d| d.sync_all())
            .map_err(fail)?;
        for starts_epoch in [false, true] {
            let mut files = self.files()?;
            files.retain(|(_, starts)| *starts == starts_epoch);
            files.truncate(files.len().saturating_sub(KEPT));
            for (commit, starts) in files {
                let path = self.path(commit, starts);
                fs::remove_file(&path).map_err(|e| NodeError::io("remove", &path, e))?;
            }
        }
        Ok(())
    }

    /// Where the body of a fetched file is to stand.
    pub fn body_offset() -> u64 {
        BODY_OFFSET
    }

    fn encode(&self, head: &SnapshotHead, body_bytes: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.chain_id);
        bytes.extend_from_slice(&head.commit.to_le_bytes());
        bytes.extend_from_slice(&head.commit_digest);
        bytes.extend_from_slice(&head.transactions.to_le_bytes());
        bytes.extend_from_slice(&head.epoch.to_le_bytes());
        bytes.extend_from_slice(&body_bytes.to_le_bytes());
        array(&bytes)
    }

    /// The snapshot of the state after `commit`, with which an epoch starts, if it is there and has a head. Whether it is
    /// whole is for whoever reads it through to see ([`OpenSnapshot::checksum`]).
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn epoch_start(&self, commit: u64) -> Result<Option<OpenSnapshot>, NodeError> {
        self.open_file(commit, true)
    }

    /// The commits of the snapshots with which epochs start, ascending.
    ///
    /// # Errors
    /// `E_IO`.
    pub(crate) fn epoch_starts(&self) -> Result<Vec<u64>, NodeError> {
        let files = self.files()?.into_iter();
        Ok(files
            .filter_map(|(commit, starts)| starts.then_some(commit))
            .collect())
    }

    /// A file in this directory for a snapshot that is being fetched.
    pub fn incoming(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("incoming.{extension}"))
    }

    /// The newest snapshot that is whole and from whose body `accept` makes something.
    ///
    /// # Errors
    /// `E_NEWER_FORMAT`, `E_WRONG_NETWORK`, `E_IO`. Damage is no error: the log holds everything.
    pub fn newest<T>(
        &self,
        mut accept: impl FnMut(&SnapshotHead, &mut dyn Read) -> Result<T, String>,
    ) -> Result<Option<(SnapshotHead, T)>, NodeError> {
        for (commit, starts_epoch) in self.files()?.into_iter().rev() {
            let damaged = || "its checksum does not match".to_owned();
            let outcome = match self.open_file(commit, starts_epoch)? {
                None => Err(damaged()),
                Some(snapshot) => {
                    let mut body = snapshot.body()?;
                    let accepted = accept(&snapshot.head, &mut body);
                    // Damage explains what does not make sense.
                    match body.ends_whole() {
                        Ok(true) if snapshot.head_bytes[12..44] != self.chain_id => {
                            return Err(NodeError::WrongNetwork {
                                dir: snapshot.path,
                                found: hex::encode(&snapshot.head_bytes[12..44]),
                                expected: hex::encode(self.chain_id),
                            });
                        }
                        Ok(true) => accepted.map(|accepted| (snapshot.head, accepted)),
                        Ok(false) => Err(damaged()),
                        Err(error) => Err(error.to_string()),
                    }
                }
            };
            match outcome {
                Ok(found) => return Ok(Some(found)),
                Err(why) => {
                    let path = self.path(commit, starts_epoch);
                    tracing::warn!(code = "E_SNAPSHOT_DAMAGED", path = %path.display(), %why, "passed over a snapshot of the ledger; the event log makes up for it");
                }
            }
        }
        Ok(None)
    }

    /// Opens a snapshot; `None` if there is none, or nothing that looks like one.
    fn open_file(
        &self,
        commit: u64,
        starts_epoch: bool,
    ) -> Result<Option<OpenSnapshot>, NodeError> {
        let path = self.path(commit, starts_epoch);
        let fail = |e| NodeError::io("read", &path, e);
        let mut file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let file_bytes = file.metadata().map_err(fail)?.len();
        let (mut head, mut hash) = ([0; HEAD_BYTES], [0; 32]);
        if file_bytes < BODY_OFFSET {
            return Ok(None);
        }
        file.read_exact(&mut head)
            .and_then(|()| file.read_exact(&mut hash))
            .map_err(fail)?;
        let format = u32::from_le_bytes(array(&head[8..12]));
        let body_bytes = u64::from_le_bytes(array(&head[100..108]));
        if &head[..8] != MAGIC || format < FORMAT {
            return Ok(None);
        }
        if format > FORMAT {
            return Err(NodeError::NewerFormat {
                path,
                found: format,
                known: FORMAT,
            });
        }
        if body_bytes != file_bytes - BODY_OFFSET {
            return Ok(None);
        }
        Ok(Some(OpenSnapshot {
            head: SnapshotHead {
                commit: u64::from_le_bytes(array(&head[44..52])),
                commit_digest: array(&head[52..84]),
                transactions: u64::from_le_bytes(array(&head[84..92])),
                epoch: u64::from_le_bytes(array(&head[92..100])),
                starts_epoch,
            },
            body_bytes,
            path,
            file,
            hash,
            head_bytes: head,
        }))
    }

    fn path(&self, commit: u64, starts_epoch: bool) -> PathBuf {
        let prefix = if starts_epoch {
            EPOCH_PREFIX
        } else {
            LEDGER_PREFIX
        };
        self.dir.join(format!("{prefix}{commit:016}.snap"))
    }

    /// All snapshots, ascending by commit.
    fn files(&self) -> Result<Vec<(u64, bool)>, NodeError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| NodeError::io("list", &self.dir, e))? {
            let name = entry
                .map_err(|e| NodeError::io("list", &self.dir, e))?
                .file_name();
            let Some(name) = name.to_str().and_then(|n| n.strip_suffix(".snap")) else {
                continue;
            };
            let commit = |prefix: &str| name.strip_prefix(prefix)?.parse::<u64>().ok();
            files.extend(commit(LEDGER_PREFIX).map(|commit| (commit, false)));
            files.extend(commit(EPOCH_PREFIX).map(|commit| (commit, true)));
        }
        files.sort_unstable();
        Ok(files)
    }
}

fn hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("dagger ledger snapshot file v1")
}
