//! Nodes without a seat that follow nodes without a seat: nobody but those lets them in.

mod support;

use std::fs;

use dagger_ledger::{Key, Parameters};
use dagger_node::config::{AllWord, Retain};
use support::{Network, until};

/// The node key of a newcomer, and where it listens.
type Newcomer = (usize, Key, std::net::SocketAddr);

fn newcomer(network: &mut Network) -> Newcomer {
    let add = network.newcomer();
    let i = network.nodes.len() - 1;
    fs::remove_file(network.node_dir(i).join("keys/consensus.json")).unwrap();
    (i, add.node_key, network.config(i).listen)
}

/// Puts `peer` into the `[peers]` of node `i`, with its address if `dials`.
fn knows(network: &Network, i: usize, peer: Newcomer, dials: bool) {
    let addresses = if dials { vec![peer.2] } else { Vec::new() };
    network.configure(i, |config| {
        config.peers.insert(peer.1.to_hex(), addresses);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_follows_a_follower_and_takes_another_when_that_one_is_gone() {
    let parameters = Parameters {
        epoch_transactions: 15,
        ..Parameters::default()
    };
    let mut network = Network::new(4, parameters);
    for i in 0..4 {
        network.configure(i, |config| config.store.retain = Retain::Epochs(100));
    }
    let (first, second, last) = (
        newcomer(&mut network),
        newcomer(&mut network),
        newcomer(&mut network),
    );
    // The members let the first two in, and only those let the last one in. It is told of one of them.
    for i in 0..4 {
        knows(&network, i, first, false);
        knows(&network, i, second, false);
    }
    knows(&network, first.0, second, true);
    knows(&network, first.0, last, false);
    knows(&network, second.0, first, true);
    knows(&network, second.0, last, false);
    knows(&network, last.0, first, true);
    // All three read the whole history: one that began with a state could not give the last what was before it.
    for node in [first, second, last] {
        network.configure(node.0, |config| {
            config.store.retain = Retain::All(AllWord::All);
        });
    }
    for i in 0..4 {
        network.start(i).await;
    }
    network.load("before", 20, &[0, 1, 2, 3]).await;
    network.start(first.0).await;
    network.start(second.0).await;
    network.start(last.0).await;
    let commit = network.load("chain", 20, &[0, 1, 2, 3]).await;
    network.common_root(commit).await;
    // Through two hops.
    let through = network
        .execute(last.0, network.account(0, "through-the-last"))
        .await;
    network.common_root(through.commit.unwrap().index).await;
    let peers = || network.handle(last.0).status().peers;
    let connected = |peer: Newcomer| {
        let key = peer.1.to_hex();
        peers().iter().any(|p| p.node_key == key && p.connected)
    };
    until("the second to be learnt of", || connected(second)).await;
    network.stop(first.0).await;
    let commit = network.load("without", 20, &[0, 1, 2, 3]).await;
    network.common_root(commit).await;
    assert_eq!(network.handle(last.0).read(|l| l.accounts().count()), 61);
    assert!(network.handle(last.0).status().consensus.epoch >= 2);
    // No member ever let it in, and it holds the whole history.
    for i in 0..4 {
        let peers = network.handle(i).status().peers;
        assert!(peers.iter().all(|p| p.node_key != last.1.to_hex()));
    }
    let first_log = network
        .node_dir(last.0)
        .join("events/0000000000/0000000001.log");
    assert!(fs::metadata(first_log).unwrap().len() > 1_000);
    network.stop_all().await;
}
