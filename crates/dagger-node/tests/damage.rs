//! Bits that flip in a real node's event log: events of others come back from its peers, own ones are refused.

mod support;

use std::{fs, ops::Range, path::PathBuf};

use dagger_client::api::NodeState;
use dagger_ledger::Parameters;
use dagger_node::{NodeError, config::Retain, node::Node};
use shadowgraph::{MemberIndex, UnverifiedEvent};
use support::{Network, is_sealed, until};

const SEGMENT_HEADER_BYTES: usize = 56;
const RECORD_HEADER_BYTES: usize = 58;

/// A record of a node's log.
struct Record {
    file: PathBuf,
    body: Range<usize>,
    creator: MemberIndex,
}

/// Every record of the logs of an epoch, in order.
fn records(network: &Network, i: usize, epoch: u64) -> Vec<Record> {
    let dir = network.node_dir(i).join(format!("events/{epoch:010}"));
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let bytes = bytes::Bytes::from(fs::read(&file).unwrap());
        let mut at = SEGMENT_HEADER_BYTES;
        while at + RECORD_HEADER_BYTES < bytes.len() {
            let length = bytes[at + 4..at + 8].try_into().unwrap();
            let start = at + RECORD_HEADER_BYTES;
            at = start + u32::from_le_bytes(length) as usize;
            let event = UnverifiedEvent::decode(bytes.slice(start..at)).unwrap();
            records.push(Record {
                file: file.clone(),
                body: start..at,
                creator: event.reference().creator,
            });
        }
    }
    records
}

fn flip(file: &PathBuf, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 64;
    fs::write(file, bytes).unwrap();
}

fn takes_part(network: &Network, i: usize) -> bool {
    let status = network.handle(i).status();
    status.problems.is_empty() && status.state == NodeState::Ready
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_closed_and_newest_segments_is_healed_from_peers() {
    let mut network = Network::new(4, Parameters::default());
    network.configure(3, |config| config.store.segment_bytes = 20_000);
    network.start_all().await;
    network.load("before", 30, &[0, 1, 2, 3]).await;
    network.stop(3).await;
    let all = records(&network, 3, 0);
    let newest = all.last().unwrap().file.clone();
    let own = MemberIndex(3);
    let of_others = |r: &&Record| r.creator != own;
    // A body and a header in a closed segment, whose index tells what stood there.
    let mut closed = all.iter().filter(|r| r.file != newest).filter(of_others);
    let (first, second) = (closed.nth(10).unwrap(), closed.nth(20).unwrap());
    flip(&first.file, first.body.start + 100);
    flip(&second.file, second.body.start - 10);
    // In the newest segment nothing does: a body, and where an own event follows a header too.
    let in_newest: Vec<&Record> = all.iter().filter(|r| r.file == newest).collect();
    let last_own = in_newest.iter().rposition(|r| r.creator == own);
    let before_own = last_own.map_or(&[][..], |last| &in_newest[..last]);
    let others: Vec<_> = before_own.iter().filter(|r| of_others(r)).collect();
    if let [body, .., header] = others[..] {
        flip(&newest, body.body.end - 1);
        flip(&newest, header.body.start - 20);
    }
    network.load("meanwhile", 4, &[0, 1, 2]).await;
    network.start(3).await;
    until("the healing", || takes_part(&network, 3)).await;
    let through = network.execute(3, network.account(0, "healed")).await;
    assert_eq!(through.event.unwrap().event.creator_name, "op-3");
    network.common_root(through.commit.unwrap().index).await;
    assert_eq!(network.handle(3).read(|l| l.accounts().count()), 35);
    assert!(network.handle(3).status().problems.is_empty());
    let metrics = network.handle(3).metrics();
    let healed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("dagger_healed_events_total "));
    assert!(healed.unwrap().parse::<u64>().unwrap() >= 2, "{healed:?}");
    // What is on disk is whole again.
    network.stop(3).await;
    network.start(3).await;
    let healed = network.handle(3).metrics();
    assert!(healed.contains("dagger_healed_events_total 0"));
    until("the restart", || takes_part(&network, 3)).await;
    let through = network.execute(3, network.account(0, "again")).await;
    network.common_root(through.commit.unwrap().index).await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_event_that_is_lost_is_refused_and_a_new_key_is_the_way_out() {
    let mut network = Network::new(4, Parameters::default());
    network.start_all().await;
    network.load("before", 8, &[0, 1, 2, 3]).await;
    network.stop(3).await;
    let all = records(&network, 3, 0);
    let own = all.iter().find(|r| r.creator == MemberIndex(3)).unwrap();
    flip(&own.file, own.body.start + 30);
    let bytes = fs::read(&own.file).unwrap();
    let error = match Node::start(network.config(3)).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    };
    assert_eq!(error.code(), "E_OWN_EVENT_DAMAGED");
    assert!(matches!(error, NodeError::OwnEventDamaged { .. }));
    assert!(
        error.to_string().contains("another consensus key"),
        "{error}"
    );
    assert_eq!(fs::read(&own.file).unwrap(), bytes, "nothing was changed");
    // Without the key nothing can be contradicted: the node heals its log and follows, until a new key is seated.
    let keys = network.node_dir(3).join("keys");
    fs::rename(keys.join("consensus.json"), keys.join("old.json")).unwrap();
    network.start(3).await;
    let last = network.load("after", 4, &[0, 1, 2]).await;
    network.common_root(last).await;
    assert!(network.handle(3).status().seat.is_none());
    let metrics = network.handle(3).metrics();
    assert!(metrics.contains("dagger_healed_events_total 1"));
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_epochs_log_is_healed_when_a_peer_asks_for_what_is_damaged() {
    let parameters = Parameters {
        epoch_transactions: 10,
        ..Parameters::default()
    };
    let mut network = Network::new(4, parameters);
    for i in 0..4 {
        network.configure(i, |config| config.store.retain = Retain::Epochs(1000));
    }
    network.start_all().await;
    network.load("before", 4, &[0, 1, 2, 3]).await;
    network.stop(3).await;
    let mut n = 0;
    let epoch = |i: usize| network.handle(i).status().consensus.epoch;
    while (0..3).any(|i| epoch(i) < 2) {
        network.load(&format!("away-{n}"), 3, &[0, 1, 2]).await;
        n += 1;
    }
    // The one that was away finds only a node whose log of that epoch is damaged: its only frame is lost.
    let log = network.node_dir(0).join("events/0000000000/0000000001.log");
    until("the log to be sealed", || is_sealed(&log)).await;
    flip(&log, 300);
    network.stop(1).await;
    network.stop(2).await;
    network.start(3).await;
    let tells = || {
        let problems = network.handle(0).status().problems;
        problems.iter().any(|p| p.code == "E_STORE_DAMAGED")
    };
    until("the damage to be found", tells).await;
    network.start(1).await;
    let healed = || {
        let metrics = network.handle(0).metrics();
        !metrics.contains("dagger_healed_events_total 0")
    };
    until("the healing", healed).await;
    until("the problem to be gone", || {
        network.handle(0).status().problems.is_empty()
    })
    .await;
    let last = network.load("after", 4, &[0, 1, 3]).await;
    network.common_root(last).await;
    network.stop_all().await;
}
