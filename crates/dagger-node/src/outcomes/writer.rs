//! The thread that owns the index: opens it, writes what the queue brings, and deals with a disk that is full and with damage.
//!
//! A full disk is waited for, as the event log waits for it: execution stands once the queue is full, and goes on when there is
//! space. Damage is set aside for whoever wants to look at it, and the index begins anew. Neither ends the node.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dagger_client::api::{OutcomesRebuild, OutcomesStatus};
use nix::sys::statvfs::statvfs;

use super::{
    index::{Index, IndexError, Mark},
    queue::{Note, Queue},
};
use crate::{
    config::{Durability, NodeConfig},
    doctor::bytes_in,
};

/// Code of the standing problem while the index is not written.
const PROBLEM: &str = "E_OUTCOME_INDEX";
/// Code of the standing problem once a question has met damage.
pub(super) const DAMAGED: &str = "E_OUTCOME_DAMAGED";
/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// With less free space than this, a write that failed in the background is taken for lack of space.
const FREE_MIN_BYTES: u64 = 256 << 20;
/// How often an index that another one holds open is tried again: whoever reads it at the moment is soon done.
const LOCKED_TRIES: u32 = 20;
/// How old the number of bytes on disk may become while the index is written.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// What keeps the node from doing its whole job, by code.
type Problems = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// The node's index of outcomes. It closes when told to, or when dropped.
pub(crate) struct OutcomeIndex {
    pub(super) inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Reads what is older from the logs.
    pub(super) rebuilder: Mutex<Option<std::thread::JoinHandle<()>>>,
}

pub(super) struct Inner {
    dir: PathBuf,
    keep: u64,
    durable: bool,
    pub(super) queue: Queue,
    state: Mutex<State>,
    /// How far the logs have been read for what is older.
    pub(super) rebuild: Mutex<Option<OutcomesRebuild>>,
    opened: Condvar,
    bytes: AtomicU64,
    /// The first commit of this run; 0 before it is known.
    began: AtomicU64,
    problems: Problems,
}

enum State {
    Opening,
    Open(Arc<Index>, Mark),
    Closed,
}

impl OutcomeIndex {
    /// Opens the index of a node and keeps it open, on a thread of its own.
    pub fn start(config: &NodeConfig, problems: Problems) -> Self {
        let keep = config.store.outcomes.transactions();
        let this = Self::new(config, keep, problems);
        if keep == 0 {
            this.inner.turn_off();
            return this;
        }
        let inner = Arc::clone(&this.inner);
        let thread = std::thread::Builder::new().name("outcomes".into());
        match thread.spawn(move || Writer::new(inner).run()) {
            Ok(thread) => *this.thread.lock().expect("no holder panics") = Some(thread),
            Err(error) => {
                this.inner.give_up(&format!("no thread for it: {error}"));
            }
        }
        this
    }

    /// None: for a node without a ledger.
    pub fn none(config: &NodeConfig) -> Self {
        let this = Self::new(config, 0, Problems::default());
        this.inner.turn_off();
        this
    }

    fn new(config: &NodeConfig, keep: u64, problems: Problems) -> Self {
        let inner = Inner {
            dir: config.data_dir.join("outcomes"),
            keep,
            durable: config.durability == Durability::Fsync,
            queue: Queue::default(),
            state: Mutex::new(State::Opening),
            rebuild: Mutex::default(),
            opened: Condvar::new(),
            bytes: AtomicU64::new(0),
            began: AtomicU64::new(0),
            problems,
        };
        Self {
            inner: Arc::new(inner),
            thread: Mutex::new(None),
            rebuilder: Mutex::new(None),
        }
    }

    /// Tells the index what was executed or certified. Waits only while too much waits to be written.
    pub fn note(&self, note: Note) {
        if let Note::From(commit) = &note {
            self.inner.began.store(commit + 1, Ordering::Release);
        }
        self.inner.queue.push(note);
    }

    /// The last commit up to which the index holds what it was told; the largest number if it takes nothing.
    pub fn reached(&self) -> u64 {
        self.inner.queue.reached()
    }

    /// Waits until the index holds everything up to `commit`, as safe as this node wants its writes: what a snapshot of the state
    /// after it makes nobody execute again.
    pub fn settle(&self, commit: u64) {
        if self.inner.queue.wait_for(commit)
            && self.inner.durable
            && let Some(index) = self.read()
            && let Err(error) = index.sync()
        {
            // The writer meets the same.
            tracing::warn!(%error, "cannot sync the index of outcomes");
        }
    }

    /// The index, for reading; waits while it is being opened. `None` if there is none at the moment.
    pub(super) fn read(&self) -> Option<Arc<Index>> {
        self.read_marked().map(|(index, _)| index)
    }

    /// As [`Self::read`], with how far it goes.
    pub(super) fn read_marked(&self) -> Option<(Arc<Index>, Mark)> {
        let mut state = self.inner.state.lock().expect("no holder panics");
        loop {
            match &*state {
                State::Opening => state = self.inner.opened.wait(state).expect("no holder panics"),
                State::Open(index, mark) => return Some((Arc::clone(index), *mark)),
                State::Closed => return None,
            }
        }
    }

    /// What the index holds; `None` while there is none, or it was not told yet what the ledger's state begins with.
    pub fn status(&self) -> Option<OutcomesStatus> {
        let rebuild = *self.inner.rebuild.lock().expect("no holder panics");
        match &*self.inner.state.lock().expect("no holder panics") {
            State::Open(_, mark) => {
                // What an index that is new holds is what this run executes, the part that is yet to be written included.
                let from_commit = match mark.known_from() {
                    0 => self.inner.began.load(Ordering::Acquire),
                    commit => commit,
                };
                (from_commit > 0).then(|| OutcomesStatus {
                    from_commit,
                    transactions: mark.transactions,
                    disk_bytes: self.inner.bytes.load(Ordering::Relaxed),
                    rebuild,
                })
            }
            _ => None,
        }
    }

    /// A question has met damage; returns what is said of it.
    pub(super) fn damaged(&self, why: &str) -> String {
        let text = format!(
            "the index of outcomes in {} is damaged ({why}): some questions about the past are not answered. Stop the node, move that directory away, and start it again: it is filled from the node's logs as far as they go back",
            self.inner.dir.display()
        );
        let mut problems = self.inner.problems.lock().expect("no holder panics");
        problems.insert(DAMAGED, text.clone());
        text
    }

    /// The node stops: from here on nobody waits for a disk that is full.
    pub fn stop(&self) {
        self.inner.queue.stop();
    }

    /// Writes what waits and closes the index; blocks meanwhile.
    pub fn close(&self) {
        self.inner.queue.close();
        for thread in [&self.rebuilder, &self.thread] {
            let thread = thread.lock().expect("no holder panics").take();
            // A panic there has been printed.
            let _ = thread.map(std::thread::JoinHandle::join);
        }
    }
}

impl Drop for OutcomeIndex {
    fn drop(&mut self) {
        self.inner.queue.close();
    }
}

impl Drop for Writer {
    /// Nobody waits for a writer that is gone.
    fn drop(&mut self) {
        self.open = None;
        self.inner.turn_off();
    }
}

impl Inner {
    fn set_problem(&self, text: Option<String>) {
        let mut problems = self.problems.lock().expect("no holder panics");
        match text {
            Some(text) => problems.insert(PROBLEM, text),
            None => problems.remove(PROBLEM),
        };
    }

    fn set_state(&self, state: State) {
        let before = std::mem::replace(&mut *self.state.lock().expect("no holder panics"), state);
        self.opened.notify_all();
        // Closing takes a while: not under the lock.
        drop(before);
    }

    fn turn_off(&self) {
        self.set_state(State::Closed);
        self.queue.turn_off();
    }

    /// The node goes on without an index until its next start.
    fn give_up(&self, why: &str) {
        tracing::error!(code = PROBLEM, %why, "no index of outcomes until the next start");
        self.set_problem(Some(format!(
            "the index of outcomes in {} cannot be used ({why}): receipts of the newest transactions only. Move that directory away and start the node again",
            self.dir.display()
        )));
        self.turn_off();
    }
}

struct Writer {
    inner: Arc<Inner>,
    open: Option<(Arc<Index>, Mark)>,
    /// It was set aside since the start.
    was_set_aside: bool,
    measured: Option<Instant>,
}

impl Writer {
    fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            open: None,
            was_set_aside: false,
            measured: None,
        }
    }

    fn run(mut self) {
        // Nothing to write is enough to open it: readers wait for that.
        if self.write(&[]) {
            while let Some(notes) = self.inner.queue.take() {
                if !self.write(&notes) {
                    break;
                }
                self.inner.queue.written(&notes);
            }
        }
    }

    /// Writes a group, however long it takes; false if nothing more is to be written.
    fn write(&mut self, notes: &[Note]) -> bool {
        let mut tries = 0;
        let mut waited = false;
        loop {
            let error = match self.try_write(notes) {
                Ok(()) => break,
                Err(error) => error,
            };
            self.open = None;
            self.inner.set_state(State::Closed);
            tries += 1;
            let passing = error.is_locked() || error.is_poisoned();
            if self.lacks_space(&error) {
                if !std::mem::replace(&mut waited, true) {
                    tracing::error!(code = PROBLEM, %error, "the index of outcomes waits until there is space");
                    let text = "the disk is full: outcomes are not written, and the node waits before it executes much more";
                    self.inner.set_problem(Some(text.into()));
                }
                if !self.inner.queue.failing(RETRY) {
                    self.inner.queue.turn_off();
                    return false;
                }
            } else if passing && tries < LOCKED_TRIES {
                std::thread::sleep(RETRY / LOCKED_TRIES);
            } else if std::mem::replace(&mut self.was_set_aside, true) || error.is_locked() {
                self.inner.give_up(&error.to_string());
                return false;
            } else if let Err(io) = set_aside(&self.inner.dir, &error) {
                self.inner
                    .give_up(&format!("{error}; it cannot be moved away: {io}"));
                return false;
            } else if !notes.is_empty() {
                // What it held of this run is gone too.
                self.inner.began.store(0, Ordering::Release);
            }
        }
        if waited {
            tracing::info!("there is space again; the index of outcomes goes on");
            self.inner.set_problem(None);
        }
        true
    }

    fn try_write(&mut self, notes: &[Note]) -> Result<(), IndexError> {
        let (index, mark) = match &self.open {
            Some((index, mark)) => (Arc::clone(index), *mark),
            None => {
                let (index, mark) = guarded(|| Index::open(&self.inner.dir))?;
                (Arc::new(index), mark)
            }
        };
        let mark = guarded(|| {
            let mark = if notes.is_empty() {
                mark
            } else {
                index.apply(mark, notes)?
            };
            index.prune(mark, self.inner.keep)
        })?;
        self.open = Some((Arc::clone(&index), mark));
        // Before anybody sees it: its size is part of its status.
        self.measure();
        self.inner.set_state(State::Open(index, mark));
        Ok(())
    }

    fn lacks_space(&self, error: &IndexError) -> bool {
        let is_low = || {
            let parent = self.inner.dir.parent().unwrap_or(Path::new("."));
            statvfs(parent)
                .is_ok_and(|stat| stat.blocks_available() * stat.fragment_size() < FREE_MIN_BYTES)
        };
        error.is_disk_full() || (error.is_poisoned() && is_low())
    }

    fn measure(&mut self) {
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measured = Some(Instant::now());
            let bytes = bytes_in(&self.inner.dir);
            self.inner.bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

/// Damage may make a library panic; that is damage, and no reason to end.
fn guarded<T>(body: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(IndexError::Panic))
}

/// Keeps one damaged index beside the new one.
fn set_aside(dir: &Path, why: &IndexError) -> std::io::Result<()> {
    let aside = dir.with_extension("damaged");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    if dir.exists() {
        fs::rename(dir, &aside)?;
    }
    tracing::error!(code = PROBLEM, %why, aside = %aside.display(), "the index of outcomes cannot be used: it is set aside, and a new one begins");
    Ok(())
}
