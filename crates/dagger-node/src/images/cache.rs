//! What the image store keeps and for how long: sizes, last use, eviction, uploads, hashing of files.

use std::{
    fs::{File, FileTimes},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    Images,
    error::ImageError,
    part::{make_read_only, sync_parent, write_sparse_at},
};

/// Interrupted transfers that nobody took up again for this long are removed.
const STALE_PART_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// What a file looked like when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Stamp> {
        let metadata = std::fs::metadata(path)?;
        Ok(Stamp {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// A complete blob as the cache sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) bytes: u64,
    pub(super) last_used: SystemTime,
    pub(super) kept: bool,
}

/// The complete blobs in `files/`. Other names are ignored.
pub(super) fn list(files: &Path) -> io::Result<Vec<([u8; 32], Held)>> {
    let mut held = Vec::new();
    for entry in std::fs::read_dir(files)? {
        let entry = entry?;
        let mut digest = [0; 32];
        let name = entry.file_name();
        if name
            .to_str()
            .is_none_or(|name| hex::decode_to_slice(name, &mut digest).is_err())
        {
            continue;
        }
        let metadata = entry.metadata()?;
        let kept = entry.path().with_extension("kept").exists();
        held.push((
            digest,
            Held {
                bytes: metadata.len(),
                last_used: metadata.accessed()?,
                kept,
            },
        ));
    }
    Ok(held)
}

/// Notes a use of the blob, in the access time that we set ourselves (a mount may not).
pub(super) fn touch(path: &Path) {
    let set = File::open(path)
        .and_then(|file| file.set_times(FileTimes::new().set_accessed(SystemTime::now())));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot note the use of a blob");
    }
}

/// The BLAKE3 digest of a whole file.
pub(super) async fn hash_file(path: PathBuf) -> io::Result<[u8; 32]> {
    let hash = move || -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(*hasher.finalize().as_bytes()),
                read => hasher.update(&buffer[..read]),
            };
        }
    };
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(io::Error::other)?
}

/// Removes what interrupted uploads left and transfers that nobody resumes.
pub(super) fn remove_stale_parts(parts: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(parts)? {
        let entry = entry?;
        let is_upload = entry.file_name().to_string_lossy().ends_with(".tmp");
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if is_upload || age > STALE_PART_AGE {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file when dropped, if it is still there.
pub(super) struct RemoveOnDrop(pub(super) PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A blob coming in whose digest is not known before its end.
pub(super) struct Upload {
    file: std::sync::Arc<File>,
    path: PathBuf,
    hasher: blake3::Hasher,
    size: u64,
}

impl Upload {
    pub(super) async fn create(path: PathBuf) -> io::Result<Upload> {
        let file = std::sync::Arc::new(File::create(&path)?);
        Ok(Upload {
            file,
            path,
            hasher: blake3::Hasher::new(),
            size: 0,
        })
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.hasher.update(&bytes);
        let (file, offset) = (self.file.clone(), self.size);
        self.size += bytes.len() as u64;
        tokio::task::spawn_blocking(move || write_sparse_at(&file, &bytes, offset))
            .await
            .map_err(io::Error::other)?
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) async fn finish(self, target: PathBuf) -> io::Result<()> {
        let finish = move || {
            self.file.set_len(self.size)?;
            self.file.sync_all()?;
            make_read_only(&self.file)?;
            std::fs::rename(&self.path, &target)?;
            sync_parent(&target)
        };
        tokio::task::spawn_blocking(finish)
            .await
            .map_err(io::Error::other)?
    }
}

impl Images {
    /// Bytes of all complete blobs.
    pub fn used_bytes(&self) -> Result<u64, ImageError> {
        Ok(list(&self.files())?
            .iter()
            .map(|(_, held)| held.bytes)
            .sum())
    }

    /// Bytes of blobs that may not be evicted.
    pub(super) fn pinned_bytes(&self) -> Result<u64, ImageError> {
        let held = list(&self.files())?;
        let state = self.state();
        Ok(held
            .iter()
            .filter(|(digest, held)| held.kept || state.is_pinned(digest))
            .map(|(_, held)| held.bytes)
            .sum())
    }

    /// Evicts until `bytes` more fit, `except` not counted.
    pub(super) fn make_room(&self, bytes: u64, except: [u8; 32]) -> Result<(), ImageError> {
        let max = self.inner.limits.cache_bytes_max;
        let used = self.evict_to(max.saturating_sub(bytes), except)?;
        if used.saturating_add(bytes) > max {
            return Err(ImageError::StoreFull { used, max });
        }
        Ok(())
    }

    /// Evicts until the store is within its bound; `except` stays.
    pub(super) fn evict(&self, except: [u8; 32]) -> Result<(), ImageError> {
        self.evict_to(self.inner.limits.cache_bytes_max, except)
            .map(drop)
    }

    fn evict_to(&self, bytes_max: u64, except: [u8; 32]) -> Result<u64, ImageError> {
        let mut held = list(&self.files())?;
        let mut used: u64 = held.iter().map(|(_, held)| held.bytes).sum();
        held.sort_by_key(|(_, held)| held.last_used);
        for (digest, blob) in held {
            if used <= bytes_max {
                break;
            }
            let busy = {
                let state = self.state();
                state.is_pinned(&digest)
                    || state
                        .busy
                        .get(&digest)
                        .is_some_and(|lock| lock.try_lock().is_err())
            };
            if blob.kept || busy || digest == except {
                continue;
            }
            tracing::info!(digest = %hex::encode(digest), bytes = blob.bytes, "evicting the least recently used blob");
            self.forget(digest)?;
            used -= blob.bytes;
        }
        Ok(used)
    }

    /// Removes a blob from the disk; its index entry goes with the next sweep.
    pub(super) fn forget(&self, digest: [u8; 32]) -> Result<(), ImageError> {
        self.state().verified.remove(&digest);
        for path in [self.path(digest), self.kept_mark(digest)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let index = self.inner.index.clone();
        tokio::spawn(async move { index.tags().delete(hex::encode(digest)).await });
        Ok(())
    }
}
