//! The two single writers of a node, replica and executor: brought to where the logs end, run, and begun anew from a
//! snapshot when what lies between is no longer to be had.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dagger_ledger::{Genesis, Ledger};
use shadowgraph::{Epoch, Replica};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    attest::Attestor,
    catchup::{self, Catchup},
    config::{NodeConfig, Retain},
    error::NodeError,
    executor::Executor,
    handle::Shared,
    heal,
    replica::{CheckedCache, Control, Origin, Recovered, ReplicaQueues, ReplicaThread, recover},
    store::{Epochs, EventLog, Options, Snapshots},
};

/// Commits that may wait for execution; each holds its events.
const COMMITS_WAITING_MAX: usize = 256;
/// How long a node that needs a snapshot and found none waits before it asks again.
const CATCHUP_RETRY: Duration = Duration::from_secs(2);

/// Opens the epochs of a node.
///
/// # Errors
/// As [`Epochs::open`].
pub(crate) fn open_epochs(
    config: &NodeConfig,
    genesis: &Genesis,
    discard: bool,
) -> Result<Epochs, NodeError> {
    let options = Options {
        segment_bytes: config.store.segment_bytes,
        durability: config.durability,
        discard,
    };
    Epochs::open(&config.data_dir.join("events"), genesis.chain_id.0, options)
}

/// The ledger of the newest snapshot, with the number of transactions it stands for; that of genesis without one.
pub(crate) async fn load_ledger(
    snapshots: &Snapshots,
    genesis: &Genesis,
) -> Result<(Ledger, u64), NodeError> {
    let (snapshots, genesis) = (snapshots.clone(), genesis.clone());
    blocking("loading the ledger", move || {
        let restored = snapshots.newest(|snapshot, mut body| {
            let ledger = Ledger::restore_from(&mut body).map_err(|e| e.to_string())?;
            let same = ledger.commit_index() == Some(snapshot.commit)
                && ledger.commit_digest() == snapshot.commit_digest
                && ledger.epoch().number == snapshot.epoch
                && ledger.chain_id() == genesis.chain_id;
            if same {
                Ok(ledger)
            } else {
                Err("it is not of the commit that its head says".into())
            }
        })?;
        Ok(match restored {
            Some((snapshot, ledger)) => {
                tracing::info!(
                    commit = snapshot.commit,
                    epoch = snapshot.epoch,
                    "loaded the ledger"
                );
                (ledger, snapshot.transactions)
            }
            None => (Ledger::from_genesis(&genesis), 0),
        })
    })
    .await
}

/// Runs something that blocks, off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    body: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(body).await;
    done.map_err(|e| NodeError::Internal(format!("{what} ended with a panic: {e}")))?
}

/// What the cores stand on; it outlives each run of them.
#[derive(Clone)]
pub(crate) struct Ground {
    pub shared: Arc<Shared>,
    pub origin: Arc<Origin>,
    pub epochs: Epochs,
    pub snapshots: Snapshots,
    pub attestor: Arc<Attestor>,
    pub cache: Arc<CheckedCache>,
    pub fatal: mpsc::Sender<NodeError>,
}

/// What a start comes to.
pub(crate) enum Start {
    /// Both writers are where the logs end.
    Ready(Box<Cores>),
    /// The logs do not lead to the present epoch: a state must come from peers.
    NeedsSnapshot,
    /// The log of this epoch is damaged: events must come from peers.
    Damaged(Epoch),
}

/// The two single writers, caught up with the logs and not yet running.
pub(crate) struct Cores {
    replica: Replica,
    log: EventLog,
    executor: Executor,
}

impl Cores {
    /// Reads the logs back.
    ///
    /// # Errors
    /// As [`recover`].
    async fn recover(ground: &Ground) -> Result<Self, NodeError> {
        let ground = ground.clone();
        blocking("recovery", move || {
            let started = std::time::Instant::now();
            let mut executor = Executor::new(
                Arc::clone(&ground.shared),
                Arc::clone(&ground.cache),
                Arc::clone(&ground.attestor),
                ground.snapshots,
                ground.epochs.clone(),
            );
            let Recovered {
                replica,
                log,
                events,
            } = recover(
                &ground.origin,
                &ground.shared,
                &ground.epochs,
                &mut executor,
            )?;
            let status = replica.status();
            let mut receipts = ground.shared.receipts.lock().expect("no holder panics");
            for epoch in 0..status.epoch.0 {
                let Some(end) = ground.epochs.end(Epoch(epoch))? else {
                    break;
                };
                receipts.epoch_ended(end);
            }
            drop(receipts);
            if events > 0 || status.epoch.0 > 0 {
                tracing::info!(
                    events,
                    epoch = status.epoch.0,
                    commit = status.last_commit.0,
                    took_ms = started.elapsed().as_millis(),
                    "recovered from the event log"
                );
            }
            Ok(Self {
                replica,
                log,
                executor,
            })
        })
        .await
    }

    /// Reads the logs back; what peers can make up for is no error.
    ///
    /// # Errors
    /// As [`recover`]; `E_OWN_EVENT_DAMAGED`.
    pub async fn begin(ground: &Ground) -> Result<Start, NodeError> {
        match Self::recover(ground).await {
            Ok(cores) => Ok(Start::Ready(Box::new(cores))),
            Err(error @ NodeError::HistoryMissing { .. }) => {
                tracing::warn!(code = error.code(), %error, "asking peers for a snapshot");
                Ok(Start::NeedsSnapshot)
            }
            Err(NodeError::LogDamaged {
                epoch,
                path,
                offset,
                detail,
            }) => {
                let error = NodeError::LogDamaged {
                    epoch,
                    path,
                    offset,
                    detail,
                };
                heal::examine(ground, Epoch(epoch)).await?;
                tracing::warn!(code = error.code(), %error, epoch, "the event log is damaged");
                ground
                    .shared
                    .set_problem(error.code(), Some(error.to_string()));
                Ok(Start::Damaged(Epoch(epoch)))
            }
            Err(error) => Err(error),
        }
    }

    /// Starts both threads.
    fn start(self, ground: &Ground, queues: ReplicaQueues, lost: mpsc::Sender<()>) -> Running {
        let (commits, commits_end) = mpsc::channel(COMMITS_WAITING_MAX);
        let replica = ReplicaThread {
            replica: self.replica,
            log: self.log,
            epochs: ground.epochs.clone(),
            attestor: Arc::clone(&ground.attestor),
            shared: Arc::clone(&ground.shared),
            cache: Arc::clone(&ground.cache),
            queues,
            executor: commits,
            fatal: ground.fatal.clone(),
            lost,
            deferred: VecDeque::new(),
            published: std::time::Instant::now(),
            news: Vec::new(),
        };
        let (executor, executor_fatal) = (self.executor, ground.fatal.clone());
        let runtime = tokio::runtime::Handle::current();
        Running {
            executor: start_thread("executor", &ground.fatal, move || {
                executor.run(commits_end, &executor_fatal);
            }),
            replica: start_thread("replica", &ground.fatal, move || replica.run(&runtime)),
        }
    }
}

/// Both threads at work.
struct Running {
    replica: std::thread::JoinHandle<ReplicaQueues>,
    executor: std::thread::JoinHandle<()>,
}

impl Running {
    /// Waits for both to end, as they do once the replica was told to stop.
    async fn ended(self) -> Option<ReplicaQueues> {
        let joined = tokio::task::spawn_blocking(move || {
            let queues = self.replica.join();
            let executed = self.executor.join();
            executed.and(queues).ok()
        });
        joined.await.ok().flatten()
    }
}

fn start_thread<T: Send + 'static>(
    name: &'static str,
    fatal: &mpsc::Sender<NodeError>,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let fatal = fatal.clone();
    let guarded = move || {
        // A panic is a bug; the node must stop rather than go on with half of itself.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            Ok(done) => done,
            Err(panic) => {
                let _ = fatal.try_send(NodeError::Internal(format!(
                    "the {name} thread ended with a panic"
                )));
                std::panic::resume_unwind(panic)
            }
        }
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(guarded)
        .expect("a thread can be started")
}

/// Keeps the cores running until `stop`, once `start` has come to that.
pub(crate) async fn keep_running(
    ground: Ground,
    start: Start,
    mut queues: ReplicaQueues,
    stop: CancellationToken,
) {
    let (lost, mut lost_end) = mpsc::channel(1);
    let mut next = start;
    // A node without a past may have a long way to go; members of a network that is just as new answer at once that it has none.
    // An auditor wants the whole of it.
    let wants_history = matches!(ground.shared.config.store.retain, Retain::All(_));
    let mut wants_snapshot =
        !matches!(next, Start::Ready(_)) || (ground.is_new() && !wants_history);
    loop {
        let cores = match next {
            Start::Ready(cores) => *cores,
            // Nobody takes what comes in while there are no cores; peers send it again.
            Start::NeedsSnapshot => {
                let catchup = ground.fetch(&stop, Some(&mut queues)).await;
                next = match ground.begin_again_from(catchup).await {
                    Some(start) => start,
                    None => return,
                };
                continue;
            }
            Start::Damaged(epoch) => {
                next = match ground.heal(epoch, &stop, &mut queues).await {
                    Some(start) => start,
                    None => return,
                };
                continue;
            }
        };
        let running = cores.start(&ground, queues, lost.clone());
        let catchup = if std::mem::take(&mut wants_snapshot) {
            ground.look(&stop).await
        } else {
            None
        };
        let catchup = match catchup {
            Some(catchup) => Some(catchup),
            None => loop {
                tokio::select! {
                    () = stop.cancelled() => break None,
                    _ = lost_end.recv() => if let Some(catchup) = ground.fetch(&stop, None).await {
                        break Some(catchup);
                    },
                }
            },
        };
        ground.shared.replica.control_async(Control::Stop).await;
        let Some(ended) = running.ended().await else {
            tracing::error!("a thread of the node ended with a panic");
            return;
        };
        queues = ended;
        let Some(catchup) = catchup.filter(|_| !stop.is_cancelled()) else {
            return;
        };
        // The events may have come after all while the snapshot was fetched.
        let behind = ground.shared.ledger_epoch().0 < catchup.epoch();
        if behind && !ground.begin_from(catchup).await {
            return;
        }
        while lost_end.try_recv().is_ok() {}
        next = match ground.recover_or_fail().await {
            Some(start) => start,
            None => return,
        };
    }
}

impl Ground {
    /// Whether this node has neither state nor events yet.
    fn is_new(&self) -> bool {
        let executed = self.shared.ledger.read().expect("no holder panics");
        executed.commit_index().is_none() && self.shared.replica.status().round.0 == 0
    }

    /// Asks the peers once for a later epoch's start.
    async fn look(&self, stop: &CancellationToken) -> Option<Catchup> {
        tokio::select! {
            () = stop.cancelled() => None,
            found = catchup::fetch(self) => found.unwrap_or_else(|error| {
                tracing::info!(%error, "no snapshot to start from; going on with events");
                None
            }),
        }
    }

    /// Fetches a later epoch's start, for as long as it takes; `None` if the node stops.
    async fn fetch(
        &self,
        stop: &CancellationToken,
        mut unread: Option<&mut ReplicaQueues>,
    ) -> Option<Catchup> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                found = catchup::fetch(self) => match found {
                    Ok(Some(catchup)) => return Some(catchup),
                    // With cores at work the events may still come.
                    Ok(None) if unread.is_none() => return None,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(code = error.code(), %error, "cannot fetch a snapshot; trying on"),
                },
            }
            if let Some(queues) = unread.as_deref_mut() {
                queues.drain();
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(CATCHUP_RETRY) => {}
            }
        }
    }

    /// Puts a fetched state in the place of this node's own; false if that failed, which ends the node.
    async fn begin_from(&self, catchup: Catchup) -> bool {
        let ground = self.clone();
        let installed = blocking("installing a snapshot", move || {
            let (ledger, transactions) = catchup.install(&ground.epochs, &ground.snapshots)?;
            *ground.shared.ledger.write().expect("no holder panics") = ledger;
            ground
                .shared
                .executed_transactions
                .store(transactions, Ordering::Relaxed);
            Ok(())
        })
        .await;
        self.or_fail(installed).is_some()
    }

    async fn begin_again_from(&self, catchup: Option<Catchup>) -> Option<Start> {
        if self.begin_from(catchup?).await {
            self.recover_or_fail().await
        } else {
            None
        }
    }

    /// Heals an epoch's log, for as long as it takes; if its events are no longer to be had anywhere, begins from a later
    /// epoch's start instead. `None` if the node stops.
    async fn heal(
        &self,
        epoch: Epoch,
        stop: &CancellationToken,
        unread: &mut ReplicaQueues,
    ) -> Option<Start> {
        loop {
            let healed = tokio::select! {
                () = stop.cancelled() => return None,
                healed = heal::heal(self, epoch) => self.or_fail(healed)?,
            };
            unread.drain();
            let found = if healed { None } else { self.look(stop).await };
            if healed || found.is_some() {
                self.shared.set_problem("E_STORE_DAMAGED", None);
            }
            if healed {
                return self.recover_or_fail().await;
            }
            if found.is_some() {
                return self.begin_again_from(found).await;
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(heal::RETRY) => {}
            }
        }
    }

    async fn recover_or_fail(&self) -> Option<Start> {
        let before = self.shared.membership();
        let recovered = Cores::begin(self).await;
        // What members proved stays theirs under other seats; rounds of the epoch that was left say nothing in this one.
        self.attestor
            .epoch_began(&before, &self.shared.membership());
        self.or_fail(recovered)
    }

    fn or_fail<T>(&self, result: Result<T, NodeError>) -> Option<T> {
        result
            .map_err(|error| {
                let _ = self.fatal.try_send(error);
            })
            .ok()
    }
}
