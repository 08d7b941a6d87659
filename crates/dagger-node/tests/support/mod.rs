//! A network of real nodes in one process, on loopback, each with its own data directory.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod addresses;

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    time::Duration,
};

use addresses::free_address;
use dagger_ledger::{
    AccountCreate, Action, Genesis, GenesisOperator, Key as PublicKey, OperatorAdd, Parameters,
    SignedTransaction, Transaction, chain_id,
};
use dagger_node::{
    NodeConfig, NodeHandle,
    config::Durability,
    keys::{Key, KeyKind},
    node::Node,
};

/// How long a condition may take on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub struct Network {
    pub dir: tempfile::TempDir,
    pub genesis: Genesis,
    pub operator_keys: Vec<Key>,
    pub nodes: Vec<Option<Node>>,
}

pub fn now_ms() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Prints the node's log with `RUST_LOG=info`.
pub fn init_log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}

/// Whether a segment of a log says that its records are in compressed frames.
pub fn is_sealed(segment: &Path) -> bool {
    fs::read(segment).unwrap()[8..12] == 2u32.to_le_bytes()
}

/// A transaction that is good for five minutes.
pub fn signed(chain: dagger_ledger::Digest, key: &Key, action: Action) -> SignedTransaction {
    let transaction = Transaction {
        chain,
        signer: PublicKey(key.public()),
        salt: format!("{:x}", rand::random::<u64>()),
        valid_until_ms: now_ms() + 300_000,
        action,
    };
    transaction.sign(&key.signing)
}

impl Network {
    /// Data directories for `n` operators; nothing runs yet.
    pub fn new(n: usize, parameters: Parameters) -> Self {
        init_log();
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..n).map(|_| free_address()).collect();
        let mut operators = Vec::new();
        let mut operator_keys = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let keys = dir.path().join(format!("n{i}/keys"));
            let [operator, node, consensus] =
                [KeyKind::Operator, KeyKind::Node, KeyKind::Consensus].map(Key::generate);
            node.save_new(&keys.join("node.json")).unwrap();
            consensus.save_new(&keys.join("consensus.json")).unwrap();
            operators.push(GenesisOperator {
                name: format!("op-{i}"),
                operator_key: PublicKey(operator.public()),
                consensus_key: PublicKey(consensus.public()),
                node_key: PublicKey(node.public()),
                weight: 1,
                address: Some(address.to_string()),
            });
            operator_keys.push(operator);
        }
        let mut genesis = Genesis {
            network: "test".into(),
            time_ms: now_ms(),
            parameters,
            operators,
            chain_id: dagger_ledger::Digest::default(),
        };
        let text = genesis.to_json();
        genesis.chain_id = chain_id(text.as_bytes());
        for (i, address) in addresses.iter().enumerate() {
            let node_dir = dir.path().join(format!("n{i}"));
            fs::write(node_dir.join("genesis.json"), &text).unwrap();
            let mut config = NodeConfig::new(node_dir);
            config.listen = *address;
            config.api = None;
            config.machine = false;
            config.durability = Durability::Os;
            config.save().unwrap();
        }
        Self {
            dir,
            genesis,
            operator_keys,
            nodes: (0..n).map(|_| None).collect(),
        }
    }

    /// A data directory for one more operator, who has no seat yet. Returns what the others vote on.
    pub fn newcomer(&mut self) -> OperatorAdd {
        let i = self.nodes.len();
        let listen = free_address();
        let keys = self.node_dir(i).join("keys");
        let [operator, node, consensus] =
            [KeyKind::Operator, KeyKind::Node, KeyKind::Consensus].map(Key::generate);
        node.save_new(&keys.join("node.json")).unwrap();
        consensus.save_new(&keys.join("consensus.json")).unwrap();
        let text = fs::read(self.node_dir(0).join("genesis.json")).unwrap();
        fs::write(self.node_dir(i).join("genesis.json"), text).unwrap();
        let mut config = NodeConfig::load(&self.node_dir(0)).unwrap();
        config.data_dir = self.node_dir(i);
        config.listen = listen;
        config.save().unwrap();
        let add = OperatorAdd {
            name: format!("op-{i}"),
            operator_key: PublicKey(operator.public()),
            consensus_key: PublicKey(consensus.public()),
            node_key: PublicKey(node.public()),
            weight: 1,
            address: Some(listen.to_string()),
        };
        self.operator_keys.push(operator);
        self.nodes.push(None);
        add
    }

    /// Changes a node's settings before it starts.
    pub fn configure(&self, i: usize, change: impl FnOnce(&mut NodeConfig)) {
        let mut config = self.config(i);
        change(&mut config);
        config.save().unwrap();
    }

    pub fn node_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("n{i}"))
    }

    pub fn config(&self, i: usize) -> NodeConfig {
        NodeConfig::load(&self.node_dir(i)).unwrap()
    }

    /// Creates `count` accounts, handed in at these nodes in turn and sponsored by the first one's operator. Gives the last
    /// commit.
    pub async fn load(&self, prefix: &str, count: usize, through: &[usize]) -> u64 {
        let mut last = 0;
        for n in 0..count {
            let account = self.account(through[0], &format!("{prefix}-{n}"));
            let status = self.execute(through[n % through.len()], account).await;
            last = last.max(status.commit.unwrap().index);
        }
        last
    }

    pub async fn start(&mut self, i: usize) {
        self.nodes[i] = Some(Node::start(self.config(i)).await.unwrap());
    }

    pub async fn start_all(&mut self) {
        for i in 0..self.nodes.len() {
            self.start(i).await;
        }
    }

    pub async fn stop(&mut self, i: usize) {
        self.nodes[i].take().unwrap().stop().await;
        let listen = self.config(i).listen;
        until("the release of the port", || {
            UdpSocket::bind(listen).is_ok()
        })
        .await;
    }

    pub async fn stop_all(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].is_some() {
                self.stop(i).await;
            }
        }
    }

    pub fn handle(&self, i: usize) -> &NodeHandle {
        self.nodes[i].as_ref().unwrap().handle()
    }

    /// A transaction that makes an account of that name, sponsored by an operator.
    pub fn account(&self, operator: usize, name: &str) -> SignedTransaction {
        let account = Key::generate(KeyKind::Account);
        self.sign(
            operator,
            Action::AccountCreate(AccountCreate {
                account: name.into(),
                key: PublicKey(account.public()),
            }),
        )
    }

    pub fn sign(&self, operator: usize, action: Action) -> SignedTransaction {
        signed(self.genesis.chain_id, &self.operator_keys[operator], action)
    }

    /// Hands in a transaction until the node takes it, and waits until it is executed there.
    pub async fn execute(
        &self,
        node: usize,
        transaction: SignedTransaction,
    ) -> dagger_client::api::TransactionStatus {
        let status = self
            .handle(node)
            .submit_and_wait(transaction, DEADLINE)
            .await
            .unwrap();
        assert!(status.outcome.as_ref().unwrap().ok, "{status:?}");
        status
    }

    /// Waits until the running nodes stand at one certified checkpoint at or after `commit`; returns its state root.
    pub async fn common_root(&self, commit: u64) -> String {
        let handles: Vec<&NodeHandle> = self.nodes.iter().flatten().map(Node::handle).collect();
        let mut root = String::new();
        until("one certified checkpoint on all nodes", || {
            let points: Vec<_> = handles.iter().map(|h| h.status().checkpoint).collect();
            let Some(Some(first)) = points.first().cloned() else {
                return false;
            };
            root.clone_from(&first.state_root);
            let same = points
                .iter()
                .flatten()
                .filter(|p| p.certified && p.commit == first.commit)
                .count();
            first.commit >= commit && same == handles.len()
        })
        .await;
        for handle in handles {
            assert_eq!(
                handle.status().checkpoint.unwrap().state_root,
                root,
                "node {}",
                handle.name()
            );
        }
        root
    }
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
