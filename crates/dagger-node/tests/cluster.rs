//! Four nodes in one process over real endpoints: one order, one state, restarts, bad starts.

mod support;

use std::{fs, time::Duration};

use dagger_ledger::Parameters;
use dagger_node::{NodeError, node::Node, store};
use support::{Network, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_execute_the_same_transactions_in_one_order() {
    let mut network = Network::new(4, Parameters::default());
    network.start_all().await;
    let mut last = 0;
    for n in 0..20 {
        let node = n % 4;
        let status = network
            .execute(node, network.account(n % 4, &format!("account-{n}")))
            .await;
        assert!(status.accepted.is_some() && status.event.is_some());
        last = status.commit.unwrap().index;
    }
    network.common_root(last).await;
    let commits = |i: usize| {
        let records = network.handle(i).commits(1, usize::MAX);
        records
            .iter()
            .filter(|c| c.index <= last)
            .map(|c| (c.index, c.digest))
            .collect::<Vec<_>>()
    };
    let first = commits(0);
    assert!(first.len() as u64 == last && (1..4).all(|i| commits(i) == first));
    assert!((0..4).all(|i| network.handle(i).read(|l| l.accounts().count()) == 20));
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up_to_the_same_state() {
    let mut network = Network::new(4, Parameters::default());
    network.start_all().await;
    network.execute(0, network.account(0, "before")).await;
    network.stop(3).await;
    for n in 0..10 {
        network
            .execute(n % 3, network.account(0, &format!("while-away-{n}")))
            .await;
    }
    network.start(3).await;
    let status = network.execute(0, network.account(0, "after")).await;
    network.common_root(status.commit.unwrap().index).await;
    assert_eq!(network.handle(3).read(|l| l.accounts().count()), 12);
    // The one that was away works as before.
    network
        .execute(3, network.account(1, "through-the-returned"))
        .await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_network_comes_back_from_its_logs() {
    let mut network = Network::new(4, Parameters::default());
    network.start_all().await;
    let mut last = 0;
    for n in 0..5 {
        last = network
            .execute(n % 4, network.account(0, &format!("a-{n}")))
            .await
            .commit
            .unwrap()
            .index;
    }
    let root = network.common_root(last).await;
    network.stop_all().await;
    network.start_all().await;
    until("recovery", || {
        (0..4).all(|i| network.handle(i).read(|l| l.commit_index()) >= Some(last))
    })
    .await;
    assert_eq!(network.handle(0).read(|l| l.accounts().count()), 5);
    let status = network.execute(2, network.account(0, "again")).await;
    assert_ne!(
        network.common_root(status.commit.unwrap().index).await,
        root
    );
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_transaction_handed_in_twice_is_executed_once() {
    let mut network = Network::new(4, Parameters::default());
    network.start_all().await;
    let transaction = network.account(0, "once");
    let first = network.handle(0).submit(transaction.clone()).await.unwrap();
    let second = network.handle(0).submit(transaction.clone()).await.unwrap();
    assert_eq!(first, second);
    network.execute(0, transaction.clone()).await;
    // Through another node too: that one knows the outcome.
    until("the other node", || {
        network
            .handle(1)
            .transaction(&first.digest)
            .is_some_and(|t| t.outcome.is_some())
    })
    .await;
    let again = network.execute(1, transaction).await;
    assert_eq!(
        again.commit.unwrap().index,
        network
            .handle(0)
            .transaction(&first.digest)
            .unwrap()
            .commit
            .unwrap()
            .index
    );
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_transaction_is_refused_before_it_enters_the_network() {
    let mut network = Network::new(1, Parameters::default());
    network.start_all().await;
    let mut forged = network.account(0, "forged");
    forged.signature[0] ^= 1;
    assert_eq!(
        network.handle(0).submit(forged).await.unwrap_err().code,
        "bad_signature"
    );
    let other = Network::new(1, Parameters::default());
    assert_eq!(
        network
            .handle(0)
            .submit(other.account(0, "foreign"))
            .await
            .unwrap_err()
            .code,
        "wrong_chain"
    );
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_of_one_commits() {
    let mut network = Network::new(1, Parameters::default());
    network.start_all().await;
    let status = network.execute(0, network.account(0, "alone")).await;
    network.common_root(status.commit.unwrap().index).await;
    network.stop_all().await;
}

async fn start_error(network: &Network, i: usize) -> dagger_node::NodeError {
    match Node::start(network.config(i)).await {
        Ok(_) => panic!("the node started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_starts_are_named_and_change_nothing() {
    let mut network = Network::new(1, Parameters::default());
    network.start(0).await;
    network.execute(0, network.account(0, "kept")).await;
    assert_eq!(start_error(&network, 0).await.code(), "E_DATA_DIR_LOCKED");
    network.stop(0).await;
    let dir = network.node_dir(0);
    // Another network's genesis.
    let genesis = fs::read_to_string(dir.join("genesis.json")).unwrap();
    fs::write(
        dir.join("genesis.json"),
        genesis.replace("\"test\"", "\"other\""),
    )
    .unwrap();
    assert_eq!(start_error(&network, 0).await.code(), "E_WRONG_NETWORK");
    fs::write(dir.join("genesis.json"), &genesis).unwrap();
    // A later format.
    let mark = fs::read_to_string(dir.join("format.json")).unwrap();
    fs::write(
        dir.join("format.json"),
        mark.replace("\"format\": 2", "\"format\": 99"),
    )
    .unwrap();
    assert_eq!(start_error(&network, 0).await.code(), "E_NEWER_FORMAT");
    fs::write(dir.join("format.json"), &mark).unwrap();
    // A taken port.
    let held = std::net::UdpSocket::bind(network.config(0).listen).unwrap();
    assert_eq!(start_error(&network, 0).await.code(), "E_PORT_IN_USE");
    drop(held);
    // A flipped bit in the log.
    let log = dir.join("events/0000000000/0000000001.log");
    let good = fs::read(&log).unwrap();
    let mut bad = good.clone();
    let at = bad.len() / 2;
    bad[at] ^= 16;
    fs::write(&log, &bad).unwrap();
    assert_eq!(start_error(&network, 0).await.code(), "E_OWN_EVENT_DAMAGED");
    assert_eq!(fs::read(&log).unwrap(), bad);
    // With the file as it was everything is there again; a torn tail does no harm.
    fs::write(&log, &good[..good.len() - 3]).unwrap();
    network.start(0).await;
    until("recovery", || {
        network.handle(0).read(|l| l.accounts().count()) == 1
    })
    .await;
    network.execute(0, network.account(0, "more")).await;
    network.stop(0).await;
    let options = store::Options {
        segment_bytes: 1 << 30,
        durability: dagger_node::config::Durability::Os,
        discard: false,
    };
    let log_dir = dir.join("events/0000000000");
    let (log, report) =
        store::EventLog::open(&log_dir, network.genesis.chain_id.0, options).unwrap();
    assert!(report.cut_bytes == 0 && log.bytes() > 0);
}

fn inject(network: &Network, i: usize, faults: &str) {
    fs::write(network.node_dir(i).join("faults.json"), faults).unwrap();
}

const WRONG_ROOTS: &str = r#"{"wrong_roots":true}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_state_differs_halts_loudly_and_keeps_the_evidence() {
    let mut network = Network::new(4, Parameters::default());
    network.configure(3, |config| config.faults = Some("faults.json".into()));
    network.start_all().await;
    network.execute(0, network.account(0, "same")).await;
    inject(&network, 3, WRONG_ROOTS);
    let mut n = 0;
    let error = loop {
        n += 1;
        network
            .execute(n % 3, network.account(0, &format!("on-{n}")))
            .await;
        let stopped = network.nodes[3].as_mut().unwrap().stopped();
        if let Ok(error) = tokio::time::timeout(Duration::from_millis(50), stopped).await {
            break error;
        }
    };
    let NodeError::Diverged { detail, evidence } = &error else {
        panic!("it stopped for another reason: {error}");
    };
    assert!(detail.contains("state root"), "{detail}");
    let evidence: serde_json::Value = serde_json::from_slice(&fs::read(evidence).unwrap()).unwrap();
    assert_ne!(
        evidence["ours"]["state_root"],
        evidence["certified"]["state_root"]
    );
    assert_eq!(
        evidence["ours"]["commit_digest"],
        evidence["certified"]["commit_digest"]
    );
    assert!(evidence["certified"]["signers"].as_array().unwrap().len() >= 3);
    network.stop(3).await;
    // The others agree, and go on.
    let last = network.execute(1, network.account(0, "after")).await;
    network.common_root(last.commit.unwrap().index).await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_quorum_for_any_state_stops_the_end_of_the_epoch_and_alarms() {
    let parameters = Parameters {
        epoch_transactions: 5,
        ..Parameters::default()
    };
    let mut network = Network::new(4, parameters);
    for i in [2, 3] {
        network.configure(i, |config| config.faults = Some("faults.json".into()));
        inject(&network, i, WRONG_ROOTS);
    }
    network.start_all().await;
    let alarmed = |i: usize| {
        let problems = network.handle(i).status().problems;
        problems
            .iter()
            .any(|problem| problem.code == "E_NO_AGREEMENT")
    };
    let epoch = |i: usize| network.handle(i).status().consensus.epoch;
    // The ledger has ended the epoch, and consensus has not.
    let stuck = |i: usize| network.handle(i).read(|l| l.epoch().number) > epoch(i) && alarmed(i);
    let end = tokio::time::Instant::now() + support::DEADLINE;
    for n in 0.. {
        if (0..4).all(stuck) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "the epoch does not end");
        let executed = network.execute(n % 4, network.account(n % 4, &format!("a-{n}")));
        let _ = tokio::time::timeout(Duration::from_millis(300), executed).await;
    }
    let stands = epoch(0);
    assert!((0..4).all(|i| epoch(i) == stands));
    let certified = |i: usize| {
        let checkpoint = network.handle(i).status().checkpoint;
        checkpoint.is_some_and(|checkpoint| checkpoint.certified)
    };
    assert!((0..4).all(|i| !certified(i)));
    let refused = network.execute(0, network.account(0, "never"));
    assert!(
        tokio::time::timeout(Duration::from_secs(3), refused)
            .await
            .is_err()
    );
    assert!((0..4).all(|i| epoch(i) == stands));
    network.stop_all().await;
}
