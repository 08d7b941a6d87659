//! Nodes without a seat have events from one member at a time, and from another when that one is gone.

mod support;

use std::fs;

use dagger_ledger::Parameters;
use support::{Network, until};

/// The members that send events on to somebody.
fn sources(network: &Network, members: &[usize]) -> Vec<usize> {
    let sends_on = |i: &usize| {
        let metrics = network.handle(*i).metrics();
        metrics.lines().any(|line| line == "dagger_subscribers 1")
    };
    members.iter().copied().filter(sends_on).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_seat_has_events_from_one_member_at_a_time() {
    let mut network = Network::new(4, Parameters::default());
    let follower = network.newcomer();
    fs::remove_file(network.node_dir(4).join("keys/consensus.json")).unwrap();
    for i in 0..4 {
        network.configure(i, |config| {
            config.peers.insert(follower.node_key.to_hex(), Vec::new());
        });
    }
    network.start_all().await;
    let mut source = Vec::new();
    until("one source", || {
        source = sources(&network, &[0, 1, 2, 3]);
        source.len() == 1
    })
    .await;
    let commit = network.load("fed", 20, &[0, 1, 2, 3, 4]).await;
    network.common_root(commit).await;
    // While a member is away the others are a quorum, and one of them takes over what it did.
    let gone = source[0];
    network.stop(gone).await;
    let rest: Vec<usize> = (0..4).filter(|i| *i != gone).collect();
    until("another source", || !sources(&network, &rest).is_empty()).await;
    let commit = network.load("fed-by-another", 20, &[rest[0], 4]).await;
    network.common_root(commit).await;
    network.stop_all().await;
}
