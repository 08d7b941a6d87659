//! What a node is, from its files: its keys, the network's genesis, its seat, its peers.
//!
//! Must not live here: anything that runs.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use dagger_ledger::{Genesis, Key, Ledger};
use shadowgraph::{
    ChainId, Committee, Config, Epoch, EpochStart, Member, MemberIndex, Parameters, PublicKey,
};
use tokio::sync::broadcast;

use crate::{
    clock::Clock,
    config::NodeConfig,
    consensus_keys::ConsensusKeys,
    error::NodeError,
    feed::Feed,
    handle::Shared,
    keys::{Key as KeyFile, KeyKind},
    membership::Membership,
    metrics::Metrics,
    outcomes::OutcomeIndex,
    receipts::Receipts,
    replica::ReplicaHandle,
    transactions::Transactions,
    transport::Links,
    tunnel,
};

/// Commits a slow stream may lag behind before it has to ask for what it missed.
const CHANGES_KEPT: usize = 1024;

/// What a node is, before any of it runs.
pub(crate) struct Identity {
    pub genesis: Genesis,
    committee: Committee,
    seat: Option<MemberIndex>,
    pub keys: Arc<ConsensusKeys>,
    pub node_key: ed25519_zebra::SigningKey,
    name: String,
}

impl Identity {
    pub fn load(config: &NodeConfig) -> Result<Self, NodeError> {
        let (genesis, committee) = read_genesis(config)?;
        let keys = config.data_dir.join("keys");
        let node_key = KeyFile::load(&keys.join("node.json"), KeyKind::Node)?.signing;
        let consensus = Arc::new(ConsensusKeys::load(&keys)?);
        let seat = consensus.seat(&committee);
        let name = seat.map_or_else(
            || config.name.clone(),
            |s| genesis.operators[s.index()].name.clone(),
        );
        Ok(Self {
            genesis,
            committee,
            seat,
            keys: consensus,
            node_key,
            name,
        })
    }

    pub fn consensus_config(&self, config: &NodeConfig) -> Config {
        Config {
            chain_id: ChainId(self.genesis.chain_id.0),
            committee: self.committee.clone(),
            me: self.seat,
            start: EpochStart::genesis(self.genesis.time_ms),
            parameters: Parameters {
                min_round_interval_ms: config.round_interval_ms,
                ..Parameters::default()
            },
        }
    }

    pub fn into_shared(
        self,
        mut config: NodeConfig,
        replica: ReplicaHandle,
        endpoint: iroh::Endpoint,
        ledger: Ledger,
    ) -> Shared {
        let own_key = Key(self.node_key.verification_key().into());
        let membership = Membership::new(self.committee, &ledger, &self.keys);
        let peers = membership.peers(&config, &own_key);
        let is_seated = membership.seat.is_some();
        let faults = crate::faults::at_start(&config);
        if let Some(version) = faults.newest_protocol_version {
            config.newest_protocol_version = version;
        }
        let problems = Arc::new(Mutex::new(BTreeMap::new()));
        Shared {
            ledger: RwLock::new(ledger),
            genesis: self.genesis,
            membership: RwLock::new(Arc::new(membership)),
            name: self.name,
            node_key: self.node_key,
            consensus_keys: self.keys,
            started_at_ms: crate::clock::unix_ms(),
            clock: Clock::off_by(faults.clock_ms),
            transactions: Mutex::new(Transactions::default()),
            receipts: Mutex::new(Receipts::default()),
            outcomes: OutcomeIndex::none(&config),
            commits: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            replica,
            endpoint,
            links: Links::new(peers, is_seated),
            feed: Feed::default(),
            lease_deadline_boottime_ms: AtomicU64::new(0),
            wrong_roots: AtomicBool::new(faults.wrong_roots),
            executed_transactions: AtomicU64::new(0),
            checkpoint: Mutex::new(None),
            healed: Mutex::default(),
            damaged: crate::heal::Damaged::default(),
            problems,
            metrics: Metrics::default(),
            opaque: None,
            ways: tunnel::Ways::default(),
            config,
        }
    }
}

/// The network's genesis, from the data directory, and its first committee.
///
/// # Errors
/// `E_CONFIG_INVALID`.
pub(crate) fn read_genesis(config: &NodeConfig) -> Result<(Genesis, Committee), NodeError> {
    let path = config.data_dir.join("genesis.json");
    let invalid = |detail: String| NodeError::ConfigInvalid {
        path: path.clone(),
        detail,
    };
    let bytes = fs::read(&path).map_err(|e| invalid(format!("cannot read it: {e}")))?;
    let genesis = Genesis::from_json(&bytes).map_err(|e| invalid(e.to_string()))?;
    let member = |operator: &dagger_ledger::GenesisOperator| Member {
        key: PublicKey(operator.consensus_key.0),
        weight: operator.weight,
    };
    let members = genesis.operators.iter().map(member).collect();
    let committee =
        Committee::new(Epoch(0), members).map_err(|e| invalid(format!("no committee: {e}")))?;
    Ok((genesis, committee))
}
