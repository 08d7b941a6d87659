//! What became of a transaction is told, and proven, long after it has left memory.

mod support;

use std::{fs, path::Path};

use dagger_client::{
    api::TransactionStatus,
    proof::{Receipt, Verifier},
};
use dagger_ledger::{Digest, Parameters};
use dagger_node::{Answer, NodeHandle};
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
    until("three epochs", || {
        network.handle(0).status().consensus.epoch >= 2
    })
    .await;
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
    let from = node.status().outcomes.unwrap().from_commit;
    assert!(from > before[0].commit.as_ref().unwrap().index);
    let not_kept = Answer::NotKept {
        from_commit: Some(from),
    };
    assert_eq!(receipt(node, &oldest).await, not_kept);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_transaction_handed_in_after_a_restart_is_answered_with_its_first_outcome() {
    let mut network = Network::new(1, short_epochs());
    network.start(0).await;
    let account = network.account(0, "once");
    let first = network.execute(0, account.clone()).await;
    execute(&network, 8, "more").await;
    until("an epoch", || {
        network.handle(0).status().consensus.epoch >= 1
    })
    .await;
    network.stop(0).await;
    network.start(0).await;
    assert_eq!(network.handle(0).transaction(&digest(&first)), None);
    let again = network.execute(0, account).await;
    assert_eq!(again.commit.unwrap().index, first.commit.unwrap().index);
    network.stop_all().await;
}
