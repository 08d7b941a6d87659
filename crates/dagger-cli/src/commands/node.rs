//! `dagger node` and `dagger genesis`.

use crate::args::{GenesisCreateArgs, Global, NodeInitArgs, Output};
use crate::context::{Context, now_ms};
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use crate::setup::{self, Card};
use dagger_client::api::{NodeState, NodeStatus};
use dagger_client::size;
use dagger_ledger::Genesis;
use dagger_node::config::NodeConfig;
use dagger_node::{NodeError, node};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

pub fn genesis_create(global: &Global, args: &GenesisCreateArgs) -> Done {
    let cards: Vec<Card> = args
        .cards
        .iter()
        .map(|path| Card::load(path))
        .collect::<Done<_>>()?;
    let parameters = setup::parameters(args.lease, args.margin);
    let text = setup::genesis(&args.network, now_ms(), parameters, &cards)?;
    setup::write_new(&args.out, text.as_bytes())?;
    describe_genesis(global, &args.out, &text)
}

pub fn genesis_id(global: &Global, path: &Path) -> Done {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::file(path.display(), &error))?;
    describe_genesis(global, path, &text)
}

fn describe_genesis(global: &Global, path: &Path, text: &str) -> Done {
    let genesis = read_genesis(text)?;
    if global.output == Output::Json {
        return output::json(&serde_json::json!({
            "file": path, "network": genesis.network, "chain_id": genesis.chain_id,
            "operators": genesis.operators.iter().map(|operator| &operator.name).collect::<Vec<_>>(),
        }));
    }
    let operators: Vec<&str> = genesis
        .operators
        .iter()
        .map(|operator| operator.name.as_str())
        .collect();
    output::fields(&[
        ("file", path.display().to_string()),
        ("network", genesis.network.clone()),
        ("chain id", genesis.chain_id.to_hex()),
        ("operators", operators.join(", ")),
    ])
}

fn read_genesis(text: &str) -> Done<Genesis> {
    Genesis::from_json(text.as_bytes())
        .map_err(|error| Failure::new(Exit::Failure, "E_GENESIS_INVALID", error.to_string()))
}

pub fn init(global: &Global, args: &NodeInitArgs) -> Done {
    let card = setup::make_keys(&args.data, &args.name, args.address)?;
    let card_path = args.data.join("card.json");
    setup::write_new_or_same(&card_path, &card.to_json())?;
    let mut config =
        NodeConfig::new(std::path::absolute(&args.data).unwrap_or_else(|_| args.data.clone()));
    config.name.clone_from(&args.name);
    config.listen = args.listen;
    config.api = Some(args.api_listen);
    config.durability = args.durability.into();
    let text = match &args.genesis {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path).map_err(|error| Failure::file(path.display(), &error))?,
        ),
    };
    if let Some(text) = &text {
        read_genesis(text)?;
        setup::write_new_or_same(&args.data.join("genesis.json"), text)?;
        config.save().map_err(node_failure)?;
    }
    if global.output == Output::Json {
        return output::json(
            &serde_json::json!({"data": args.data, "card": card, "ready": text.is_some()}),
        );
    }
    output::fields(&[
        ("data", args.data.display().to_string()),
        ("node key", card.node_key.clone()),
        ("card", card_path.display().to_string()),
    ])?;
    match text {
        Some(_) => output::line(&format!(
            "next: dagger node run --data {}",
            args.data.display()
        )),
        None => output::line(
            "next: give the card to whoever writes the genesis file, then run this again with --genesis FILE",
        ),
    }
}

/// Runs the daemon until a signal ends it.
pub fn run(data: &Path) -> Done {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,iroh=warn,iroh_blobs=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let config = NodeConfig::load(data).map_err(node_failure)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    runtime.block_on(async {
        let mut terminated =
            signal(SignalKind::terminate()).map_err(|e| Failure::file("signals", &e))?;
        let mut interrupted =
            signal(SignalKind::interrupt()).map_err(|e| Failure::file("signals", &e))?;
        let shutdown = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            tracing::info!("stopping: VMs go on under their shims");
        };
        node::run(config, shutdown).await.map_err(node_failure)
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function in map_err"
)]
pub fn node_failure(error: NodeError) -> Failure {
    Failure::new(Exit::Failure, error.code(), error.to_string())
}

pub async fn status(context: &Context) -> Done {
    let status = context.connect().await?.status;
    if context.json() {
        return output::json(&status);
    }
    show(&status)
}

fn show(status: &NodeStatus) -> Done {
    let consensus = &status.consensus;
    output::fields(&[
        ("node", format!("{} ({})", status.name, state(status.state))),
        (
            "network",
            format!("{}, chain id {}", status.network, status.chain_id),
        ),
        ("node key", status.node_key.clone()),
        ("version", status.version.clone()),
        ("up for", output::ago(status.now_ms, status.started_at_ms)),
        (
            "seat",
            status.seat.map_or_else(
                || "none".to_owned(),
                |seat| format!("{seat} of {}", consensus.members.len()),
            ),
        ),
        (
            "machine",
            status.machine.clone().unwrap_or_else(|| "none".to_owned()),
        ),
        ("guests", guests(status)),
        (
            "round",
            format!(
                "{}{}",
                consensus.round,
                if consensus.awake {
                    ", awake"
                } else {
                    ", resting"
                }
            ),
        ),
        (
            "commit",
            format!(
                "{} decided, {} executed",
                consensus.commit, status.ledger.commit
            ),
        ),
        (
            "quorum",
            format!(
                "weight {} of {}",
                consensus.quorum_weight, consensus.total_weight
            ),
        ),
        ("checkpoint", checkpoint(status)),
        ("outcomes", outcomes(status)),
        (
            "state root",
            status
                .checkpoint
                .as_ref()
                .map(|c| c.state_root.clone())
                .unwrap_or_default(),
        ),
    ])?;
    output::line("")?;
    let mut listing = Listing::new(
        &[
            "MEMBER",
            ">WEIGHT",
            ">ROUND",
            "CONNECTED",
            ">RTT",
            "ADDRESS",
        ],
        "no members",
    );
    for member in &consensus.members {
        let peer = status.peers.iter().find(|peer| peer.name == member.name);
        let own = status.seat == Some(member.index);
        listing.row([
            member.name.clone(),
            member.weight.to_string(),
            member.round.to_string(),
            match peer {
                _ if own => "self".to_owned(),
                Some(peer) if peer.connected => "yes".to_owned(),
                _ => "no".to_owned(),
            },
            peer.and_then(|peer| peer.rtt_ms)
                .map_or_else(|| "-".to_owned(), |rtt| format!("{rtt}ms")),
            peer.and_then(|peer| peer.address.clone())
                .unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    listing.print()?;
    for problem in &status.problems {
        output::line(&format!("problem: {} [{}]", problem.text, problem.code))?;
    }
    Ok(())
}

fn guests(status: &NodeStatus) -> String {
    match &status.guests {
        None => "none here".to_owned(),
        Some(guests) if guests.bounds.is_empty() => format!("not bounded: {}", guests.text),
        Some(guests) => format!("bounded: {}", guests.text),
    }
}

fn outcomes(status: &NodeStatus) -> String {
    match &status.outcomes {
        Some(held) => {
            let rebuild = held.rebuild.map(|rebuild| {
                format!(
                    "; from commit {} on once the logs are read again (commit {} of {})",
                    rebuild.from_commit, rebuild.at_commit, rebuild.to_commit
                )
            });
            format!(
                "from commit {} on: {} transactions, {} on disk{}",
                held.from_commit,
                held.transactions,
                size::bytes(held.disk_bytes),
                rebuild.unwrap_or_default()
            )
        }
        None => "the newest only, in memory".to_owned(),
    }
}

fn checkpoint(status: &NodeStatus) -> String {
    match &status.checkpoint {
        None => "none yet".to_owned(),
        Some(c) if c.certified => format!(
            "commit {}, certified by weight {}",
            c.commit, c.signed_weight
        ),
        Some(c) => format!(
            "commit {}, not certified yet (weight {})",
            c.commit, c.signed_weight
        ),
    }
}

/// The word for a node's state.
pub fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::CatchingUp => "catching up",
        NodeState::Ready => "ready",
        NodeState::Halted => "halted",
    }
}
