//! How an epoch ends for whoever is late, restarts, hears of the next one early, or ends it elsewhere than a quorum.

use crate::cluster::*;
use crate::{load, network};
use shadowgraph::*;

/// The events that a node itself made in an epoch, as its log has them.
fn own_events(cluster: &Cluster, node: usize, epoch: u64) -> Vec<&VerifiedEvent> {
    let seat = MemberIndex(node as u16);
    let own = |event: &&VerifiedEvent| event.epoch() == Epoch(epoch) && event.creator() == seat;
    cluster.nodes[node].log.iter().filter(own).collect()
}

fn knows_end(cluster: &Cluster, node: usize) -> bool {
    cluster.nodes[node].status().epoch_end.is_some()
}

/// The commit that the first epoch ended with.
fn certified_end(cluster: &Cluster, node: usize) -> CommitIndex {
    cluster.nodes[node].ends[0].certificate.checkpoint.commit
}

/// docs/protocol.md 10.2: commits that were output between the last checkpoint that the application has executed and the
/// end count, so nothing of them pends again.
#[test]
fn what_the_last_commits_before_an_end_output_is_not_carried_over() {
    let mut cluster = network(4, 4, 1);
    let mut texts = load(&mut cluster, &[0, 1, 2, 3], "before", 60);
    cluster.run_until("everything is ordered", |cluster| {
        cluster.all_have(&[0, 1, 2, 3], &texts)
    });
    // All go down; the first checkpoint that is answered after that ends the epoch.
    let commits = cluster.nodes.iter().map(|node| node.commits.len());
    let end = commits.max().expect("four nodes") as u64 + 1;
    cluster.plan.insert(0, (end, vec![0, 1, 2, 3]));
    cluster.executed_below = end;
    (0..4).for_each(|node| cluster.crash(node));
    (0..4).for_each(|node| cluster.start(node));
    texts.extend(load(&mut cluster, &[0, 1, 2, 3], "after", 60));
    cluster.run_until("the next epoch orders the rest", |cluster| {
        cluster.all_in(&[0, 1, 2, 3], 1) && cluster.all_have(&[0, 1, 2, 3], &texts)
    });
    cluster.check_agreement();
}

/// docs/protocol.md 10.3
#[test]
fn events_of_an_epoch_that_ends_carry_nothing() {
    let mut cluster = network(4, 4, 2);
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    // No roots have a quorum, so the certificate never comes.
    cluster.diverging.extend([2, 3]);
    load(&mut cluster, &[0, 1, 2, 3], "before", 40);
    cluster.run_until("all have executed the end", |cluster| {
        (0..4).all(|node| knows_end(cluster, node))
    });
    let made: Vec<usize> = (0..4).map(|n| own_events(&cluster, n, 0).len()).collect();
    load(&mut cluster, &[0, 1, 2, 3], "meanwhile", 40);
    cluster.run_for(5_000);
    for (node, made) in made.into_iter().enumerate() {
        let later = &own_events(&cluster, node, 0)[made..];
        assert!(!later.is_empty(), "member {node} made no events any more");
        assert!(later.iter().all(|event| event.transaction_count() == 0));
        assert!(cluster.nodes[node].status().pool_transactions > 0);
    }
}

/// docs/protocol.md 10, "No deadlock at the boundary": after 50 rounds without a certificate.
#[test]
fn members_that_cannot_end_an_epoch_fall_back_to_the_heartbeat() {
    let mut cluster = network(4, 4, 4);
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    cluster.diverging.extend([2, 3]);
    load(&mut cluster, &[0, 1, 2, 3], "before", 40);
    cluster.run_until("all have executed the end", |cluster| {
        (0..4).all(|node| knows_end(cluster, node))
    });
    // What pends meanwhile can be ordered by the next epoch only: it keeps nobody awake.
    load(&mut cluster, &[0, 1, 2, 3], "meanwhile", 8);
    let asleep = |cluster: &Cluster| cluster.nodes.iter().all(|node| !node.status().awake);
    cluster.run_until("they rest", asleep);
    let before = cluster.pushed.clone();
    cluster.run_for(20_000);
    for (node, (before, after)) in before.iter().zip(&cluster.pushed).enumerate() {
        let made = after - before;
        assert!((18..=21).contains(&made), "{node}: {made} in 20 heartbeats");
        let status = cluster.nodes[node].status();
        assert!(status.split_checkpoint.is_some() && status.pool_transactions > 0);
        assert_eq!(status.epoch, Epoch(0));
    }
}

/// docs/protocol.md 10.5
#[test]
fn a_straggler_makes_no_events_of_an_epoch_whose_end_it_was_shown() {
    for seed in 0..5 {
        let mut cluster = network(4, 4, seed);
        cluster.plan.insert(0, (40, vec![0, 1, 2, 3]));
        cluster.run_for(50);
        cluster.isolate(3);
        load(&mut cluster, &[0, 1, 2], "t", 150);
        cluster.run_until("the others are an epoch on", |cluster| {
            cluster.all_in(&[0, 1, 2], 1)
        });
        cluster.heal();
        cluster.run_until("it is shown the end", |cluster| knows_end(cluster, 3));
        let status = cluster.nodes[3].status();
        assert!(Some(status.last_commit) < status.epoch_end, "{status:?}");
        let made = own_events(&cluster, 3, 0).len();
        cluster.run_until("it is there too", |cluster| cluster.all_in(&[3], 1));
        assert_eq!(own_events(&cluster, 3, 0).len(), made, "seed {seed}");
    }
}

fn assert_diverged(cluster: &Cluster, node: usize, certified: CommitIndex) {
    let halts = &cluster.nodes[node].halts;
    assert!(
        matches!(halts[..], [HaltReason::Diverged { commit, .. }] if commit == certified),
        "{halts:?}"
    );
    assert!(cluster.all_in(&[node], 0) && cluster.nodes[node].ends.is_empty());
}

/// docs/protocol.md 10.5
#[test]
fn whoever_ends_an_epoch_before_the_commit_it_was_shown_halts() {
    let mut cluster = network(4, 4, 3);
    cluster.plan.insert(0, (40, vec![0, 1, 2, 3]));
    cluster.run_for(50);
    cluster.isolate(3);
    load(&mut cluster, &[0, 1, 2], "t", 150);
    cluster.run_until("the others are an epoch on", |cluster| {
        cluster.all_in(&[0, 1, 2], 1)
    });
    // The others have done so already: only the last one's application ends the epoch here.
    cluster.plan.insert(0, (5, vec![0, 1, 2, 3]));
    cluster.heal();
    cluster.run_until("it halts, or goes on", |cluster| {
        !cluster.nodes[3].halts.is_empty() || cluster.all_in(&[3], 1)
    });
    assert_diverged(&cluster, 3, certified_end(&cluster, 0));
}

/// docs/protocol.md 10.5
#[test]
fn whoever_is_shown_another_end_than_it_executed_halts() {
    let mut cluster = network(4, 4, 4);
    cluster.plan.insert(0, (60, vec![0, 1, 2, 3]));
    let open = |cluster: &Cluster| {
        let checkpoints = cluster.nodes[3].commits.iter();
        let mut checkpoints = checkpoints.filter(|(_, commit)| commit.is_checkpoint);
        let last = checkpoints.next_back().map(|(_, commit)| commit.index);
        last.filter(|last| cluster.nodes[3].status().last_certified < Some(*last))
    };
    for number in 0..60 {
        cluster.submit(number % 4, &format!("t {number}"));
    }
    // The log of the last member ends before the certificate of a checkpoint ...
    cluster.run_until("a checkpoint without a certificate", |cluster| {
        open(cluster).is_some()
    });
    let other = open(&cluster).expect("just found");
    cluster.crash(3);
    load(&mut cluster, &[0, 1, 2], "without it", 150);
    cluster.run_until("the others are an epoch on", |cluster| {
        cluster.all_in(&[0, 1, 2], 1)
    });
    assert!(other < certified_end(&cluster, 0));
    // ... and when it executes that again, its application ends the epoch there.
    cluster.plan.insert(0, (other.0, vec![0, 1, 2, 3]));
    cluster.start(3);
    assert_eq!(cluster.nodes[3].status().epoch_end, Some(other));
    cluster.run_until("it halts, or goes on", |cluster| {
        !cluster.nodes[3].halts.is_empty() || cluster.all_in(&[3], 1)
    });
    assert_diverged(&cluster, 3, certified_end(&cluster, 0));
}

/// docs/protocol.md 10.4: what a member said of the next epoch is taken in as said by its seat there.
#[test]
fn an_early_question_is_answered_to_the_new_seat_of_who_asked() {
    // The first member is a quorum, and alone.
    let mut cluster = Cluster::idle(&[10, 1, 1, 1], 5, Parameters::default());
    cluster.plan.insert(0, (1, vec![0, 2, 3, 1]));
    cluster.start(0);
    let question = Frontier {
        epoch: Epoch(1),
        exchange: Exchange::Ask(77),
        floor: Round(0),
        commit: CommitIndex(0),
        time_ms: cluster.now_ms,
        highest: vec![Round(0); 4],
    };
    let from = Peer::Member(MemberIndex(1));
    let message = Message::Frontier(question);
    cluster.input(0, Input::Message { from, message });
    assert!(cluster.all_in(&[0], 0));
    cluster.submit(0, "t");
    cluster.run_until("it is in the next epoch", |cluster| cluster.all_in(&[0], 1));
    let answers = |message: &Message| matches!(message, Message::Frontier(frontier) if frontier.exchange == Exchange::Answer(77));
    let sent = cluster.under_way(0).into_iter();
    let sent = sent.filter(|(_, message)| answers(message));
    let to: Vec<usize> = sent.map(|(to, _)| to).collect();
    assert_eq!(to, [1]);
}
