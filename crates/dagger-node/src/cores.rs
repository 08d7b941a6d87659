//! The two single writers of a node, replica and executor: brought to where the log ends, then started.

use std::{collections::VecDeque, sync::Arc};

use dagger_ledger::{Genesis, Ledger};
use shadowgraph::{Config, Replica, SigningKey};
use tokio::sync::mpsc;

use crate::{
    attest::Attestor,
    config::NodeConfig,
    error::NodeError,
    executor::Executor,
    handle::Shared,
    replica::{CheckedCache, ReplicaQueues, ReplicaThread, recover},
    store::{EventLog, Options, Snapshots},
};

/// Commits that may wait for execution.
const COMMITS_WAITING_MAX: usize = 1024;

/// Opens the event log of a node.
///
/// # Errors
/// As [`EventLog::open`].
pub(crate) async fn open_log(
    config: &NodeConfig,
    genesis: &Genesis,
    discard: bool,
) -> Result<EventLog, NodeError> {
    let options = Options {
        segment_bytes: config.store.segment_bytes,
        durability: config.durability,
        discard,
    };
    let (dir, chain_id) = (config.data_dir.join("events"), genesis.chain_id.0);
    let (log, _) = blocking("opening the event log", move || {
        EventLog::open(&dir, chain_id, options)
    })
    .await?;
    Ok(log)
}

/// The ledger of the newest snapshot, with the number of transactions it stands for; that of genesis without one.
pub(crate) async fn load_ledger(
    snapshots: &Snapshots,
    genesis: &Genesis,
) -> Result<(Ledger, u64), NodeError> {
    let (snapshots, genesis) = (snapshots.clone(), genesis.clone());
    blocking("loading the ledger", move || {
        let restored = snapshots.newest(|snapshot| {
            let ledger = Ledger::restore(&snapshot.body).map_err(|e| e.to_string())?;
            let same = ledger.commit_index() == Some(snapshot.commit)
                && ledger.commit_digest() == snapshot.commit_digest
                && ledger.chain_id() == genesis.chain_id;
            if same {
                Ok(ledger)
            } else {
                Err("it is not of the commit that its head says".into())
            }
        })?;
        Ok(match restored {
            Some((snapshot, ledger)) => {
                tracing::info!(commit = snapshot.commit, "loaded the ledger");
                (ledger, snapshot.transactions)
            }
            None => (Ledger::from_genesis(&genesis), 0),
        })
    })
    .await
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    body: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(body).await;
    done.map_err(|e| NodeError::Internal(format!("{what} ended with a panic: {e}")))?
}

/// The two single writers of a node, caught up with its log and not yet running.
pub(crate) struct Cores {
    replica: Replica,
    log: EventLog,
    executor: Executor,
    pub attestor: Arc<Attestor>,
    pub cache: Arc<CheckedCache>,
}

impl Cores {
    /// Reads the log back.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`, `E_DIVERGED`, `E_DUPLICATE_KEY`, `E_IO`.
    pub async fn recover(
        shared: &Arc<Shared>,
        config: Config,
        signer: Option<SigningKey>,
        log: EventLog,
        snapshots: Snapshots,
    ) -> Result<Self, NodeError> {
        let attestor = Arc::new(Attestor::new(Arc::clone(shared)));
        let cache = Arc::new(CheckedCache::default());
        let shared = Arc::clone(shared);
        blocking("recovery", move || {
            let started = std::time::Instant::now();
            let mut executor = Executor::new(
                Arc::clone(&shared),
                Arc::clone(&cache),
                Arc::clone(&attestor),
                snapshots,
            );
            let (replica, events) = recover(config, signer, &shared, &log, &mut executor)?;
            if events > 0 {
                let commit = replica.status().last_commit.0;
                tracing::info!(
                    events,
                    commit,
                    took_ms = started.elapsed().as_millis(),
                    "recovered from the event log"
                );
            }
            Ok(Self {
                replica,
                log,
                executor,
                attestor,
                cache,
            })
        })
        .await
    }

    /// Starts both threads; an error that ends one goes to `fatal`.
    pub fn start(
        self,
        shared: &Arc<Shared>,
        queues: ReplicaQueues,
        fatal: &mpsc::Sender<NodeError>,
    ) -> Vec<std::thread::JoinHandle<()>> {
        let (commits, commits_end) = mpsc::channel(COMMITS_WAITING_MAX);
        let replica = ReplicaThread {
            replica: self.replica,
            log: self.log,
            shared: Arc::clone(shared),
            cache: self.cache,
            queues,
            executor: commits,
            fatal: fatal.clone(),
            deferred: VecDeque::new(),
            published: std::time::Instant::now(),
        };
        let (executor, executor_fatal) = (self.executor, fatal.clone());
        let runtime = tokio::runtime::Handle::current();
        let executor_runtime = runtime.clone();
        vec![
            start_thread("executor", fatal, move || {
                executor.run(&executor_runtime, commits_end, &executor_fatal);
            }),
            start_thread("replica", fatal, move || replica.run(&runtime)),
        ]
    }
}

fn start_thread(
    name: &'static str,
    fatal: &mpsc::Sender<NodeError>,
    body: impl FnOnce() + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let fatal = fatal.clone();
    let guarded = move || {
        // A panic is a bug; the node must stop rather than go on with half of itself.
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            let _ = fatal.try_send(NodeError::Internal(format!(
                "the {name} thread ended with a panic"
            )));
            std::panic::resume_unwind(panic);
        }
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(guarded)
        .expect("a thread can be started")
}
