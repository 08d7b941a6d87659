//! What became of a transaction is told, and proven, long after it has left memory.

mod support;

use std::{collections::BTreeSet, fs, path::Path};

use dagger_client::{
    api::TransactionStatus,
    proof::{Receipt, Verifier},
};
use dagger_ledger::{Digest, Parameters};
use dagger_node::{
    Answer, NodeHandle,
    config::{AllWord, Retain},
};
use support::{Network, until};

/// Every fifth transaction ends an epoch, and with it comes a snapshot: a restart executes hardly anything again.
fn short_epochs() -> Parameters {
    Parameters {
        epoch_transactions: 5,
        ..Parameters::default()
    }
}

async fn execute(network: &Network, count: usize, prefix: &str) -> Vec<TransactionStatus> {
    let mut executed = Vec::new();
    for n in 0..count {
        let account = network.account(0, &format!("{prefix}-{n}"));
        executed.push(network.execute(0, account).await);
    }
    executed
}

/// Goes on until an epoch has begun: one ends with a checkpoint, and those are rare where little happens.
async fn reach(network: &Network, epoch: u64) -> Vec<TransactionStatus> {
    let end = tokio::time::Instant::now() + support::DEADLINE;
    let mut executed = Vec::new();
    while network.handle(0).status().consensus.epoch < epoch {
        assert!(tokio::time::Instant::now() < end, "epoch {epoch}");
        let more = format!("reach-{epoch}-{}", executed.len());
        executed.extend(execute(network, 1, &more).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    executed
}

fn digest(status: &TransactionStatus) -> Digest {
    status.digest.parse().unwrap()
}

async fn receipt(node: &NodeHandle, digest: &Digest) -> Answer<Receipt> {
    let end = tokio::time::Instant::now() + support::DEADLINE;
    loop {
        match node.past_receipt(digest).await {
            Answer::Later if tokio::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

fn overwrite(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path);
        } else {
            fs::write(&path, [0xA5; 300]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_in_memory_is_told_and_proven_from_the_index() {
    let mut network = Network::new(1, short_epochs());
    network.start(0).await;
    let before = execute(&network, 12, "before").await;
    reach(&network, 2).await;
    network.stop(0).await;
    network.start(0).await;

    let genesis = fs::read(network.node_dir(0).join("genesis.json")).unwrap();
    let verifier = Verifier::new(&genesis).unwrap();
    let (node, oldest) = (network.handle(0).clone(), digest(&before[0]));
    assert_eq!(node.transaction(&oldest), None, "it has left memory");
    assert_eq!(node.receipt(&oldest), None);
    for executed in &before {
        let Answer::Known(receipt) = receipt(&node, &digest(executed)).await else {
            panic!("no receipt of {}", executed.digest);
        };
        verifier.receipt(&receipt).unwrap();
        assert_eq!(receipt.proof.outcome.digest, digest(executed));
        let told = node.past_transaction(&digest(executed)).await;
        let mut told = told.known().unwrap();
        // Who took it, and when this process saw it, is not kept in the log.
        told.accepted.clone_from(&executed.accepted);
        assert_eq!(
            told.commit.unwrap().leader,
            executed.commit.clone().unwrap().leader
        );
        // Memory names the first event that carried it, which may have been too late for its epoch.
        assert_eq!(told.event.unwrap().event.creator_name, "op-0");
        assert!(told.outcome.unwrap().ok);
    }
    let status = node.status().outcomes.unwrap();
    assert!(status.from_commit <= 1 && status.transactions >= 12 && status.disk_bytes > 0);
    let never = Digest([7; 32]);
    assert_eq!(receipt(&node, &never).await, Answer::Unknown);
    drop(node);

    // A damaged index is no reason not to start: it begins anew, and says where.
    network.stop(0).await;
    overwrite(&network.node_dir(0).join("outcomes"));
    network.start(0).await;
    let after = execute(&network, 2, "after").await;
    let node = network.handle(0);
    let newest = receipt(node, &digest(&after[1])).await.known().unwrap();
    verifier.receipt(&newest).unwrap();
    until("the new index", || node.status().outcomes.is_some()).await;
    let oldest_commit = before[0].commit.as_ref().unwrap().index;
    let told = receipt(node, &oldest).await;
    assert!(
        matches!(told, Answer::NotKept { from_commit: Some(from) } if from > oldest_commit),
        "{told:?}"
    );
    network.stop_all().await;
}

/// The commit from which on a node has outcomes, once it has read its logs again.
async fn rebuilt(network: &Network, from: impl Fn(u64) -> bool) -> u64 {
    let status = || network.handle(0).status().outcomes;
    until("the logs to be read again", || {
        status().is_some_and(|held| held.rebuild.is_none() && from(held.from_commit))
    })
    .await;
    status().unwrap().from_commit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_index_is_filled_from_the_logs_as_far_as_they_go_back() {
    let mut network = Network::new(1, short_epochs());
    network.configure(0, |config| {
        config.store.retain = Retain::All(AllWord::All);
    });
    network.start(0).await;
    let mut before = execute(&network, 22, "before").await;
    before.extend(reach(&network, 4).await);
    let index = network.node_dir(0).join("outcomes");
    let genesis = fs::read(network.node_dir(0).join("genesis.json")).unwrap();
    let verifier = Verifier::new(&genesis).unwrap();
    network.stop(0).await;
    fs::remove_dir_all(&index).unwrap();
    network.start(0).await;
    assert_eq!(rebuilt(&network, |from| from <= 1).await, 1);
    for executed in &before {
        let known = receipt(network.handle(0), &digest(executed)).await.known();
        let receipt = known.unwrap_or_else(|| panic!("no receipt of {}", executed.digest));
        verifier.receipt(&receipt).unwrap();
        let told = network
            .handle(0)
            .past_transaction(&digest(executed))
            .await
            .known()
            .unwrap();
        let commit = |status: &TransactionStatus| {
            let commit = status.commit.clone().unwrap();
            (commit.index, commit.leader, commit.decision, commit.time_ms)
        };
        assert_eq!(commit(&told), commit(executed));
        assert_eq!(told.event.unwrap().event.creator_name, "op-0");
    }
    let transactions = network.handle(0).status().outcomes.unwrap().transactions;

    // It is kept: a start later no log could give it any more.
    network.stop(0).await;
    let events = network.node_dir(0).join("events/0000000000");
    for entry in fs::read_dir(events).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "end" {
            fs::remove_file(path).unwrap();
        }
    }
    network.start(0).await;
    assert_eq!(rebuilt(&network, |from| from <= 1).await, 1);
    let kept = network.handle(0).status().outcomes.unwrap();
    assert!(kept.transactions >= transactions && transactions >= 22);

    // Without it and without the oldest log it goes back to the oldest state that is kept, and no further.
    network.stop(0).await;
    fs::remove_dir_all(&index).unwrap();
    let snapshots = fs::read_dir(network.node_dir(0).join("state")).unwrap();
    let names = snapshots.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let starts: BTreeSet<u64> = names
        .filter_map(|name| {
            name.strip_prefix("epoch-")?
                .strip_suffix(".snap")?
                .parse()
                .ok()
        })
        .collect();
    let (oldest, newest) = (*starts.first().unwrap(), *starts.last().unwrap());
    assert!(1 < oldest && oldest < newest, "{starts:?}");
    network.start(0).await;
    assert_eq!(rebuilt(&network, |from| from <= newest).await, oldest + 1);
    let not_kept = Answer::NotKept {
        from_commit: Some(oldest + 1),
    };
    let first = digest(&before[0]);
    assert_eq!(receipt(network.handle(0), &first).await, not_kept);
    network.stop_all().await;
}

/// Cuts off the end of what the index holds of a commit: it opens, and whoever asks for that commit meets the damage.
fn cut(dir: &Path, commit: u64) {
    let db = fjall::Database::builder(dir).open().unwrap();
    let options = fjall::KeyspaceCreateOptions::default;
    let commits = db.keyspace("commits", options).unwrap();
    let key = commit.to_be_bytes();
    let value = commits.get(key).unwrap().unwrap();
    commits.insert(key, &value[..value.len() - 1]).unwrap();
    db.persist(fjall::PersistMode::SyncAll).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_question_meets_is_said() {
    let mut network = Network::new(1, short_epochs());
    network.start(0).await;
    let executed = execute(&network, 7, "a").await;
    reach(&network, 1).await;
    network.stop(0).await;
    let damaged = executed[0].commit.as_ref().unwrap().index;
    cut(&network.node_dir(0).join("outcomes"), damaged);
    network.start(0).await;
    let node = network.handle(0);
    let problems = || node.status().problems;
    let is_said = || problems().iter().any(|p| p.code == "E_OUTCOME_DAMAGED");
    let whole = node.past_transaction(&digest(&executed[1])).await;
    assert!(whole.known().is_some() && !is_said());
    let asked = digest(&executed[0]);
    assert_eq!(node.past_transaction(&asked).await, Answer::Damaged);
    assert_eq!(node.past_receipt(&asked).await, Answer::Damaged);
    assert!(is_said(), "{:?}", problems());
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_transaction_handed_in_after_a_restart_is_answered_with_its_first_outcome() {
    let mut network = Network::new(1, short_epochs());
    network.start(0).await;
    let account = network.account(0, "once");
    let first = network.execute(0, account.clone()).await;
    execute(&network, 8, "more").await;
    reach(&network, 1).await;
    network.stop(0).await;
    network.start(0).await;
    assert_eq!(network.handle(0).transaction(&digest(&first)), None);
    let again = network.execute(0, account).await;
    assert_eq!(again.commit.unwrap().index, first.commit.unwrap().index);
    network.stop_all().await;
}
