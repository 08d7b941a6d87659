//! The data directory: its layout, its lock, and the mark that says which network and format it holds.
//!
//! ```text
//! node.toml genesis.json format.json lock keys/ events/ state/ blobs/ vms/ evidence/
//! ```
//! Must not live here: the contents of the parts.

use std::{
    fs,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// Newest format of the directory this program reads and writes.
pub const FORMAT: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct FormatFile {
    format: u32,
    chain_id: String,
}

/// An opened data directory. While it exists no other process can open the same one.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

impl DataDir {
    /// Locks `path` and checks that it belongs to the network `chain_id`; marks it if it is new.
    ///
    /// # Errors
    /// `E_DATA_DIR_LOCKED`, `E_WRONG_NETWORK`, `E_NEWER_FORMAT`, `E_OLDER_FORMAT`, `E_CONFIG_INVALID`, `E_IO`; on all of them nothing but
    /// the lock file was written.
    pub fn open(path: &Path, chain_id: &[u8; 32]) -> Result<Self, NodeError> {
        fs::create_dir_all(path).map_err(|e| NodeError::io("create", path, e))?;
        let lock = lock(path)?;
        let expected = hex::encode(chain_id);
        let mark_path = path.join("format.json");
        match fs::read_to_string(&mark_path) {
            Ok(text) => check_mark(path, &mark_path, &text, &expected)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mark = FormatFile {
                    format: FORMAT,
                    chain_id: expected,
                };
                let mut text = serde_json::to_vec_pretty(&mark).expect("a mark is plain data");
                text.push(b'\n');
                write_atomically(&mark_path, &text)?;
            }
            Err(e) => return Err(NodeError::io("read", &mark_path, e)),
        }
        for part in ["events", "blobs", "vms", "evidence"] {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(|e| NodeError::io("create", &part, e))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Path of a part of the directory.
    pub fn join(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(path: &Path) -> Result<Flock<fs::File>, NodeError> {
    let lock_path = path.join("lock");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|e| NodeError::io("open", &lock_path, e))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            // The holder's pid is for people; the lock itself is the kernel's and dies with the process.
            let _ = held
                .set_len(0)
                .and_then(|()| held.rewind())
                .and_then(|()| writeln!(held, "{}", std::process::id()));
            Ok(held)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() {
                "unknown".into()
            } else {
                pid.trim().to_owned()
            };
            Err(NodeError::DataDirLocked {
                dir: path.to_owned(),
                pid,
            })
        }
        Err((_, errno)) => Err(NodeError::io("lock", &lock_path, errno.into())),
    }
}

fn check_mark(dir: &Path, mark_path: &Path, text: &str, expected: &str) -> Result<(), NodeError> {
    // The number is read first and alone: a later format may have other fields.
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|e| NodeError::ConfigInvalid {
            path: mark_path.to_owned(),
            detail: format!("not a format mark: {e}"),
        })?;
    let format = value
        .get("format")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    let format = u32::try_from(format).unwrap_or(u32::MAX);
    if format > FORMAT {
        return Err(NodeError::NewerFormat {
            path: dir.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    if format < FORMAT {
        return Err(NodeError::OlderFormat {
            path: dir.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    let mark: FormatFile = serde_json::from_value(value).map_err(|e| NodeError::ConfigInvalid {
        path: mark_path.to_owned(),
        detail: format!("not a format mark: {e}"),
    })?;
    if mark.chain_id != expected {
        return Err(NodeError::WrongNetwork {
            dir: dir.to_owned(),
            found: mark.chain_id,
            expected: expected.to_owned(),
        });
    }
    Ok(())
}

/// Replaces a file so that a crash leaves the old one or the new one, never a mixture.
///
/// # Errors
/// `E_IO`, `E_DISK_FULL`; the old file then stands.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), NodeError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let fail = |e| NodeError::io("write", path, e);
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(fail)
}
