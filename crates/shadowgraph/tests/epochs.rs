//! Epochs: the graph changes, the order goes on. docs/protocol.md 10.

mod cluster;
#[path = "epochs/ends.rs"]
mod ends;

use std::collections::BTreeSet;

use cluster::*;
use shadowgraph::*;

fn parameters() -> Parameters {
    Parameters {
        checkpoint_interval_ms: 100,
        ..Parameters::default()
    }
}

fn network(members: usize, nodes: usize, seed: u64) -> Cluster {
    Cluster::followed(members, nodes, seed, parameters())
}

/// Submits numbered transactions at these nodes in turn, a few milliseconds apart; returns them.
fn load(cluster: &mut Cluster, nodes: &[usize], what: &str, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for number in 0..count {
        let text = format!("{what} {number}");
        cluster.submit(nodes[number % nodes.len()], &text);
        texts.push(text);
        cluster.run_for(7);
    }
    texts
}

#[test]
fn the_order_goes_on_over_epochs_under_load() {
    for seed in 0..10 {
        let mut cluster = network(4, 4, seed);
        for epoch in 0..4 {
            cluster
                .plan
                .insert(epoch, (10 + 10 * epoch, vec![0, 1, 2, 3]));
        }
        let texts = load(&mut cluster, &[0, 1, 2, 3], "t", 300);
        cluster.run_until("everything is ordered", |cluster| {
            cluster.all_have(&[0, 1, 2, 3], &texts)
        });
        assert!(cluster.all_in(&[0, 1, 2, 3], 4), "{}", cluster.describe());
        cluster.check_agreement();
        check_chain(&cluster);
        // docs/protocol.md 10.2: what is carried over goes out in the order in which it came in.
        let order = cluster.nodes[0].transactions();
        for node in 0..4 {
            let own: Vec<_> = texts.iter().skip(node).step_by(4).collect();
            let ordered: Vec<_> = order.iter().filter(|text| own.contains(text)).collect();
            assert_eq!(ordered, own, "seed {seed}, member {node}");
        }
    }
}

/// Every kept end verifies with the committee that the one before it proved, back to the genesis.
fn check_chain(cluster: &Cluster) {
    for node in &cluster.nodes {
        let mut committee = cluster.committee.clone();
        for end in &node.ends {
            end.verify(&CHAIN, &committee)
                .expect("it proves the next committee");
            committee = end.next.clone();
        }
    }
}

/// The epoch ends a few commits from now: nobody has got that far yet.
fn end_soon(cluster: &mut Cluster, epoch: u64, next: &[usize]) {
    let last = |node: &Node| node.commits.last().map_or(0, |(_, commit)| commit.index.0);
    let end = cluster.nodes.iter().map(last).max().unwrap_or(0) + 10;
    cluster.plan.insert(epoch, (end, next.to_vec()));
}

#[test]
fn members_join_and_leave() {
    for seed in 0..10 {
        let mut cluster = network(1, 10, seed);
        let all: Vec<usize> = (0..10).collect();
        end_soon(&mut cluster, 0, &[0, 1, 2, 3]);
        let mut texts = load(&mut cluster, &[0], "one", 40);
        cluster.run_until("four vote", |cluster| cluster.all_in(&all, 1));
        end_soon(&mut cluster, 1, &all);
        texts.extend(load(&mut cluster, &[0, 1, 2, 3], "four", 60));
        cluster.run_until("ten vote", |cluster| cluster.all_in(&all, 2));
        end_soon(&mut cluster, 2, &[9, 8, 7, 6]);
        texts.extend(load(&mut cluster, &[6, 7, 8, 9], "ten", 100));
        cluster.run_until("four others vote", |cluster| cluster.all_in(&all, 3));
        texts.extend(load(&mut cluster, &[6, 7, 8, 9], "others", 20));
        // Whoever lost the seat got its pending transactions back, and has them ordered by another.
        for node in 0..6 {
            for transaction in std::mem::take(&mut cluster.nodes[node].returned) {
                let text = std::str::from_utf8(&transaction).expect("text");
                cluster.submit(7, text);
            }
        }
        cluster.run_until("everything is ordered everywhere", |cluster| {
            cluster.all_have(&all, &texts)
        });
        cluster.check_agreement();
        check_chain(&cluster);
        let replica = cluster.nodes[0].replica.as_ref().expect("it runs");
        assert_eq!(replica.seat(), None);
    }
}

/// The network that this one replaces stood still here for ever.
#[test]
fn deadlock_at_the_epoch_boundary() {
    for seed in 0..30 {
        let mut cluster = network(4, 4, seed);
        cluster.loss_permille = 200;
        cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
        let texts = load(&mut cluster, &[0, 1, 2, 3], "t", 60);
        // One is down from somewhere around the boundary on; the others must get through without it.
        cluster.crash(seed as usize % 4);
        let rest: Vec<usize> = (0..4).filter(|node| *node != seed as usize % 4).collect();
        cluster.run_until("the others change epochs", |cluster| {
            cluster.all_in(&rest, 1)
        });
        let more = load(&mut cluster, &rest, "after", 20);
        cluster.run_until("the others go on", |cluster| cluster.all_have(&rest, &more));
        cluster.start(seed as usize % 4);
        cluster.loss_permille = 0;
        cluster.run_until("the last one follows", |cluster| {
            cluster.all_in(&[0, 1, 2, 3], 1) && cluster.all_have(&[0, 1, 2, 3], &more)
        });
        cluster.check_agreement();
        let _ = texts;
    }
}

#[test]
fn a_straggler_follows_over_two_epochs() {
    for seed in 0..10 {
        let mut cluster = network(4, 4, seed);
        cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
        cluster.plan.insert(1, (15, vec![2, 1, 0, 3]));
        load(&mut cluster, &[3], "lost in time", 1);
        cluster.isolate(3);
        let mut texts = load(&mut cluster, &[0, 1, 2], "t", 150);
        cluster.run_until("the others are two epochs on", |cluster| {
            cluster.all_in(&[0, 1, 2], 2)
        });
        assert!(cluster.all_in(&[3], 0));
        cluster.submit(3, "while away");
        texts.push("while away".to_owned());
        cluster.heal();
        cluster.run_until("the straggler is there", |cluster| {
            cluster.all_in(&[3], 2) && cluster.all_have(&[0, 1, 2, 3], &texts)
        });
        cluster.check_agreement();
    }
}

#[test]
fn whoever_cannot_follow_by_events_asks_for_a_snapshot() {
    let mut cluster = network(4, 4, 1);
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    cluster.run_for(50);
    cluster.isolate(3);
    load(&mut cluster, &[0, 1, 2], "t", 60);
    cluster.run_until("the others are an epoch on", |cluster| {
        cluster.all_in(&[0, 1, 2], 1)
    });
    cluster.pruned = BTreeSet::from([0, 1, 2]);
    cluster.heal();
    cluster.run_until("it asks", |cluster| cluster.nodes[3].needs_snapshot > 0);
    // It takes the state of the epoch's start, here in thought, and begins there.
    let end = cluster.nodes[0].ends[0].clone();
    cluster.crash(3);
    cluster.nodes[3].log.clear();
    cluster.nodes[3].ends = vec![end.clone()];
    let config = Config {
        committee: end.next.clone(),
        start: end.start(),
        ..cluster.config(3)
    };
    cluster.start_from(3, config);
    let texts = load(&mut cluster, &[3], "back", 3);
    cluster.run_until("its transactions are ordered", |cluster| {
        cluster.all_have(&[0, 1, 2, 3], &texts)
    });
    let first = &cluster.nodes[3].commits[0].1;
    assert_eq!(first.previous, end.certificate.checkpoint.commit_digest);
    assert_eq!(first.index, end.certificate.checkpoint.commit.next());
}

#[test]
fn all_crash_at_every_instant_around_the_boundary() {
    for after_ms in (0..400).step_by(9) {
        let mut cluster = network(4, 4, after_ms);
        cluster.plan.insert(0, (8, vec![0, 1, 2, 3]));
        cluster.plan.insert(1, (16, vec![3, 2, 1, 0]));
        load(&mut cluster, &[0, 1, 2, 3], "before", 20);
        cluster.run_for(after_ms);
        let commits: Vec<usize> = (0..4).map(|n| cluster.nodes[n].commits.len()).collect();
        (0..4).for_each(|node| cluster.crash(node));
        cluster.run_for(30);
        (0..4).for_each(|node| cluster.start(node));
        for (node, had) in commits.iter().enumerate() {
            // What was output once is output again, over both logs.
            assert!(
                cluster.nodes[node].commits.len() >= *had,
                "{after_ms}: {node}"
            );
        }
        let texts = load(&mut cluster, &[0, 1, 2, 3], "after", 60);
        cluster.run_until("all go on", |cluster| {
            cluster.all_have(&[0, 1, 2, 3], &texts) && cluster.all_in(&[0, 1, 2, 3], 2)
        });
        for node in &cluster.nodes {
            assert!(node.halts.is_empty(), "{after_ms}: {:?}", node.halts);
            assert!(node.proofs.is_empty(), "{after_ms}");
        }
        cluster.check_agreement();
        check_chain(&cluster);
    }
}

#[test]
fn a_member_that_ends_no_epoch_where_a_quorum_does_halts() {
    let mut cluster = network(4, 4, 3);
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    cluster.diverging.insert(2);
    load(&mut cluster, &[0, 1, 3], "t", 60);
    cluster.run_until("the others go on", |cluster| {
        cluster.all_in(&[0, 1, 3], 1) && !cluster.nodes[2].halts.is_empty()
    });
    assert!(matches!(
        cluster.nodes[2].halts[0],
        HaltReason::Diverged { .. }
    ));
}

#[test]
fn whoever_forgot_a_new_epoch_does_not_sign_in_it_again() {
    for seed in 0..20 {
        let mut cluster = network(4, 4, seed);
        cluster.plan.insert(0, (20, vec![0, 1, 2, 3]));
        load(&mut cluster, &[0, 1, 2, 3], "before", 80);
        cluster.run_until("the epoch is over", |cluster| {
            cluster.all_in(&[0, 1, 2, 3], 1)
        });
        load(&mut cluster, &[3], "signed in the new epoch", 5);
        cluster.run_for(500);
        // An old copy of the disk: up to the last own event of the first epoch, which often has no certificate of its end
        // yet, and nothing of the second.
        cluster.crash(3);
        let node = &mut cluster.nodes[3];
        node.log.retain(|event| event.epoch() == Epoch(0));
        let own = |event: &VerifiedEvent| event.creator() == MemberIndex(3);
        let last = node.log.iter().rposition(own).expect("it made events");
        node.log.truncate(last + 1);
        node.ends.clear();
        cluster.start(3);
        cluster.run_until("it finds out", |cluster| !cluster.nodes[3].halts.is_empty());
        assert!(matches!(
            cluster.nodes[3].halts[0],
            HaltReason::OwnEventUnknown(_)
        ));
        cluster.run_for(2_000);
        let signed_again =
            |event: &&VerifiedEvent| event.epoch() == Epoch(1) && event.creator() == MemberIndex(3);
        let twins = cluster.nodes[3].log.iter().filter(signed_again).count();
        assert_eq!(twins, 0, "seed {seed}");
    }
}

/// What a replica that is at rest says to one message.
fn answers(cluster: &mut Cluster, node: usize, message: Message) -> Vec<Output> {
    let now_ms = cluster.now_ms;
    let replica = cluster.nodes[node].replica.as_mut().expect("it runs");
    let from = Peer::Member(MemberIndex(1));
    replica.handle(now_ms, Input::Message { from, message });
    std::iter::from_fn(|| replica.poll_output()).collect()
}

#[test]
fn an_end_that_too_few_signed_ends_nothing() {
    let mut cluster = network(4, 4, 5);
    cluster.run_for(300);
    let next = cluster.committee_of(1, &[1, 2]);
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(3),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 5,
        next_committee: Some(next.digest()),
    };
    let signed = |seat: u16| {
        let vote = checkpoint.sign(&CHAIN, &cluster.keys[usize::from(seat)]);
        (MemberIndex(seat), vote.signature)
    };
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: [1, 2].map(signed).to_vec(),
    };
    let end = Message::EpochEnd(Box::new(EpochEnd { certificate, next }));
    let said = answers(&mut cluster, 0, end);
    let blames = |output: &Output| matches!(output, Output::PeerFault { .. });
    assert!(said.iter().any(blames), "{said:?}");
    assert_eq!(cluster.nodes[0].status().epoch_end, None);
}

#[test]
fn an_end_that_is_shown_again_is_nobodys_fault() {
    let mut cluster = network(4, 4, 6);
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    load(&mut cluster, &[0, 1, 2, 3], "t", 60);
    cluster.run_until("the epoch is over", |cluster| {
        cluster.all_in(&[0, 1, 2, 3], 1)
    });
    let end = Message::EpochEnd(Box::new(cluster.nodes[1].ends[0].clone()));
    let said = answers(&mut cluster, 0, end);
    let blames = |output: &Output| matches!(output, Output::PeerFault { .. });
    assert!(!said.iter().any(blames), "{said:?}");
}

/// Whether it asks a peer how far it is.
fn asks(output: &Output) -> bool {
    let Output::Send { message, .. } = output else {
        return false;
    };
    matches!(message, Message::Frontier(frontier) if matches!(frontier.exchange, Exchange::Ask(_)))
}

#[test]
fn a_word_of_a_later_epoch_is_answered_by_a_question() {
    let mut cluster = network(4, 4, 7);
    cluster.run_for(300);
    let wake = Wake {
        epoch: Epoch(1),
        round: Round(9),
    };
    let said = answers(&mut cluster, 0, Message::Wake(wake));
    assert!(said.iter().any(asks), "{said:?}");
}

/// docs/protocol.md 10.6
#[test]
fn questions_between_epochs_are_rationed() {
    let mut cluster = network(4, 4, 8);
    cluster.run_for(300);
    let mut asked = 0;
    for round in (1..=100).map(Round) {
        let epoch = Epoch(1);
        let said = answers(&mut cluster, 0, Message::Wake(Wake { epoch, round }));
        asked += said.iter().filter(|output| asks(output)).count();
    }
    assert_eq!(asked, 8);
}
