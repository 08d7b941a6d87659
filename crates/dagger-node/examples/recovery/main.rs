//! Measures how a node with a long history starts, how a new one takes its state, and what a log costs on disk:
//! `cargo run --release -p dagger-node --example recovery [-- TRANSACTIONS [DIR]]` (5,000,000 unless said otherwise). What is made in
//! DIR stays there, and a second run measures the starts alone.
//!
//! The ledger comes from blocks that are executed straight away, without consensus (`history.rs`); then real node processes start on it.
//! The epoch ends with the last block, so that its state is one that peers give out. Prints a table.

mod history;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagger_ledger::{Genesis, Ledger};
use dagger_node::{
    NodeConfig,
    config::Durability,
    keys::{Key as KeyFile, KeyKind},
    store::{Epochs, EventKey, EventLog, Options, SnapshotHead, Snapshots},
};
use history::{CONSENSUS, History, NODE, OPERATORS, end, genesis, history, key, secret};
use shadowgraph::{ChainId, Epoch, EventDraft, EventRef, MemberIndex, Round, SigningKey};

const PATIENCE: Duration = Duration::from_secs(300);
/// The node that has nothing yet.
const NEW: usize = 99;

fn options() -> Options {
    Options {
        segment_bytes: 64 << 20,
        durability: Durability::Os,
        discard: false,
    }
}

/// A node's directory; it knows one other node.
fn node_dir(dir: &Path, genesis: &Genesis, own: (usize, SocketAddr), peer: (usize, SocketAddr)) {
    let keys = dir.join("keys");
    let file = |kind: KeyKind, role: u8| KeyFile {
        kind,
        signing: ed25519_zebra::SigningKey::from(secret(role, own.0)),
    };
    let saved = file(KeyKind::Node, NODE).save_new(&keys.join("node.json"));
    saved.expect("the key is saved");
    if own.0 < OPERATORS {
        let saved = file(KeyKind::Consensus, CONSENSUS).save_new(&keys.join("consensus.json"));
        saved.expect("the key is saved");
    }
    fs::write(dir.join("genesis.json"), genesis.to_json()).expect("it is written");
    let mut config = NodeConfig::new(dir);
    config.listen = own.1;
    config.api = None;
    config.machine = false;
    config.durability = Durability::Os;
    config
        .peers
        .insert(key(NODE, peer.0).to_hex(), vec![peer.1]);
    config.save().expect("the configuration is saved");
}

/// A node in a process of its own.
struct Process(Child);

impl Process {
    /// Starts it and waits until its ledger has got to that commit.
    fn start(dir: &Path, commit: u64) -> (Self, Duration) {
        let started = Instant::now();
        let exe = std::env::current_exe().expect("this program has a path");
        let child = Command::new(exe)
            .args([
                "--node".as_ref(),
                dir.as_os_str(),
                commit.to_string().as_ref(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process starts");
        let mut this = Self(child);
        let mut line = String::new();
        let out = this.0.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)
            .expect("it says when it is ready");
        assert_eq!(line.trim(), "ready", "the node did not get there");
        (this, started.elapsed())
    }

    fn peak_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.expect("the process lives");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kib.expect("Linux tells the peak") / 1024.0
    }

    /// Seconds of all its threads on processors.
    fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("the process lives");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        // Linux counts in hundredths.
        (ticks(12) + ticks(13)) / 100.0
    }

    fn stop(mut self) {
        // The end of its input is its sign to stop.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What the other process does.
async fn run_node(dir: PathBuf, commit: u64) {
    let config = NodeConfig::load(&dir).expect("a configuration");
    let node = dagger_node::node::Node::start(config)
        .await
        .expect("it starts");
    let until = Instant::now() + PATIENCE;
    while node.handle().read(Ledger::commit_index) < Some(commit) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("ready");
    let _ = std::io::stdout().flush();
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    let _ = input.await;
    node.stop().await;
}

/// Bytes on disk for each byte of transactions, with 64 of them in an event.
fn log_overhead(dir: &Path, history: &mut History) -> f64 {
    const TRANSACTIONS: usize = 64;
    const ROUNDS: u64 = 500;
    let chain_id = ChainId(history.chain.0);
    let (mut log, _) = EventLog::open(dir, chain_id.0, options()).expect("a log");
    let genesis = |i| EventRef::genesis(&chain_id, Epoch(0), MemberIndex(i as u16));
    let mut parents: Vec<EventRef> = (0..OPERATORS).map(genesis).collect();
    let mut transaction_bytes = 0;
    for round in 1..=ROUNDS {
        let mut names = Vec::new();
        for seat in 0..OPERATORS {
            let transactions: Vec<Bytes> = (0..TRANSACTIONS)
                .map(|_| {
                    let mut wire = vec![7; 64];
                    wire.extend(history.create(round));
                    wire.into()
                })
                .collect();
            transaction_bytes += transactions.iter().map(Bytes::len).sum::<usize>();
            let draft = EventDraft {
                chain_id,
                epoch: Epoch(0),
                round: Round(round),
                creator: MemberIndex(seat as u16),
                timestamp_ms: history.time_ms,
                parents: parents.clone(),
                checkpoint_votes: Vec::new(),
                transactions,
            };
            let event = draft.seal(&SigningKey::from_bytes(secret(CONSENSUS, seat)));
            let name = *event.reference();
            let key = EventKey {
                round,
                creator: name.creator.0,
                digest: name.digest.0,
            };
            log.append(key, event.bytes());
            log.commit().expect("there is space");
            names.push(name);
        }
        parents = names;
    }
    let entries = fs::read_dir(dir).expect("the log is there");
    let lengths = entries.map(|e| e.and_then(|e| e.metadata()).expect("a file").len());
    lengths.sum::<u64>() as f64 / transaction_bytes as f64
}

fn say(what: &str, value: f64, unit: &str, target: Option<f64>) {
    let verdict = match target {
        None => String::new(),
        Some(target) if value < target => format!("< {target} {unit}: met"),
        Some(target) => format!("< {target} {unit}: MISSED"),
    };
    println!("{what:<52} {value:>10.2} {unit:<5} {verdict}");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--node") {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let commit = args[2].parse().expect("a number");
        runtime.block_on(run_node(args[1].clone().into(), commit));
        return;
    }
    let transactions = args
        .first()
        .map_or(5_000_000, |n| n.parse().expect("a number"));
    let made = tempfile::tempdir().expect("a directory");
    let dir = args.get(1).map_or(made.path(), Path::new);
    if !dir.join("commit").exists() {
        make(dir, transactions);
    }
    let commit = fs::read_to_string(dir.join("commit")).expect("it was made");
    measure(dir, commit.parse().expect("a number"));
}

/// Makes the directories of a node with a history and of one with nothing.
fn make(dir: &Path, transactions: u64) {
    let (old, new) = (dir.join("old"), dir.join("new"));
    let genesis = genesis(transactions);
    let mut history = history(&genesis, transactions);
    println!(
        "{} transactions in {} blocks, {} of them refused, {} VMs, {} MiB of JSON",
        history.executed,
        history.commit,
        history.refused,
        history.ledger.vms().count(),
        history.body_bytes >> 20
    );
    let overhead = log_overhead(&dir.join("log"), &mut history);
    let end = end(&mut history);
    let sockets = [0, 1].map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let [at, new_at] = sockets.map(|s| s.local_addr().expect("bound"));
    node_dir(&old, &genesis, (0, at), (NEW, new_at));
    node_dir(&new, &genesis, (NEW, new_at), (0, at));
    let snapshots = Snapshots::open(&old.join("state"), genesis.chain_id.0).expect("a directory");
    let head = SnapshotHead {
        commit: history.commit,
        commit_digest: history.digest(),
        transactions: history.executed,
        epoch: 1,
        starts_epoch: true,
    };
    let began = Instant::now();
    let state = history.ledger.freeze();
    let frozen = began.elapsed();
    let commit = history.commit;
    let began = Instant::now();
    let saved = snapshots.save(&head, |out| state.write(out));
    saved.expect("there is space");
    let written = began.elapsed();
    let file = snapshots.epoch_start(commit).expect("it reads");
    let body_bytes = file.expect("it is there").body_bytes;
    let epochs = Epochs::open(&old.join("events"), genesis.chain_id.0, options());
    let epochs = epochs.expect("a directory");
    epochs.save_end(&end).expect("there is space");
    let state_mib = body_bytes as f64 / f64::from(1 << 20);
    fs::write(dir.join("commit"), commit.to_string()).expect("there is space");
    say("state in a snapshot", state_mib, "MiB", None);
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1_000.0;
    say("  frozen, while execution waits", ms(frozen), "ms", None);
    say(
        "  written, while execution goes on",
        ms(written),
        "ms",
        None,
    );
    say(
        "log's bytes for each byte of transactions",
        overhead,
        "x",
        Some(1.3),
    );
}

fn measure(dir: &Path, commit: u64) {
    let (old, new) = (dir.join("old"), dir.join("new"));
    // Nothing of an earlier measurement.
    for sub in ["state", "events"] {
        let _ = fs::remove_dir_all(new.join(sub));
    }
    let (member, took) = Process::start(&old, commit);
    say(
        "restart, until it serves",
        took.as_secs_f64(),
        "s",
        Some(5.0),
    );
    say("  its processor time", member.cpu_s(), "s", None);
    say("  its peak memory", member.peak_mib(), "MiB", None);
    let (newcomer, took) = Process::start(&new, commit);
    say(
        "new node by snapshot, until it has the state",
        took.as_secs_f64(),
        "s",
        Some(60.0),
    );
    say("  its processor time", newcomer.cpu_s(), "s", None);
    say(
        "  its peak memory",
        newcomer.peak_mib(),
        "MiB",
        Some(1024.0),
    );
    say(
        "  peak memory of the node that gave it",
        member.peak_mib(),
        "MiB",
        Some(1024.0),
    );
    newcomer.stop();
    member.stop();
}
