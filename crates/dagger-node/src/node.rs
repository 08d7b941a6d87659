//! Puts a node together from its parts, and takes it apart again in the opposite order.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dagger_ledger::{Genesis, Key, Ledger};
use iroh::protocol::Router;
use shadowgraph::{
    ChainId, Committee, Config, Epoch, Member, MemberIndex, Parameters, PublicKey, Replica,
    SigningKey,
};
use tokio::sync::{broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attest::Attestor,
    clock::Clock,
    config::NodeConfig,
    data_dir::DataDir,
    error::NodeError,
    executor::Executor,
    handle::{NodeHandle, Shared},
    images::Images,
    keys::{Key as KeyFile, KeyKind},
    metrics::Metrics,
    replica::{
        CheckedCache, Control, Ingest, ReplicaHandle, ReplicaQueues, ReplicaThread, recover,
    },
    store::{EventLog, Options, Snapshots},
    transactions::Transactions,
    transport::{ALPN, ConsensusProtocol, Links, PeerEntry, bind, dial_all},
    tunnel::{self, NodeGuests, TunnelProtocol},
};

/// Commits that may wait for execution.
const COMMITS_WAITING_MAX: usize = 1024;
/// Commits a slow stream may lag behind before it has to ask for what it missed.
const CHANGES_KEPT: usize = 1024;
/// Files this process wants to be able to open.
const OPEN_FILES_WANTED: u64 = 65_536;
/// How long parts may take to end before they are left.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A started node.
pub struct Node {
    handle: NodeHandle,
    fatal: mpsc::Receiver<NodeError>,
    threads: Vec<std::thread::JoinHandle<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    router: Router,
    images: Images,
    _dir: DataDir,
}

/// What a node is, before any of it runs.
struct Identity {
    genesis: Genesis,
    committee: Committee,
    seat: Option<MemberIndex>,
    signer: Option<SigningKey>,
    node_key: ed25519_consensus::SigningKey,
    name: String,
}

impl Node {
    /// Opens the data directory, recovers from the log, binds the sockets and starts all parts.
    ///
    /// # Errors
    /// Every code of [`NodeError`] that concerns a start; nothing keeps running then.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        raise_open_files();
        let identity = Identity::load(&config)?;
        let dir = DataDir::open(&config.data_dir, &identity.genesis.chain_id.0)?;
        let log = open_log(&config, &identity.genesis).await?;
        let endpoint = bind(&identity.node_key, config.listen).await?;
        let listener = match config.api {
            Some(addr) => Some(listen_api(addr).await?),
            None => None,
        };
        let images = Images::open(&dir.join("blobs"), endpoint.clone())
            .await
            .map_err(|e| NodeError::Internal(format!("cannot open the image store: {e}")))?;
        let (consensus, signer) = (identity.consensus_config(), identity.signer.clone());
        let snapshots = Snapshots::open(&dir.join("state"), identity.genesis.chain_id.0)?;
        let (ledger, transactions) = load_ledger(&snapshots, &identity.genesis).await?;
        let (replica, queues) = ReplicaHandle::new();
        let shared = identity.into_shared(config, replica, endpoint.clone(), ledger)?;
        shared
            .executed_transactions
            .store(transactions, Ordering::Relaxed);
        let shared = Arc::new(shared);
        let cores = Cores::recover(&shared, consensus, signer, log, snapshots).await?;
        let (attestor, cache) = (Arc::clone(&cores.attestor), Arc::clone(&cores.cache));
        let (fatal, fatal_end) = mpsc::channel(16);
        let threads = cores.start(&shared, queues, &fatal);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ingest = Arc::new(Ingest {
            shared: Arc::clone(&shared),
            cache,
            attestor: Arc::clone(&attestor),
            instance: rand::random::<u64>() | 1,
            fatal,
            pool: OnceLock::new(),
        });
        let consensus = ConsensusProtocol {
            links: shared.links.clone(),
            inbound: ingest,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        dial_all(&consensus, &endpoint);
        let handle = NodeHandle {
            shared: Arc::clone(&shared),
        };
        let mut router = Router::builder(endpoint)
            .accept(ALPN, consensus)
            .accept(iroh_blobs::ALPN, images.protocol(admission(&shared)));
        let host = open_host(&handle);
        if let Some(host) = &host {
            shared.ways.set_host(host.clone());
            let guests = NodeGuests::new(handle.clone(), host.clone());
            router = router.accept(tunnel::ALPN, TunnelProtocol::new(guests));
        }
        let router = router.spawn();
        let node = Self {
            handle,
            fatal: fatal_end,
            threads,
            tasks,
            stop,
            router,
            images,
            _dir: dir,
        };
        node.spawn(Arc::clone(&attestor).run_heartbeats());
        node.spawn(attestor.run_attestations());
        if let Some(host) = host {
            node.start_host(host);
        }
        node.start_upkeep();
        if let Some(listener) = listener {
            node.serve_api(listener);
        }
        tracing::info!(
            name = %shared.name,
            network = %shared.genesis.network,
            chain_id = %shared.genesis.chain_id.to_hex(),
            node_key = %Key(shared.node_key.verification_key().to_bytes()).to_hex(),
            seat = ?shared.seat.map(|s| s.0),
            listen = %shared.config.listen,
            api = ?shared.config.api,
            durability = ?shared.config.durability,
            "node started"
        );
        Ok(node)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn serve_api(&self, listener: tokio::net::TcpListener) {
        let app = crate::api::router(self.handle.clone(), self.images.clone());
        let stop = self.stop.clone();
        self.spawn(async move {
            let served = axum::serve(listener, app)
                .with_graceful_shutdown(async move { stop.cancelled().await });
            if let Err(error) = served.await {
                tracing::error!(%error, "the API stopped");
            }
        });
    }

    /// The image store's slow chores, for the blobs that the ledger's images name.
    fn start_upkeep(&self) {
        let (ledger, nodes) = (self.handle.clone(), self.handle.clone());
        let named = move || {
            ledger.read(|ledger| {
                let images = ledger.images().filter(|image| !image.retired);
                let blobs = images.flat_map(|image| image.manifest.blobs());
                blobs.map(|blob| (blob.digest.0, blob.size_bytes)).collect()
            })
        };
        let providers = move || crate::host::blob_providers(&nodes);
        self.spawn(self.images.clone().upkeep(named, providers));
    }

    fn start_host(&self, host: dagger_vmm::Host) {
        let dir = self.handle.config().data_dir.join("host");
        let (node, images) = (self.handle.clone(), self.images.clone());
        let cancel = self.stop.child_token();
        self.tasks.spawn(async move {
            if let Err(error) = crate::host::run(node.clone(), host, images, dir, cancel).await {
                no_host(&node, "E_IO", &error.to_string());
            }
        });
    }

    /// The node's handle.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The node's images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Waits until the node stops by itself, which it does only for a reason it cannot go on with.
    pub async fn stopped(&mut self) -> NodeError {
        match self.fatal.recv().await {
            Some(error) => error,
            None => NodeError::Internal("all parts of the node ended".into()),
        }
    }

    /// Stops all parts; what was acknowledged is on disk.
    pub async fn stop(self) {
        self.handle
            .shared
            .replica
            .control_async(Control::Stop)
            .await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not end in time");
        }
        self.handle.shared.links.close_all();
        let _ = tokio::time::timeout(STOP_PATIENCE, self.router.shutdown()).await;
        self.images.shutdown().await;
        let threads = self.threads;
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok()))
                .await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread of the node ended with a panic");
        }
        tracing::info!("node stopped");
    }
}

impl Identity {
    fn load(config: &NodeConfig) -> Result<Self, NodeError> {
        let genesis_path = config.data_dir.join("genesis.json");
        let invalid = |detail: String| NodeError::ConfigInvalid {
            path: genesis_path.clone(),
            detail,
        };
        let bytes = fs::read(&genesis_path).map_err(|e| invalid(format!("cannot read it: {e}")))?;
        let genesis = Genesis::from_json(&bytes).map_err(|e| invalid(e.to_string()))?;
        let keys = config.data_dir.join("keys");
        let node_key = KeyFile::load(&keys.join("node.json"), KeyKind::Node)?.signing;
        let consensus = load_optional(&keys.join("consensus.json"), KeyKind::Consensus)?;
        let members: Vec<Member> = genesis
            .operators
            .iter()
            .map(|o| Member {
                key: PublicKey(o.consensus_key.0),
                weight: o.weight,
            })
            .collect();
        let committee =
            Committee::new(Epoch(0), members).map_err(|e| invalid(format!("no committee: {e}")))?;
        let signer = consensus.map(|key| SigningKey::from_bytes(key.signing.to_bytes()));
        let seat = signer.as_ref().and_then(|s| committee.seat(&s.public()));
        let own_key = node_key.verification_key().to_bytes();
        if let Some(seat) = seat {
            let operator = &genesis.operators[seat.index()];
            if operator.node_key.0 != own_key {
                return Err(NodeError::ConfigInvalid {
                    path: keys.join("node.json"),
                    detail: format!(
                        "the consensus key holds the seat of {}, whose node key in the genesis file is another one; use the keys that belong together",
                        operator.name
                    ),
                });
            }
        }
        let name = seat.map_or_else(
            || config.name.clone(),
            |s| genesis.operators[s.index()].name.clone(),
        );
        let signer = signer.filter(|_| seat.is_some());
        Ok(Self {
            genesis,
            committee,
            seat,
            signer,
            node_key,
            name,
        })
    }

    fn consensus_config(&self) -> Config {
        let parameters = Parameters {
            start_time_ms: self.genesis.time_ms,
            ..Parameters::default()
        };
        Config {
            chain_id: ChainId(self.genesis.chain_id.0),
            committee: self.committee.clone(),
            me: self.seat,
            parameters,
        }
    }

    fn into_shared(
        self,
        config: NodeConfig,
        replica: ReplicaHandle,
        endpoint: iroh::Endpoint,
        ledger: Ledger,
    ) -> Result<Shared, NodeError> {
        let own_key = Key(self.node_key.verification_key().to_bytes());
        let peers = peer_entries(&self.genesis, &config, &own_key)?;
        Ok(Shared {
            ledger: RwLock::new(ledger),
            genesis: self.genesis,
            committee: self.committee,
            seat: self.seat,
            name: self.name,
            node_key: self.node_key,
            started_at_ms: crate::clock::unix_ms(),
            clock: Clock::new(),
            transactions: Mutex::new(Transactions::default()),
            commits: Mutex::new(VecDeque::new()),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            replica,
            endpoint,
            links: Links::new(peers),
            lease_deadline_boottime_ms: AtomicU64::new(0),
            executed_transactions: AtomicU64::new(0),
            checkpoint: Mutex::new(None),
            problems: Mutex::new(BTreeMap::new()),
            metrics: Metrics::default(),
            ways: tunnel::Ways::default(),
            config,
        })
    }
}

fn load_optional(path: &Path, kind: KeyKind) -> Result<Option<KeyFile>, NodeError> {
    if path.exists() {
        KeyFile::load(path, kind).map(Some)
    } else {
        Ok(None)
    }
}

/// The members, with the addresses of genesis and of the configuration, and further peers of the configuration.
fn peer_entries(
    genesis: &Genesis,
    config: &NodeConfig,
    own_key: &Key,
) -> Result<Vec<PeerEntry>, NodeError> {
    let mut configured: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for (key, addresses) in &config.peers {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(key, &mut bytes).map_err(|_| NodeError::ConfigInvalid {
            path: config.data_dir.join("node.toml"),
            detail: format!("[peers] {key:?} is not a node key of 64 hex digits"),
        })?;
        configured.insert(
            Key(bytes),
            addresses.iter().map(ToString::to_string).collect(),
        );
    }
    let mut entries = Vec::new();
    for (seat, operator) in genesis.operators.iter().enumerate() {
        let mut addresses = configured.remove(&operator.node_key).unwrap_or_default();
        addresses.extend(operator.address.clone());
        let seat = MemberIndex(u16::try_from(seat).expect("a genesis has few operators"));
        entries.push(PeerEntry {
            key: operator.node_key,
            name: operator.name.clone(),
            seat: Some(seat),
            addresses,
        });
    }
    for (key, addresses) in configured {
        let name = format!("node-{}", &key.to_hex()[..8]);
        entries.push(PeerEntry {
            key,
            name,
            seat: None,
            addresses,
        });
    }
    entries.retain(|e| e.key != *own_key);
    Ok(entries)
}

async fn open_log(config: &NodeConfig, genesis: &Genesis) -> Result<EventLog, NodeError> {
    let options = Options {
        segment_bytes: config.store.segment_bytes,
        durability: config.durability,
    };
    let (dir, chain_id) = (config.data_dir.join("events"), genesis.chain_id.0);
    let (log, _) = blocking("opening the event log", move || {
        EventLog::open(&dir, chain_id, options)
    })
    .await?;
    Ok(log)
}

/// The ledger of the newest snapshot, with the number of transactions it stands for; that of genesis without one.
async fn load_ledger(snapshots: &Snapshots, genesis: &Genesis) -> Result<(Ledger, u64), NodeError> {
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
struct Cores {
    replica: Replica,
    log: EventLog,
    executor: Executor,
    attestor: Arc<Attestor>,
    cache: Arc<CheckedCache>,
}

impl Cores {
    async fn recover(
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

    fn start(
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

async fn listen_api(addr: std::net::SocketAddr) -> Result<tokio::net::TcpListener, NodeError> {
    tokio::net::TcpListener::bind(addr)
        .await
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => NodeError::PortInUse {
                what: "API (TCP)",
                addr,
                key: "api",
            },
            _ => NodeError::Io {
                what: format!("cannot listen on {addr} for the API"),
                source: e,
            },
        })
}

/// The hypervisor driver of a machine.
fn open_host(node: &NodeHandle) -> Option<dagger_vmm::Host> {
    let config = node.config();
    if !config.machine {
        return None;
    }
    let exe = match config
        .shim_exe
        .clone()
        .map_or_else(std::env::current_exe, Ok)
    {
        Ok(exe) => exe,
        Err(error) => {
            no_host(
                node,
                "E_IO",
                &format!("cannot find this program's own path: {error}"),
            );
            return None;
        }
    };
    let host = dagger_vmm::Host::open(config.data_dir.join("vms"), exe);
    host.inspect_err(|e| no_host(node, e.code(), &e.to_string()))
        .ok()
}

/// A node that cannot host is as good a member as any: what is missing is said, not fatal.
fn no_host(node: &NodeHandle, code: &'static str, text: &str) {
    tracing::error!(code, %text, "this node runs no VMs");
    node.set_problem(code, Some(format!("this node runs no VMs: {text}")));
}

/// Blobs are served to members, machines and configured peers only.
fn admission(shared: &Arc<Shared>) -> crate::images::Admission {
    let shared = Arc::clone(shared);
    Arc::new(move |key: &[u8; 32]| {
        let key = Key(*key);
        shared.links.knows(&key)
            || shared
                .ledger
                .read()
                .expect("no holder panics")
                .machine_by_node_key(&key)
                .is_some()
    })
}

/// Raises the limit of open files as far as it may be raised: every peer, segment and VM takes some.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = hard.min(OPEN_FILES_WANTED.max(soft));
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        tracing::warn!(soft, wanted, "cannot raise the limit of open files");
    }
}

/// Runs a node until `shutdown` resolves or the node cannot go on.
///
/// # Errors
/// What kept it from starting or made it stop.
pub async fn run(config: NodeConfig, shutdown: impl Future) -> Result<(), NodeError> {
    let mut node = Node::start(config).await?;
    tokio::select! {
        error = node.stopped() => {
            tracing::error!(code = error.code(), %error, "the node stops");
            node.stop().await;
            Err(error)
        }
        _ = shutdown => {
            node.stop().await;
            Ok(())
        }
    }
}
