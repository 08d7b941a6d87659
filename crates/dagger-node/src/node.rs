//! Puts a node together from its parts, and takes it apart again in the opposite order.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dagger_ledger::Key;
use iroh::protocol::Router;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attest::Attestor,
    catchup::{self, CatchupProtocol},
    config::NodeConfig,
    cores::{Cores, Ground, Start, keep_running, load_ledger, open_epochs},
    data_dir::DataDir,
    error::NodeError,
    handle::{NodeHandle, Shared},
    identity::Identity,
    images::Images,
    opaque::Opaque,
    outcomes::{self, OutcomeIndex},
    replica::{Ingest, Origin, ReplicaHandle},
    store::Snapshots,
    transport::{ALPN, ConsensusProtocol, bind, dial_all},
    tunnel::{self, NodeGuests, TunnelProtocol},
};

/// Files this process wants to be able to open.
const OPEN_FILES_WANTED: u64 = 65_536;
/// How long parts may take to end before they are left.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A started node.
pub struct Node {
    handle: NodeHandle,
    fatal: mpsc::Receiver<NodeError>,
    cores: tokio::task::JoinHandle<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
    router: Router,
    images: Images,
    _dir: DataDir,
}

impl Node {
    /// Opens the data directory, recovers from the log, binds the sockets and starts all parts.
    ///
    /// # Errors
    /// Every code of [`NodeError`] that concerns a start; nothing keeps running then.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        Self::start_with(config, None).await
    }

    pub(crate) async fn start_with(
        config: NodeConfig,
        opaque: Option<Opaque>,
    ) -> Result<Self, NodeError> {
        raise_open_files();
        let identity = Identity::load(&config)?;
        let dir = DataDir::open(&config.data_dir, &identity.genesis.chain_id.0)?;
        let discard = opaque.as_ref().is_some_and(|o| o.discard_log);
        let epochs = open_epochs(&config, &identity.genesis, discard)?;
        let snapshots = Snapshots::open(&dir.join("state"), identity.genesis.chain_id.0)?;
        let (ledger, transactions) = load_ledger(&snapshots, &identity.genesis).await?;
        let endpoint = bind(&identity.node_key, config.listen).await?;
        let listener = match config.api {
            Some(addr) => Some(listen_api(addr).await?),
            None => None,
        };
        let limits = config.images.limits();
        let images = Images::open_with(&dir.join("blobs"), endpoint.clone(), limits)
            .await
            .map_err(|e| NodeError::Internal(format!("cannot open the image store: {e}")))?;
        let origin = Origin {
            genesis: identity.consensus_config(&config),
            keys: Arc::clone(&identity.keys),
        };
        let (replica, queues) = ReplicaHandle::new();
        let mut shared = identity.into_shared(config, replica, endpoint.clone(), ledger);
        shared.opaque = opaque.as_ref().map(|o| Arc::clone(&o.consumer));
        if shared.opaque.is_none() {
            shared.outcomes = OutcomeIndex::start(&shared.config, Arc::clone(&shared.problems));
        }
        shared
            .executed_transactions
            .store(transactions, Ordering::Relaxed);
        let shared = Arc::new(shared);
        let (fatal, fatal_end) = mpsc::channel(16);
        let ground = Ground {
            shared: Arc::clone(&shared),
            origin: Arc::new(origin),
            epochs,
            snapshots,
            attestor: Arc::new(Attestor::new(Arc::clone(&shared))),
            cache: Arc::default(),
            fatal: fatal.clone(),
        };
        let start = match Cores::begin(&ground).await {
            Ok(start) => start,
            Err(error) => {
                // Another start in this process must find neither the index locked nor the port taken.
                images.shutdown().await;
                endpoint.close().await;
                close_outcomes(&shared).await;
                return Err(error);
            }
        };
        if let Start::Ready(_) = start {
            outcomes::rebuild(&shared, ground.epochs.clone(), ground.snapshots.clone());
        }
        let (attestor, cache) = (Arc::clone(&ground.attestor), Arc::clone(&ground.cache));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ingest = Arc::new(Ingest {
            shared: Arc::clone(&shared),
            cache,
            attestor: Arc::clone(&attestor),
            instance: rand::random::<u64>() | 1,
            fatal,
            verified: Arc::default(),
        });
        let consensus = ConsensusProtocol {
            links: shared.links.clone(),
            inbound: ingest,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        match opaque.and_then(|o| o.network) {
            Some(network) => network.0.join(&shared.own_key(), &consensus),
            None => dial_all(&consensus, &endpoint),
        }
        let handle = NodeHandle {
            shared: Arc::clone(&shared),
        };
        let mut router = Router::builder(endpoint)
            .accept(ALPN, consensus)
            .accept(iroh_blobs::ALPN, images.protocol(admission(&shared)));
        let (admitted, known) = (Arc::clone(&shared), Arc::clone(&shared));
        router = router.accept(
            catchup::ALPN,
            CatchupProtocol::new(
                ground.epochs.clone(),
                ground.snapshots.clone(),
                Arc::new(move |key| admits(&admitted, key)),
                Arc::new(move |most| known.links.connected(most)),
            ),
        );
        let host = open_host(&handle);
        if let Some(host) = &host {
            shared.ways.set_host(host.clone());
            let guests = NodeGuests::new(handle.clone(), host.clone());
            router = router.accept(tunnel::ALPN, TunnelProtocol::new(guests));
        }
        let router = router.spawn();
        let (healer, sealer) = (ground.clone(), ground.clone());
        let cores = tokio::spawn(keep_running(ground, start, queues, stop.clone()));
        let node = Self {
            handle,
            fatal: fatal_end,
            cores,
            tasks,
            stop,
            router,
            images,
            _dir: dir,
        };
        node.spawn(Arc::clone(&attestor).run_heartbeats());
        node.spawn(attestor.run_attestations());
        node.spawn(crate::heal::watch(healer));
        // It ends by itself, between two steps: no file may change under another start in this process.
        let sealing = crate::sealing::run(sealer, node.stop.clone());
        node.tasks.spawn(sealing);
        node.spawn(crate::peers::learn(Arc::clone(&shared)));
        node.spawn(crate::feed::subscribe(Arc::clone(&shared)));
        let giving = Arc::clone(&shared);
        node.spawn(async move {
            let (links, subscribers) = (giving.links.clone(), giving.metrics.subscribers.clone());
            giving.feed.run(links, subscribers).await;
        });
        if let Some(host) = host {
            node.start_host(host);
        }
        node.spawn(crate::alarms::watch(Arc::clone(&shared)));
        if let Some(file) = shared.config.faults.clone() {
            node.spawn(crate::faults::run(Arc::clone(&shared), file));
        }
        node.start_upkeep();
        node.spawn(crate::disputes::probe_drawn(node.handle.clone()));
        if let Some(listener) = listener {
            node.serve_api(listener);
        }
        tracing::info!(
            name = %shared.name,
            network = %shared.genesis.network,
            chain_id = %shared.genesis.chain_id.to_hex(),
            node_key = %shared.own_key().to_hex(),
            seat = ?shared.seat().map(|s| s.0),
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
            // Not the router itself, of which each connection would get a deep copy.
            let served = axum::serve(listener, app.into_make_service())
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
        self.spawn(crate::copies::keep(
            self.handle.clone(),
            self.images.clone(),
        ));
    }

    fn start_host(&self, host: dagger_vmm::Host) {
        let dir = self.handle.config().data_dir.join("host");
        let (node, images) = (self.handle.clone(), self.images.clone());
        let offer = self.handle.config().offer();
        let cancel = self.stop.child_token();
        self.tasks.spawn(async move {
            let run = crate::host::run(node.clone(), host, images, dir, offer, cancel);
            if let Err(error) = run.await {
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
        self.stop.cancel();
        self.handle.shared.outcomes.stop();
        self.tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not end in time");
        }
        self.handle.shared.links.close_all();
        let _ = tokio::time::timeout(STOP_PATIENCE, self.router.shutdown()).await;
        // The library that keeps it was once seen not to answer.
        if tokio::time::timeout(STOP_PATIENCE, self.images.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("the index of images did not close in time");
        }
        if self.cores.await.is_err() {
            tracing::error!("the keeper of the node's cores ended with a panic");
        }
        close_outcomes(&self.handle.shared).await;
        tracing::info!("node stopped");
    }
}

/// Another start in this process must not find the index open still.
async fn close_outcomes(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    // A panic there has been printed.
    let _ = tokio::task::spawn_blocking(move || shared.outcomes.close()).await;
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
    let dir = config.data_dir.join("vms");
    let host = dagger_vmm::Host::with_cgroup(dir, exe, config.cgroup.as_deref());
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
    Arc::new(move |key: &[u8; 32]| admits(&shared, &Key(*key)))
}

/// Whether a node is known: as a member, an operator's, a machine's or a configured one.
fn admits(shared: &Shared, key: &Key) -> bool {
    shared.links.knows(key) || shared.node_name(key).is_some()
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
