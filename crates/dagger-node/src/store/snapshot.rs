//! Snapshots of the ledger, so that a restart need not execute history again.
//!
//! `state/ledger-<commit>.snap` = magic 8 | format u32 | chain id 32 | commit u64 | commit digest 32 | transactions u64
//! | body length u64 | BLAKE3 of all of that and the body 32 | body. A snapshot is a cache of what the event log
//! says: one that does not verify is passed over, and then the one before it or the genesis is the start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::record::array;
use crate::{data_dir::write_atomically, error::NodeError};

const MAGIC: &[u8; 8] = b"DAGRSNAP";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 8 + 4 + 32 + 8 + 32 + 8 + 8;
/// Snapshots kept: the newest, and one more in case the newest is damaged.
const KEPT: usize = 2;

/// A ledger's bytes with what they are the state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Last commit executed.
    pub commit: u64,
    /// Its chained digest.
    pub commit_digest: [u8; 32],
    /// Transactions executed up to it.
    pub transactions: u64,
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
        bytes.extend_from_slice(&(snapshot.body.len() as u64).to_le_bytes());
        let hash = checksum(&bytes, &snapshot.body);
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(&snapshot.body);
        write_atomically(&self.path(snapshot.commit), &bytes)?;
        let mut commits = self.commits()?;
        commits.truncate(commits.len().saturating_sub(KEPT));
        for old in commits {
            let path = self.path(old);
            fs::remove_file(&path).map_err(|e| NodeError::io("remove", &path, e))?;
        }
        Ok(())
    }

    /// The newest snapshot that is whole and that `accept` takes.
    ///
    /// # Errors
    /// `E_NEWER_FORMAT`, `E_WRONG_NETWORK`, `E_IO`. Damage is no error: the log holds everything.
    pub fn newest<T>(
        &self,
        mut accept: impl FnMut(&Snapshot) -> Result<T, String>,
    ) -> Result<Option<(Snapshot, T)>, NodeError> {
        for commit in self.commits()?.into_iter().rev() {
            let path = self.path(commit);
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
            body: body.to_vec(),
        }))
    }

    fn path(&self, commit: u64) -> PathBuf {
        self.dir.join(format!("ledger-{commit:016}.snap"))
    }

    /// Commits of all snapshots, ascending.
    fn commits(&self) -> Result<Vec<u64>, NodeError> {
        let mut commits = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| NodeError::io("list", &self.dir, e))? {
            let name = entry
                .map_err(|e| NodeError::io("list", &self.dir, e))?
                .file_name();
            let number = name.to_str().and_then(|n| {
                n.strip_prefix("ledger-")?
                    .strip_suffix(".snap")?
                    .parse::<u64>()
                    .ok()
            });
            commits.extend(number);
        }
        commits.sort_unstable();
        Ok(commits)
    }
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("dagger ledger snapshot file v1");
    hasher.update(head);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}
