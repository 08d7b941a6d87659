//! Measures how long the network stands still when an epoch ends under load:
//! `cargo run --release -p dagger-node --example epoch_pause [-- EPOCHS]` (60 unless said otherwise).
//!
//! Four nodes in one process over loopback, each with its log; clients hand transactions in through all of them. A pause is the time between
//! the execution of an epoch's last block and that of the next block with transactions in it, at one node.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use dagger_ledger::{
    AccountCreate, Action, Genesis, GenesisOperator, Key, Parameters, Transaction,
};
use dagger_node::{
    NodeConfig, NodeHandle,
    config::Durability,
    keys::{Key as KeyFile, KeyKind},
    node::Node,
};

const OPERATORS: usize = 4;
/// Transactions of an epoch, and of a second.
const EPOCH_TRANSACTIONS: u64 = 250;
const RATE: u64 = 250;
const TARGET_MS: f64 = 500.0;

struct Operator {
    operator: KeyFile,
    node: KeyFile,
    consensus: KeyFile,
    address: SocketAddr,
}

fn operators() -> Vec<Operator> {
    let sockets: Vec<_> = (0..OPERATORS)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"))
        .collect();
    let operator = |socket: &UdpSocket| Operator {
        operator: KeyFile::generate(KeyKind::Operator),
        node: KeyFile::generate(KeyKind::Node),
        consensus: KeyFile::generate(KeyKind::Consensus),
        address: socket.local_addr().expect("bound"),
    };
    sockets.iter().map(operator).collect()
}

fn genesis(operators: &[Operator]) -> Genesis {
    let operator = |(i, o): (usize, &Operator)| GenesisOperator {
        name: format!("operator-{i}"),
        operator_key: Key(o.operator.public()),
        consensus_key: Key(o.consensus.public()),
        node_key: Key(o.node.public()),
        weight: 1,
        address: Some(o.address.to_string()),
    };
    let genesis = Genesis {
        network: "pause".into(),
        time_ms: now_ms(),
        parameters: Parameters {
            epoch_transactions: EPOCH_TRANSACTIONS,
            ..Parameters::default()
        },
        operators: operators.iter().enumerate().map(operator).collect(),
        chain_id: dagger_ledger::Digest::default(),
    };
    Genesis::from_json(genesis.to_json().as_bytes()).expect("a good genesis")
}

fn now_ms() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_millis()).expect("not that late")
}

fn config(dir: &Path, genesis: &Genesis, operator: &Operator) -> NodeConfig {
    let keys = dir.join("keys");
    let saved = operator.node.save_new(&keys.join("node.json"));
    saved.expect("the key is saved");
    let saved = operator.consensus.save_new(&keys.join("consensus.json"));
    saved.expect("the key is saved");
    fs::write(dir.join("genesis.json"), genesis.to_json()).expect("it is written");
    let mut config = NodeConfig::new(dir);
    config.listen = operator.address;
    config.api = None;
    config.machine = false;
    config.durability = Durability::Os;
    config
}

/// Hands transactions in, through one node, on time whatever becomes of them.
async fn load(node: NodeHandle, key: ed25519_zebra::SigningKey, chain: dagger_ledger::Digest) {
    let mut due = tokio::time::interval(Duration::from_secs(OPERATORS as u64) / RATE as u32);
    for n in 0u64.. {
        due.tick().await;
        let account = Key(ed25519_zebra::SigningKey::from(
            *blake3::hash(&n.to_le_bytes()).as_bytes(),
        )
        .verification_key()
        .into());
        let transaction = Transaction {
            chain,
            signer: Key(key.verification_key().into()),
            salt: n.to_string(),
            valid_until_ms: now_ms() + 60_000,
            action: Action::AccountCreate(AccountCreate {
                account: format!("{}-{n}", node.name()),
                key: account,
            }),
        };
        // One that is refused is one fewer.
        let _ = node.submit(transaction.sign(&key)).await;
    }
}

/// Pauses at one node, for as many epochs.
async fn pauses(node: &NodeHandle, epochs: usize) -> Vec<f64> {
    let mut changes = node.changes();
    let mut pauses = Vec::new();
    let mut ended: Option<(u64, Instant)> = None;
    let mut last_end = node.read(|l| l.epoch().start_commit);
    while pauses.len() < epochs {
        let record = changes.recv().await.expect("this reader keeps up");
        let now = Instant::now();
        if let Some((end, at)) = ended
            && record.index > end
            && !record.outcomes.is_empty()
        {
            pauses.push((now - at).as_secs_f64() * 1_000.0);
            ended = None;
        }
        let start = node.read(|l| l.epoch().start_commit);
        if start != last_end && record.index >= start {
            last_end = start;
            ended = Some((start, now));
        }
    }
    pauses
}

fn main() {
    let epochs = std::env::args().nth(1);
    let epochs = epochs.map_or(60, |n| n.parse().expect("a number of epochs"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let operators = operators();
        let genesis = genesis(&operators);
        let mut nodes = Vec::new();
        for (i, operator) in operators.iter().enumerate() {
            let config = config(&dir.path().join(i.to_string()), &genesis, operator);
            nodes.push(Node::start(config).await.expect("it starts"));
        }
        let loads: Vec<_> = nodes
            .iter()
            .zip(&operators)
            .map(|(node, o)| {
                let handle = node.handle().clone();
                tokio::spawn(load(handle, o.operator.signing, genesis.chain_id))
            })
            .collect();
        let mut pauses = pauses(nodes[0].handle(), epochs).await;
        loads.iter().for_each(tokio::task::JoinHandle::abort);
        pauses.sort_by(f64::total_cmp);
        let at = |share: f64| pauses[((pauses.len() - 1) as f64 * share).round() as usize];
        let verdict = if at(0.99) < TARGET_MS { "met" } else { "MISSED" };
        println!("{} epochs of {EPOCH_TRANSACTIONS} transactions at {RATE}/s", pauses.len());
        println!("pause p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, longest {:.0} ms (p99 < {TARGET_MS} ms: {verdict})", at(0.5), at(0.9), at(0.99), at(1.0));
        for node in nodes {
            node.stop().await;
        }
    });
}
