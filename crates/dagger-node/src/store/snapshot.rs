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
    path::{Path, PathBuf},
};

use super::record::array;
use crate::{data_dir::write_atomically, error::NodeError};

const MAGIC: &[u8; 8] = b"DAGRSNAP";
const FORMAT: u32 = 2;
const HEAD_BYTES: usize = 8 + 4 + 32 + 8 + 32 + 8 + 8 + 8;
/// Snapshots kept of either kind: the newest, and one more in case the newest is damaged or is being fetched by a peer.
const KEPT: usize = 2;
const LEDGER_PREFIX: &str = "ledger-";
const EPOCH_PREFIX: &str = "epoch-";

/// A ledger's bytes with what they are the state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
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
    /// `Ledger::snapshot`.
    pub body: Vec<u8>,
}

/// The snapshots of one data directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    chain_id: [u8; 32],
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

    /// Writes a snapshot, then removes those that are too old.
    ///
    /// # Errors
    /// `E_DISK_FULL`, `E_IO`: the older ones then stand.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), NodeError> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 32 + snapshot.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.chain_id);
        bytes.extend_from_slice(&snapshot.commit.to_le_bytes());
        bytes.extend_from_slice(&snapshot.commit_digest);
        bytes.extend_from_slice(&snapshot.transactions.to_le_bytes());
        bytes.extend_from_slice(&snapshot.epoch.to_le_bytes());
        bytes.extend_from_slice(&(snapshot.body.len() as u64).to_le_bytes());
        let hash = checksum(&bytes, &snapshot.body);
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(&snapshot.body);
        write_atomically(&self.path(snapshot.commit, snapshot.starts_epoch), &bytes)?;
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

    /// The snapshot of the state after `commit`, with which an epoch starts, if it is there and whole.
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn epoch_start(&self, commit: u64) -> Result<Option<Snapshot>, NodeError> {
        let path = self.path(commit, true);
        match fs::read(&path) {
            Ok(bytes) => self.parse(&path, &bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(NodeError::io("read", &path, e)),
        }
    }

    /// A file in this directory for a snapshot that is being fetched.
    pub fn incoming(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("incoming.{extension}"))
    }

    /// The newest snapshot that is whole and that `accept` takes.
    ///
    /// # Errors
    /// `E_NEWER_FORMAT`, `E_WRONG_NETWORK`, `E_IO`. Damage is no error: the log holds everything.
    pub fn newest<T>(
        &self,
        mut accept: impl FnMut(&Snapshot) -> Result<T, String>,
    ) -> Result<Option<(Snapshot, T)>, NodeError> {
        for (commit, starts_epoch) in self.files()?.into_iter().rev() {
            let path = self.path(commit, starts_epoch);
            let bytes = fs::read(&path).map_err(|e| NodeError::io("read", &path, e))?;
            let outcome = self
                .parse(&path, &bytes)?
                .ok_or_else(|| "its checksum does not match".to_owned());
            match outcome.and_then(|s| accept(&s).map(|accepted| (s, accepted))) {
                Ok(found) => return Ok(Some(found)),
                Err(why) => {
                    tracing::warn!(code = "E_SNAPSHOT_DAMAGED", path = %path.display(), %why, "passed over a snapshot of the ledger; the event log makes up for it");
                }
            }
        }
        Ok(None)
    }

    fn parse(&self, path: &Path, bytes: &[u8]) -> Result<Option<Snapshot>, NodeError> {
        if bytes.len() < HEAD_BYTES + 32 || &bytes[..8] != MAGIC {
            return Ok(None);
        }
        let format = u32::from_le_bytes(array(&bytes[8..12]));
        if format < FORMAT {
            return Ok(None);
        }
        let (head, rest) = bytes.split_at(HEAD_BYTES);
        let (hash, body) = rest.split_at(32);
        if format > FORMAT {
            return Err(NodeError::NewerFormat {
                path: path.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        if checksum(head, body) != *hash {
            return Ok(None);
        }
        if head[12..44] != self.chain_id {
            return Err(NodeError::WrongNetwork {
                dir: path.to_owned(),
                found: hex::encode(&head[12..44]),
                expected: hex::encode(self.chain_id),
            });
        }
        Ok(Some(Snapshot {
            commit: u64::from_le_bytes(array(&head[44..52])),
            commit_digest: array(&head[52..84]),
            transactions: u64::from_le_bytes(array(&head[84..92])),
            epoch: u64::from_le_bytes(array(&head[92..100])),
            starts_epoch: path
                .file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with(EPOCH_PREFIX)),
            body: body.to_vec(),
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

fn checksum(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("dagger ledger snapshot file v1");
    hasher.update(head);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}
