//! One snapshot's chunks, from all peers that offer it at once, into a file that a later attempt goes on with.
//!
//! What must not live here: who the peers are, and whether the snapshot is what was certified.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};

use super::wire::{Answer, Manifest, Request, WireError};
use crate::{cores::blocking, error::NodeError, store::Snapshots};

/// How often progress is said.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Whoever can be asked.
pub(crate) trait Peer {
    /// What it is called.
    fn name(&self) -> &str;

    /// Its answer.
    async fn ask(&self, request: &Request) -> Result<Answer, WireError>;
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Download {
    /// Whether every chunk is in the file. If not, those that came are kept for the next attempt.
    pub whole: bool,
    /// Peers that gave something else than the chunk they had offered.
    pub blamed: BTreeSet<String>,
}

/// A snapshot on its way to a file, whose good chunks survive a restart.
struct Incoming {
    manifest: Manifest,
    file: fs::File,
    path: PathBuf,
}

impl Incoming {
    /// Opens the file; returns which chunks are missing. What is of another snapshot is fetched anew.
    fn open(path: PathBuf, manifest: Manifest) -> Result<(Self, Vec<u32>), NodeError> {
        let fail = |e| NodeError::io("write", &path, e);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        file.set_len(Snapshots::body_offset() + manifest.bytes)
            .map_err(fail)?;
        let count = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
        let incoming = Self {
            manifest,
            file,
            path,
        };
        let missing = (0..count).filter(|index| !incoming.has(*index)).collect();
        Ok((incoming, missing))
    }

    /// Whether a chunk is there: its bytes say so themselves.
    fn has(&self, index: u32) -> bool {
        let range = self.manifest.range(index);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let offset = Snapshots::body_offset() + range.start;
        self.file.read_exact_at(&mut bytes, offset).is_ok()
            && blake3::hash(&bytes).as_bytes() == &self.manifest.chunks[index as usize]
    }

    /// Keeps a chunk if it is the right one.
    fn put(&self, index: u32, bytes: &[u8]) -> Result<bool, NodeError> {
        if blake3::hash(bytes).as_bytes() != &self.manifest.chunks[index as usize] {
            return Ok(false);
        }
        let offset = Snapshots::body_offset() + self.manifest.range(index).start;
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| NodeError::io("write", &self.path, e))?;
        Ok(true)
    }
}

/// Fetches the chunks of a snapshot into a file.
///
/// # Errors
/// `E_DISK_FULL`, `E_IO`. What peers fail to do is no error.
pub(super) async fn download(
    file: PathBuf,
    manifest: &Manifest,
    sources: &[impl Peer],
) -> Result<Download, NodeError> {
    let of = manifest.clone();
    let opened = blocking("opening a snapshot", move || Incoming::open(file, of));
    let (incoming, missing) = opened.await?;
    tracing::info!(
        epoch = manifest.epoch,
        bytes = manifest.bytes,
        chunks = manifest.chunks.len(),
        missing = missing.len(),
        peers = sources.len(),
        "fetching the ledger"
    );
    let progress = Progress {
        incoming,
        missing: Mutex::new(missing),
        said: Mutex::new(Instant::now()),
        blamed: Mutex::default(),
    };
    let mut able: Vec<_> = sources.iter().collect();
    // What one of them failed to give in the end is for the others.
    while !able.is_empty() && !progress.is_complete() {
        // Two requests of each peer under way at a time keep its line busy.
        let workers = able
            .iter()
            .map(|peer| join(progress.fetch_from(*peer), progress.fetch_from(*peer)));
        let mut still_able = Vec::new();
        for (peer, done) in able.iter().zip(join_all(workers).await) {
            if done.0? & done.1? {
                still_able.push(*peer);
            }
        }
        able = still_able;
    }
    Ok(Download {
        whole: progress.is_complete(),
        blamed: progress.blamed.into_inner().expect("no holder panics"),
    })
}

/// Chunks on their way from several peers.
struct Progress {
    incoming: Incoming,
    missing: Mutex<Vec<u32>>,
    said: Mutex<Instant>,
    blamed: Mutex<BTreeSet<String>>,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.missing.lock().expect("no holder panics").is_empty()
    }

    /// Takes chunks from one peer until none is left to ask for; false if the peer fails.
    async fn fetch_from(&self, peer: &impl Peer) -> Result<bool, NodeError> {
        loop {
            let Some(index) = self.missing.lock().expect("no holder panics").pop() else {
                return Ok(true);
            };
            let request = Request::Chunk {
                epoch: self.incoming.manifest.epoch,
                index,
            };
            let kept = match peer.ask(&request).await {
                Ok(Answer::Chunk(Some(bytes))) => self.incoming.put(index, &bytes),
                Ok(Answer::Chunk(None)) | Err(_) => {
                    tracing::warn!(peer = %peer.name(), index, "a peer did not give a chunk of the ledger; asking others");
                    self.give_back(index);
                    return Ok(false);
                }
                Ok(_) => Ok(false),
            };
            if !matches!(kept, Ok(true)) {
                self.give_back(index);
                kept?;
                let mut blamed = self.blamed.lock().expect("no holder panics");
                blamed.insert(peer.name().to_owned());
                return Ok(false);
            }
            self.say();
        }
    }

    fn give_back(&self, index: u32) {
        self.missing.lock().expect("no holder panics").push(index);
    }

    fn say(&self) {
        let mut said = self.said.lock().expect("no holder panics");
        if said.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        *said = Instant::now();
        let missing = self.missing.lock().expect("no holder panics").len();
        let chunks = self.incoming.manifest.chunks.len();
        tracing::info!(chunks, missing, "fetching the ledger");
    }
}
