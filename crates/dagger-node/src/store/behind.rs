//! Writes a log's bytes to the disk soon after the kernel has taken them, and then gives their memory back. Otherwise gigabytes
//! gather in the page cache, for a log that hardly anybody reads again, until the kernel writes them all at once and holds up
//! whoever writes meanwhile.
//!
//! What must not live here: durability. Nothing waits for these writes and nothing is safer for them; `fsync` is the log's.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes written at once.
const CHUNK_BYTES: u64 = 8 << 20;
/// Chunks that are being written; an older one is on disk, and leaves memory.
const WRITING_MAX: usize = 4;
/// Chunks that may wait for the thread. When the disk is slower than that, the kernel writes the rest as it sees fit.
const QUEUE_MAX: usize = 64;

/// A part of a segment that is written and will not change.
#[derive(Clone)]
struct Chunk {
    file: Arc<File>,
    offset: u64,
    bytes: u64,
}

/// Cuts what is written to one log into chunks.
#[derive(Default)]
pub(super) struct Behind {
    /// The end of the last chunk in the active segment.
    done: u64,
    /// To the thread, which starts with the first chunk.
    chunks: Option<SyncSender<Chunk>>,
}

impl Behind {
    /// The active segment is `written` bytes long now.
    pub fn written(&mut self, file: &Arc<File>, written: u64) {
        if written < self.done + CHUNK_BYTES {
            return;
        }
        // Whole pages: the last one is still written to.
        let end = written / 4096 * 4096;
        self.hand_over(file, end);
        self.done = end;
    }

    /// The active segment ends here, and another begins.
    pub fn closed(&mut self, file: &Arc<File>, written: u64) {
        // A log that has never filled a chunk is small.
        if self.chunks.is_some() {
            self.hand_over(file, written);
        }
        self.done = 0;
    }

    fn hand_over(&mut self, file: &Arc<File>, end: u64) {
        if end <= self.done {
            return;
        }
        let chunk = Chunk {
            file: Arc::clone(file),
            offset: self.done,
            bytes: end - self.done,
        };
        let chunks = self.chunks.get_or_insert_with(start);
        // Full, or its thread could not be started: the kernel writes it at some time.
        let _ = chunks.try_send(chunk);
    }
}

fn start() -> SyncSender<Chunk> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let thread = std::thread::Builder::new().name("log-behind".into());
    if let Err(error) = thread.spawn(move || run(&receiver, advise)) {
        tracing::warn!(%error, "cannot start the thread that writes the log to disk early");
    }
    sender
}

/// Names every chunk to the kernel twice: when it comes, and when enough have come after it. Ends with the log.
fn run(chunks: &Receiver<Chunk>, mut advise: impl FnMut(&Chunk)) {
    let mut writing = VecDeque::new();
    while let Ok(chunk) = chunks.recv() {
        advise(&chunk);
        writing.push_back(chunk);
        if writing.len() > WRITING_MAX {
            let written = writing.pop_front().expect("not empty");
            advise(&written);
        }
    }
}

/// Linux begins to write what is dirty of it, and drops what is clean: the first time it does the one, the second time the other.
fn advise(chunk: &Chunk) {
    let (Ok(offset), Ok(bytes)) = (chunk.offset.try_into(), chunk.bytes.try_into()) else {
        return;
    };
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    // A file system that cannot do that does as it always does.
    let _ = posix_fadvise(&*chunk.file, offset, bytes, advice);
}

#[cfg(test)]
#[path = "behind_tests.rs"]
mod tests;
