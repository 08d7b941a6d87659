//! Makes a network's files, and its first transactions.

use super::{DurabilityWord, Layout, MANIFEST, Manifest, NAMES, NodePlan};
use crate::args::DevUpArgs;
use crate::config::ClientConfig;
use crate::context::now_ms;
use crate::failure::{Done, Exit, Failure};
use crate::setup;
use dagger_client::http::{Client, Stage};
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_client::transaction;
use dagger_ledger::{AccountCreate, Action, Arch, Digest, Genesis, Key, MachineAdd};
use dagger_node::config::{Durability, NodeConfig};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the network and of the account that comes with it.
pub const ACCOUNT: &str = "dev";

/// Where nodes' ports are looked for.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How long a first transaction may take.
const EXECUTE_WITHIN: Duration = Duration::from_secs(60);

/// Writes the files of a new network into `root`, which is empty.
pub fn make(root: &Path, args: &DevUpArgs) -> Done<Layout> {
    let free = free_addresses(usize::from(args.nodes))?;
    let nodes = NAMES.iter().zip(free).map(|(name, address)| NodePlan {
        name: (*name).to_owned(),
        api: address,
        listen: address,
        durability: args.durability.into(),
        vcpus: args.vcpus,
        memory_mib: args.memory,
        disk_mib: args.disk,
    });
    let manifest = Manifest {
        chain_id: String::new(),
        nodes: nodes.collect(),
    };
    let mut layout = Layout {
        root: root.to_owned(),
        manifest,
    };
    for part in ["nodes", "logs", "pids", "client/keys"] {
        let path = root.join(part);
        std::fs::create_dir_all(&path).map_err(|error| Failure::file(path.display(), &error))?;
    }
    let cards: Vec<setup::Card> = layout
        .manifest
        .nodes
        .iter()
        .map(|node| setup::make_keys(&layout.node_dir(&node.name), &node.name, Some(node.listen)))
        .collect::<Done<_>>()?;
    let parameters = setup::parameters(Some(args.lease_ms), Some(args.margin_ms));
    let genesis = setup::genesis(ACCOUNT, now_ms(), parameters, &cards)?;
    setup::write_new(&root.join("genesis.json"), genesis.as_bytes())?;
    layout.manifest.chain_id = dagger_ledger::chain_id(genesis.as_bytes()).to_hex();
    for node in &layout.manifest.nodes {
        setup::write_new(
            &layout.node_dir(&node.name).join("genesis.json"),
            genesis.as_bytes(),
        )?;
        save_config(&layout, node)?;
    }
    make_client(&layout)?;
    let text = serde_json::to_string_pretty(&layout.manifest).expect("a manifest is plain JSON");
    std::fs::write(root.join(MANIFEST), text + "\n")
        .map_err(|error| Failure::file(MANIFEST, &error))?;
    Ok(layout)
}

fn save_config(layout: &Layout, node: &NodePlan) -> Done {
    let mut config = NodeConfig::new(layout.node_dir(&node.name));
    config.name.clone_from(&node.name);
    config.listen = node.listen;
    config.api = Some(node.api);
    config.durability = match node.durability {
        DurabilityWord::Fsync => Durability::Fsync,
        DurabilityWord::Os => Durability::Os,
    };
    config
        .save()
        .map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))
}

/// The configuration of a client of this network, with the key of its account.
fn make_client(layout: &Layout) -> Done {
    let file = format!("keys/{ACCOUNT}.json");
    let directory = layout.client_dir();
    keys::write(
        &directory.join(&file),
        KeyKind::Account,
        &SecretKey::generate(),
    )?;
    let config = ClientConfig {
        api: layout
            .manifest
            .nodes
            .iter()
            .map(NodePlan::api_url)
            .collect(),
        chain_id: Some(layout.manifest.chain_id.clone()),
        key: Some(file.into()),
        ssh_identity: None,
    };
    config.save(&directory)
}

/// Free loopback addresses, each for an API (TCP) and a node's socket (UDP). They are kept for as long as the network exists, with
/// its nodes up or down, and so are none that the kernel would give to whoever asks for any port (on Linux those from 32,768 on).
fn free_addresses(count: usize) -> Done<Vec<SocketAddr>> {
    // Networks that are made at the same time begin their search in different places.
    let first = std::process::id().wrapping_mul(97) % u32::from(PORTS.end - PORTS.start);
    let ports = PORTS.cycle().skip(first as usize);
    let addresses: Vec<_> = ports
        .take(PORTS.len())
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .filter(|at| TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok())
        .take(count)
        .collect();
    match addresses.len() == count {
        true => Ok(addresses),
        false => {
            let (first, last) = (PORTS.start, PORTS.end - 1);
            Err(Failure::usage(format!(
                "no {count} free ports from {first} to {last} on 127.0.0.1"
            )))
        }
    }
}

/// Registers every operator's machine and opens the account, each by its operator's own transaction.
/// What is there already stays.
pub async fn register(layout: &Layout) -> Done {
    let chain: Digest = genesis_chain(layout)?;
    let first = &layout.manifest.nodes[0];
    for node in &layout.manifest.nodes {
        let client = Client::new(&node.api_url())?;
        let known = client.machines().await?;
        if known.iter().any(|machine| machine.name == node.machine()) {
            continue;
        }
        let node_key = client.status().await?.node_key;
        let action = Action::MachineAdd(MachineAdd {
            machine: node.machine(),
            node_key: parse_key(&node_key)?,
            arch: if cfg!(target_arch = "aarch64") {
                Arch::Aarch64
            } else {
                Arch::X86_64
            },
            vcpus: node.vcpus,
            memory_mib: node.memory_mib,
            disk_mib: node.disk_mib,
            cpu_permille: dagger_ledger::NO_OVERCOMMIT,
            labels: std::iter::once(("region".to_owned(), "local".to_owned())).collect(),
        });
        execute(&client, chain, &layout.operator_key(&node.name), action).await?;
    }
    let client = Client::new(&first.api_url())?;
    if client
        .accounts()
        .await?
        .iter()
        .any(|account| account.name == ACCOUNT)
    {
        return Ok(());
    }
    let key = keys::read(
        &layout.client_dir().join(format!("keys/{ACCOUNT}.json")),
        KeyKind::Account,
    )?;
    let action = Action::AccountCreate(AccountCreate {
        account: ACCOUNT.to_owned(),
        key: Key(key.public()),
    });
    execute(&client, chain, &layout.operator_key(&first.name), action).await
}

fn genesis_chain(layout: &Layout) -> Done<Digest> {
    let path = layout.root.join("genesis.json");
    let bytes = std::fs::read(&path).map_err(|error| Failure::file(path.display(), &error))?;
    let genesis =
        Genesis::from_json(&bytes).map_err(|error| Failure::file(path.display(), &error))?;
    Ok(genesis.chain_id)
}

fn parse_key(hex: &str) -> Done<Key> {
    hex.parse().map_err(|_| {
        Failure::new(
            Exit::Failure,
            "E_NOT_A_NODE",
            "the node names no key of its own",
        )
    })
}

async fn execute(client: &Client, chain: Digest, key_file: &Path, action: Action) -> Done {
    let key = keys::read(key_file, KeyKind::Operator)?;
    let signed = transaction::sign(&key, chain, action, now_ms() + transaction::VALID_FOR_MS);
    let submitted = client.submit(&signed).await?;
    let status = client
        .wait_transaction(
            &submitted.digest,
            Stage::Executed,
            Instant::now() + EXECUTE_WITHIN,
        )
        .await?;
    match status.refusal() {
        Some(refusal) => Err(Failure::new(Exit::Refused, &refusal.code, refusal.text)),
        None => Ok(()),
    }
}
