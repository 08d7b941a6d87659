//! A node that is killed at any moment comes back with everything, and contradicts nothing it has said.

mod support;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use dagger_ledger::Parameters;
use dagger_node::{NodeConfig, node};
use support::{Network, init_log, until};

const CHILD_DIR: &str = "DAGGER_TEST_NODE_DIR";

/// Not a test of its own: the node in a process of its own, which `a_killed_node...` starts and kills.
#[test]
fn child_node() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    init_log();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = NodeConfig::load(dir.as_ref()).unwrap();
    runtime
        .block_on(node::run(config, std::future::pending::<()>()))
        .unwrap();
}

fn spawn_child(network: &Network, i: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_node", "--nocapture"])
        .env(CHILD_DIR, network.node_dir(i))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_comes_back_to_the_same_state_every_time() {
    let mut network = Network::new(4, Parameters::default());
    for i in 0..3 {
        network.start(i).await;
    }
    // Some lives begin with a snapshot, and execute nothing again of what it stands for.
    network.configure(3, |config| config.store.snapshot_commits = 20);
    let mut executed = Vec::new();
    let mut last = 0;
    for life in 0..6 {
        let mut child = spawn_child(&network, 3);
        until("the child's connection", || {
            network
                .handle(0)
                .status()
                .peers
                .iter()
                .any(|p| p.name == "op-3" && p.connected)
        })
        .await;
        // Each life ends after another amount of work, some of them while it is still catching up.
        for n in 0..life {
            let status = network
                .execute(n % 3, network.account(n % 3, &format!("a-{life}-{n}")))
                .await;
            last = status.commit.unwrap().index;
            executed.push(status.digest.parse().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    network.start(3).await;
    // Its snapshot may be of the very last commit: a node that has executed nothing yet shows no checkpoint.
    let status = network.execute(0, network.account(0, "one-more")).await;
    last = last.max(status.commit.unwrap().index);
    executed.push(status.digest.parse().unwrap());
    network.common_root(last).await;
    assert_eq!(
        network.handle(3).read(|l| l.accounts().count()),
        executed.len()
    );
    // What it executed in any of its lives is in its index.
    network.stop(3).await;
    network.start(3).await;
    for digest in &executed {
        let told = network.handle(3).past_transaction(digest).await.known();
        assert!(told.unwrap().outcome.unwrap().ok);
    }
    let outcomes = network.handle(3).status().outcomes.unwrap();
    assert_eq!(
        (outcomes.from_commit, outcomes.transactions),
        (1, network.handle(0).status().ledger.transactions)
    );
    // It takes part again: its own transaction is ordered, in an event of its own.
    let status = network.execute(3, network.account(0, "after-all")).await;
    assert_eq!(status.event.unwrap().event.creator, 3);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_with_one_key_are_stopped() {
    let mut network = Network::new(4, Parameters::default());
    for i in 0..3 {
        network.start(i).await;
    }
    network.execute(0, network.account(0, "one")).await;
    // A copy of node 2's directory on another port, as an operator makes it who wants a spare.
    network.stop(2).await;
    copy_dir(&network.node_dir(2), &network.node_dir(3));
    let mut copy = network.config(3);
    copy.listen = support::addresses::free_address();
    copy.save().unwrap();
    network.start(2).await;
    network.execute(2, network.account(0, "two")).await;
    let mut copy = node::Node::start(copy).await.unwrap();
    let original = network.nodes[2].as_mut().unwrap();
    // One of the two, or both, but never neither.
    let error = tokio::select! {
        error = copy.stopped() => error,
        error = original.stopped() => error,
        () = tokio::time::sleep(support::DEADLINE) => panic!("two nodes with one key went on"),
    };
    assert_eq!(error.code(), "E_DUPLICATE_KEY");
    copy.stop().await;
    network.stop_all().await;
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
