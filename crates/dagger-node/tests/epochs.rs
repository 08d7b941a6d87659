//! Epochs over real endpoints: they end under load, operators join and leave, nodes that were away come back. Three of the
//! tests are named after faults of the network this design comes from.

mod support;

use dagger_ledger::{
    Action, Arch, MachineAdd, MachineState, OperatorKeys, OperatorLeave, Parameters, Propose,
    ProposedChange, Subject, Vote,
};
use dagger_node::Answer;
use dagger_node::config::{AllWord, Retain};
use dagger_node::keys::{Key, KeyKind};
use dagger_node::replay::replay;
use std::collections::BTreeMap;
use support::{Network, is_sealed, until};

/// Epochs of this many transactions.
fn epochs_of(transactions: u64) -> Parameters {
    Parameters {
        epoch_transactions: transactions,
        ..Parameters::default()
    }
}

fn epoch(network: &Network, i: usize) -> u64 {
    network.handle(i).status().consensus.epoch
}

/// Opens accounts `<prefix>-0..count` through the nodes `through` in turn.
fn accounts(network: &Network, i: usize) -> usize {
    network.handle(i).read(|l| l.accounts().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_does_not_deadlock_at_epoch_boundaries() {
    let mut network = Network::new(4, epochs_of(5));
    network.start_all().await;
    let last = network.load("a", 40, &[0, 1, 2, 3]).await;
    network.common_root(last).await;
    until("several epochs", || (0..4).all(|i| epoch(&network, i) >= 3)).await;
    assert!((0..4).all(|i| accounts(&network, i) == 40));
    // Everything stops, and comes back from what is on disk.
    let before = epoch(&network, 0);
    network.stop_all().await;
    network.start_all().await;
    let last = network.load("b", 10, &[0, 1, 2, 3]).await;
    network.common_root(last).await;
    assert!((0..4).all(|i| accounts(&network, i) == 50 && epoch(&network, i) >= before));
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_catches_up_after_load_although_the_logs_it_lacks_are_gone() {
    let mut network = Network::new(4, epochs_of(5));
    for i in 0..4 {
        network.configure(i, |config| config.store.retain = Retain::Epochs(0));
    }
    network.start_all().await;
    network.load("before", 2, &[0, 1, 2, 3]).await;
    network.stop(3).await;
    let away = epoch(&network, 0);
    let mut n = 0;
    while epoch(&network, 0) < away + 5 {
        network.load(&format!("away-{n}"), 3, &[0, 1, 2]).await;
        n += 1;
    }
    let missed = network.execute(0, network.account(0, "missed")).await;
    let (missed, missed_at) = (missed.digest, missed.commit.unwrap().index);
    network.load("ends-its-epoch", 5, &[0, 1, 2]).await;
    network.start(3).await;
    until("the returned node", || epoch(&network, 3) > away + 3).await;
    let last = network.load("after", 8, &[0, 1, 2, 3]).await;
    network.common_root(last).await;
    // What it skipped it knows no outcomes of, and it says so.
    let told = network
        .handle(3)
        .past_receipt(&missed.parse().unwrap())
        .await;
    assert!(
        matches!(told, Answer::NotKept { from_commit: Some(from) } if from > missed_at),
        "{told:?}"
    );
    assert_eq!(accounts(&network, 3), 2 + 3 * n + 6 + 8);
    network.stop_all().await;
}

async fn admit(network: &Network, change: ProposedChange, voters: &[usize]) {
    let propose = Action::Propose(Propose { change });
    let status = network
        .execute(voters[0], network.sign(voters[0], propose))
        .await;
    let digest = status.digest.parse().unwrap();
    let proposal = network.handle(voters[0]).commits(1, usize::MAX);
    let outcomes = proposal.iter().flat_map(|c| &c.outcomes);
    let mut subjects = outcomes.filter(|o| o.digest == digest);
    let Some(Subject::Proposal(proposal)) = subjects.next().unwrap().subject else {
        panic!("a proposal has a number");
    };
    for voter in &voters[1..] {
        let vote = Action::Vote(Vote {
            proposal,
            approve: true,
        });
        network.execute(*voter, network.sign(*voter, vote)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_joins_by_snapshot_under_load_and_another_leaves() {
    let mut network = Network::new(4, epochs_of(12));
    for i in 0..4 {
        network.configure(i, |config| config.store.retain = Retain::Epochs(0));
    }
    network.start_all().await;
    let add = network.newcomer();
    let mut executed = 30;
    network.load("before", executed, &[0, 1, 2, 3]).await;
    admit(&network, ProposedChange::OperatorAdd(add), &[0, 1, 2]).await;
    network.start(4).await;
    until("the fifth seat", || {
        network.handle(4).status().seat.is_some()
    })
    .await;
    network.load("five", 10, &[0, 1, 2, 3, 4]).await;
    executed += 10;
    let through = network
        .execute(4, network.account(1, "through-the-fifth"))
        .await;
    executed += 1;
    assert_eq!(through.event.unwrap().event.creator_name, "op-4");
    // The first one leaves; its node follows on without a seat.
    let leave = Action::OperatorLeave(OperatorLeave {});
    network.execute(1, network.sign(0, leave)).await;
    until("the first seat to go", || {
        (0..5).all(|i| network.handle(i).status().consensus.members.len() == 4)
            && network.handle(0).status().seat.is_none()
    })
    .await;
    let last = network.load("four", 10, &[1, 2, 3, 4]).await;
    executed += 10;
    network.stop(0).await;
    let last = last.max(network.load("without", 5, &[1, 2, 3, 4]).await);
    executed += 5;
    network.common_root(last).await;
    assert!((1..5).all(|i| accounts(&network, i) == executed));
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_of_one_grows_to_four() {
    let mut network = Network::new(1, Parameters::default());
    network.start_all().await;
    network.load("one", 3, &[0]).await;
    for seats in 1..4 {
        let add = network.newcomer();
        let voters: Vec<usize> = (0..seats).collect();
        admit(&network, ProposedChange::OperatorAdd(add), &voters).await;
        network.start(seats).await;
        until("one more seat", || {
            (0..=seats).all(|i| network.handle(i).status().seat.is_some())
        })
        .await;
    }
    let last = network.load("four", 8, &[0, 1, 2, 3]).await;
    network.common_root(last).await;
    assert!((0..4).all(|i| accounts(&network, i) == 11));
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_presence_of_a_node_that_is_away_is_not_over_reported() {
    let parameters = Parameters {
        heartbeat_ms: 300,
        hear_timeout_ms: 1_500,
        lease_ms: 4_000,
        margin_ms: 1_000,
        gap_cap_ms: 2_000,
        ..epochs_of(5)
    };
    let mut network = Network::new(4, parameters);
    network.start_all().await;
    let machine = Action::MachineAdd(MachineAdd {
        machine: "m-3".into(),
        node_key: network.genesis.operators[3].node_key,
        arch: Arch::X86_64,
        vcpus: 1,
        memory_mib: 64,
        disk_mib: 64,
        cpu_permille: 1_000,
        labels: BTreeMap::new(),
    });
    network.execute(0, network.sign(3, machine)).await;
    // As any node sees it: its state, and how many others say that they hear it.
    let machine = |network: &Network| {
        network.handle(0).read(|ledger| {
            let machine = ledger.machines().next().unwrap();
            let heard = machine.heard_by.iter().filter(|heard| heard.standing);
            (machine.state, heard.count())
        })
    };
    until("the machine to be heard by its rivals", || {
        machine(&network) == (MachineState::Up, 3)
    })
    .await;
    network.load("before", 6, &[0, 1, 2, 3]).await;
    network.stop(3).await;
    let gone = network.handle(0).read(dagger_ledger::Ledger::commit_index);
    network.load("away", 15, &[0, 1, 2]).await;
    until("the absent node's connection to be given up", || {
        let peers = network.handle(0).status().peers;
        peers.iter().any(|p| p.name == "op-3" && !p.connected)
    })
    .await;
    // What counts as presence is events in commits: of the absent seat none is left after a while.
    let status = network.handle(0).status();
    let absent = status.consensus.members.iter().find(|m| m.name == "op-3");
    let present = status.consensus.members.iter().find(|m| m.name == "op-1");
    assert!(network.handle(0).read(dagger_ledger::Ledger::commit_index) > gone);
    assert!(absent.unwrap().round < present.unwrap().round, "{status:?}");
    // And for a machine what its rivals attest, which nobody renews for one that is silent.
    until("the machine to count as lost", || {
        machine(&network) == (MachineState::Lost, 0)
    })
    .await;
    network.start(3).await;
    until("the machine to be heard again", || {
        machine(&network) == (MachineState::Up, 3)
    })
    .await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_consensus_key_takes_the_seat_without_a_restart_and_the_old_one_may_go() {
    let mut network = Network::new(4, epochs_of(12));
    network.start_all().await;
    network.load("before", 4, &[0, 1, 2, 3]).await;
    let keys = network.node_dir(1).join("keys");
    let key = Key::generate(KeyKind::Consensus);
    key.save_new(&keys.join("consensus-2.json")).unwrap();
    let named = dagger_ledger::Key(key.public());
    let rotate = Action::OperatorKeys(OperatorKeys {
        consensus_key: Some(named),
        ..OperatorKeys::default()
    });
    let rotated_in = epoch(&network, 0);
    network.execute(2, network.sign(1, rotate)).await;
    until("the next epoch", || {
        (0..4).all(|i| epoch(&network, i) > rotated_in)
    })
    .await;
    // What the seat signs now is of the new key: the old one has none.
    let through = network.execute(1, network.account(0, "rotated")).await;
    assert_eq!(through.event.unwrap().event.creator_name, "op-1");
    assert!(network.handle(1).status().problems.is_empty());
    network.stop(1).await;
    std::fs::remove_file(keys.join("consensus.json")).unwrap();
    network.start(1).await;
    until("the seat again", || {
        network.handle(1).status().seat.is_some()
    })
    .await;
    let through = network.execute(1, network.account(0, "without")).await;
    assert_eq!(through.event.unwrap().event.creator_name, "op-1");
    // Without the file the seat stays empty, and the node says so.
    network.stop(1).await;
    std::fs::rename(keys.join("consensus-2.json"), keys.join("aside.json")).unwrap();
    network.start(1).await;
    let says = |code: &str| {
        let problems = network.handle(1).status().problems;
        problems.iter().any(|problem| problem.code == code)
    };
    until("the node to say so", || says("E_NO_CONSENSUS_KEY")).await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_history_replays_to_the_certified_roots_from_genesis_alone() {
    let mut network = Network::new(4, epochs_of(5));
    for i in 0..4 {
        network.configure(i, |config| config.store.retain = Retain::All(AllWord::All));
    }
    network.start_all().await;
    let last = network.load("a", 20, &[0, 1, 2, 3]).await;
    network.common_root(last).await;
    until("several epochs", || (0..4).all(|i| epoch(&network, i) >= 2)).await;
    let log = "events/0000000001/0000000001.log";
    let sealed = |i| is_sealed(&network.node_dir(i).join(log));
    until("sealed logs", || (0..4).all(sealed)).await;
    network.stop_all().await;
    let mut roots = BTreeMap::new();
    for i in 0..4 {
        let config = network.config(i);
        // Neither its keys nor its state say anything that the replay believes.
        std::fs::remove_dir_all(config.data_dir.join("keys")).unwrap();
        std::fs::remove_dir_all(config.data_dir.join("state")).unwrap();
        let replayed = replay(&config, |_| {}).unwrap();
        assert!(replayed.transactions >= 20 && replayed.epoch >= 2);
        assert!(replayed.commit >= last && replayed.compared > replayed.epoch);
        let root = *roots
            .entry(replayed.checkpoint)
            .or_insert(replayed.state_root);
        assert_eq!(root, replayed.state_root);
    }
    let config = network.config(0);
    std::fs::remove_dir_all(config.data_dir.join("events/0000000000")).unwrap();
    let refused = replay(&config, |_| {}).unwrap_err();
    assert_eq!(refused.code(), "E_HISTORY_PRUNED");
}
