//! The bounded queue between execution and the thread that writes the index. Execution waits only while it is full.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use shadowgraph::CheckpointCertificate;

use super::{older::Joined, record::Executed};

/// Notes that may wait.
const WAITING_MAX: usize = 256;
/// Notes that are written at once.
const GROUP_MAX: usize = 128;
/// How long the first note of a group waits for more: a batch costs about as much as a hundred transactions in it.
const GATHER: Duration = Duration::from_millis(50);

/// What the index is told, in order.
pub(crate) enum Note {
    /// What follows was executed on the state after this commit.
    From(u64),
    /// A commit without transactions.
    Empty(u64),
    /// A commit with some.
    Executed(Box<Executed>),
    /// A checkpoint was certified.
    Certificate(Box<CheckpointCertificate>),
    /// What is older than all that it holds is written.
    Older(Joined),
}

impl Note {
    fn commit(&self) -> Option<u64> {
        match self {
            Self::From(commit) | Self::Empty(commit) => Some(*commit),
            Self::Executed(executed) => Some(executed.link.commit),
            Self::Certificate(_) | Self::Older(_) => None,
        }
    }
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Note>,
    /// All notes up to this commit are written.
    written: u64,
    /// Somebody waits for what is in the queue.
    urgent: bool,
    /// The node stops: what comes is still written, but a full disk is no longer waited for.
    stopping: bool,
    /// Nothing more will come.
    closed: bool,
    /// Writing does not succeed at the moment.
    failing: bool,
    /// Nothing more is written.
    off: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// To the writer: there is something to do.
    work: Condvar,
    /// From the writer: something was done.
    done: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    /// Hands a note over; waits while too many wait.
    pub fn push(&self, note: Note) {
        let mut inner = self.lock();
        while inner.waiting.len() >= WAITING_MAX && !inner.off {
            if inner.stopping && inner.failing {
                // One that is left out makes a hole of all that follow: leave them out too, they come again with the next start.
                inner.off = true;
                break;
            }
            inner = self.done.wait(inner).expect("no holder panics");
        }
        if inner.off {
            return;
        }
        if let (Note::Empty(commit), Some(Note::Empty(last))) = (&note, inner.waiting.back_mut()) {
            *last = *commit;
        } else {
            inner.waiting.push_back(note);
        }
        // The first one starts the clock of its group; after that only a full group is news.
        if inner.waiting.len() == 1 || inner.waiting.len() >= GROUP_MAX {
            self.work.notify_one();
        }
    }

    /// The next notes to write; `None` once nothing more will come and all are written, or nothing is to be written any more.
    pub fn take(&self) -> Option<Vec<Note>> {
        let mut inner = self.lock();
        while inner.waiting.is_empty() && !inner.closed && !inner.off {
            inner = self.work.wait(inner).expect("no holder panics");
        }
        let until = Instant::now() + GATHER;
        while inner.waiting.len() < GROUP_MAX && !inner.urgent && !inner.stopping && !inner.off {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.work.wait_timeout(inner, left);
            inner = waited.expect("no holder panics").0;
        }
        if inner.off || inner.waiting.is_empty() {
            return None;
        }
        let group = inner.waiting.len().min(GROUP_MAX);
        let notes = inner.waiting.drain(..group).collect();
        // Room is made at once: the group is in the writer's hands.
        self.done.notify_all();
        Some(notes)
    }

    /// The writer has written these.
    pub fn written(&self, notes: &[Note]) {
        let mut inner = self.lock();
        let last = notes.iter().rev().find_map(Note::commit);
        inner.written = last.unwrap_or(inner.written);
        inner.failing = false;
        if inner.waiting.is_empty() {
            inner.urgent = false;
        }
        self.done.notify_all();
    }

    /// Writing failed and will be tried again. False if it is to be left because the node stops.
    pub fn failing(&self, patience: Duration) -> bool {
        let mut inner = self.lock();
        inner.failing = true;
        self.done.notify_all();
        let until = Instant::now() + patience;
        while !inner.stopping && !inner.off {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.work.wait_timeout(inner, left);
            inner = waited.expect("no holder panics").0;
        }
        false
    }

    /// Nothing is written any more, and nobody waits.
    pub fn turn_off(&self) {
        let mut inner = self.lock();
        inner.off = true;
        inner.waiting.clear();
        self.work.notify_all();
        self.done.notify_all();
    }

    /// The node stops.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Whether the node stops, or nothing is written any more.
    pub fn is_stopping(&self) -> bool {
        let inner = self.lock();
        inner.stopping || inner.off
    }

    /// Nothing more will come: the writer ends with what waits.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.closed = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// The last commit up to which everything is written; all are, as far as it ever will be, when nothing is written any more.
    pub fn reached(&self) -> u64 {
        let inner = self.lock();
        if inner.off { u64::MAX } else { inner.written }
    }

    /// Waits until everything up to `commit` is written. False if it never will be.
    pub fn wait_for(&self, commit: u64) -> bool {
        let mut inner = self.lock();
        while inner.written < commit && !inner.off && !(inner.stopping && inner.failing) {
            inner.urgent = true;
            self.work.notify_one();
            inner = self.done.wait(inner).expect("no holder panics");
        }
        inner.written >= commit && !inner.off
    }
}
