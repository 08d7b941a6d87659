//! Protocol versions on real nodes (docs/protocol.md 10.10): who does not know the next epoch's rules stops before it, the others
//! go on, and a newer program goes on in the same directory.

mod support;

use dagger_ledger::{Action, Parameters, Propose, ProposedChange, ProtocolVersion, Subject, Vote};
use dagger_node::{NodeError, node::Node};
use support::{DEADLINE, Network, until};

const OLD: u32 = 1;
const NEW: u32 = 2;

async fn start_knowing(network: &mut Network, i: usize, version: u32) -> Result<(), NodeError> {
    let mut config = network.config(i);
    config.newest_protocol_version = version;
    network.nodes[i] = Some(Node::start(config).await?);
    Ok(())
}

fn epoch(network: &Network, i: usize) -> u64 {
    network.handle(i).status().consensus.epoch
}

/// Opens accounts through the first three nodes until their epoch is at least `epoch`; returns the last commit.
async fn load_until_epoch(network: &Network, wanted: u64) -> u64 {
    let mut last = 0;
    for n in 0.. {
        let node = n % 3;
        let name = format!("to-{wanted}-{n}");
        let status = network.execute(node, network.account(node, &name)).await;
        last = status.commit.unwrap().index.max(last);
        if (0..3).all(|i| epoch(network, i) >= wanted) {
            break;
        }
    }
    last
}

async fn raise_version(network: &Network) {
    let change = ProposedChange::ProtocolVersion(ProtocolVersion { version: NEW });
    let propose = network.sign(0, Action::Propose(Propose { change }));
    let digest = network.execute(0, propose).await.digest.parse().unwrap();
    let commits = network.handle(0).commits(1, usize::MAX);
    let mut outcomes = commits.iter().flat_map(|c| &c.outcomes);
    let outcome = outcomes.find(|o| o.digest == digest).unwrap();
    let Some(Subject::Proposal(proposal)) = outcome.subject else {
        panic!("a proposal has a number");
    };
    for voter in [1, 2] {
        let approve = true;
        let vote = network.sign(voter, Action::Vote(Vote { proposal, approve }));
        // Where the proposal is known already, and the decision is known after.
        network.execute(0, vote).await;
    }
}

/// Waits until a node stops by itself, checks why, and puts it away.
async fn stops_before_the_new_rules(network: &mut Network, i: usize, first: u64) {
    let node = network.nodes[i].as_mut().unwrap();
    let why = tokio::time::timeout(DEADLINE, node.stopped())
        .await
        .unwrap();
    assert_eq!(why.code(), "E_NEWER_PROTOCOL", "{why}");
    let NodeError::NewerProtocol {
        epoch,
        needed: NEW,
        known: OLD,
    } = why
    else {
        panic!("{why}");
    };
    assert!(epoch >= first);
    network.stop(i).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_the_next_rules_stops_before_them_and_goes_on_with_a_newer_program() {
    let parameters = Parameters {
        epoch_transactions: 12,
        ..Parameters::default()
    };
    let mut network = Network::new(4, parameters);
    let newcomer = network.newcomer().node_key.to_hex();
    for i in 0..4 {
        network.configure(i, |config| {
            config.peers.insert(newcomer.clone(), Vec::new());
            // A start in the middle of an epoch then begins from a state of which the vote is part.
            config.store.snapshot_commits = 1;
        });
    }
    for (i, knows) in [(0, NEW), (1, NEW), (2, NEW), (3, OLD)] {
        start_knowing(&mut network, i, knows).await.unwrap();
    }
    network.execute(3, network.account(3, "before")).await;
    raise_version(&network).await;
    let (before, decided) = network
        .handle(0)
        .read(|l| (l.epoch().number, l.protocol_version_decided()));
    assert_eq!((before, decided), (0, NEW));
    until("the decision and a warning of it", || {
        let status = network.handle(3).status();
        status.problems.iter().any(|p| p.code == "E_NEWER_PROTOCOL")
    })
    .await;
    // The epoch in which the vote fell is under the old rules to its end, after a start as well.
    network.stop(3).await;
    start_knowing(&mut network, 3, OLD).await.unwrap();
    network
        .execute(3, network.account(3, "still-a-member"))
        .await;
    assert_eq!(epoch(&network, 3), 0);

    load_until_epoch(&network, 1).await;
    stops_before_the_new_rules(&mut network, 3, 1).await;
    let events = network.node_dir(3).join("events");
    assert!(events.join("0000000000/end").exists());
    assert!(!events.join("0000000001").exists());
    let again = start_knowing(&mut network, 3, OLD).await.unwrap_err();
    assert_eq!(again.code(), "E_NEWER_PROTOCOL", "{again}");
    assert!(!events.join("0000000001").exists());

    // The others go on; with a newer program so does this node.
    load_until_epoch(&network, 3).await;
    start_knowing(&mut network, 3, NEW).await.unwrap();
    until("the seat to sign again", || {
        network.handle(3).status().seat.is_some() && epoch(&network, 3) >= 3
    })
    .await;
    let through = network.execute(3, network.account(3, "after")).await;
    assert_eq!(through.event.unwrap().event.creator_name, "op-3");
    // Who is new and takes their state of a later epoch does not go on from it with the old program either.
    start_knowing(&mut network, 4, OLD).await.unwrap();
    stops_before_the_new_rules(&mut network, 4, 1).await;
    start_knowing(&mut network, 4, NEW).await.unwrap();
    network.common_root(through.commit.unwrap().index).await;
    network.stop_all().await;
}
