//! Crashes, recoveries, late joiners, lost logs, copied keys, wrong roots.

mod cluster;

use cluster::Cluster;
use shadowgraph::*;

/// Submits `count` transactions to the members in turn and waits until all of them have every one.
fn order(cluster: &mut Cluster, seats: &[usize], label: &str, count: usize) {
    let texts: Vec<String> = (0..count)
        .map(|number| format!("{label} {number}"))
        .collect();
    for (number, text) in texts.iter().enumerate() {
        cluster.submit(seats[number % seats.len()], text);
        cluster.run_for(5);
    }
    cluster.run_until(label, |cluster| cluster.all_have(seats, &texts));
}

#[test]
fn a_crashed_member_recovers_from_its_log_and_catches_up() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(&[1; 4], seed, Parameters::default());
        order(&mut cluster, &[0, 1, 2, 3], "before", 20);
        cluster.crash(1);
        order(&mut cluster, &[0, 2, 3], "without", 60);
        let before = cluster.nodes[1].commits.len();
        cluster.start(1);
        assert!(
            cluster.nodes[1].commits.len() >= before,
            "the log gives every commit again"
        );
        order(&mut cluster, &[0, 1, 2, 3], "after", 20);
        cluster.check_agreement();
        assert!(cluster.nodes.iter().all(|node| node.halts.is_empty()));
    }
}

#[test]
fn all_members_crash_at_once_and_nothing_is_lost() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(&[1; 4], seed, Parameters::default());
        order(&mut cluster, &[0, 1, 2, 3], "before", 20);
        for seat in 0..4 {
            cluster.submit(seat, &format!("in flight {seat}"));
        }
        cluster.run_for(12);
        let known: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| node.transactions())
            .collect();
        (0..4).for_each(|seat| cluster.crash(seat));
        cluster.run_for(1_000);
        for (seat, known) in known.iter().enumerate() {
            cluster.start(seat);
            assert_eq!(
                cluster.nodes[seat].transactions(),
                *known,
                "the same order again"
            );
        }
        // What an own event on disk carries is committed; what only waited was never acknowledged.
        let logs = cluster.nodes.iter().flat_map(|node| &node.log);
        let flying: Vec<String> = logs
            .flat_map(VerifiedEvent::transactions)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .filter(|text| text.starts_with("in flight"))
            .collect();
        assert!(!flying.is_empty());
        cluster.run_until("in flight", |cluster| {
            cluster.all_have(&[0, 1, 2, 3], &flying)
        });
        order(&mut cluster, &[0, 1, 2, 3], "after", 20);
        cluster.check_agreement();
    }
}

#[test]
fn a_late_joiner_catches_up_through_the_log_of_others() {
    let parameters = Parameters {
        gc_depth_rounds: 20,
        answer_bytes_max: 20_000,
        ..Default::default()
    };
    let mut cluster = Cluster::idle(&[1; 4], 7, parameters);
    (0..3).for_each(|seat| cluster.start(seat));
    order(&mut cluster, &[0, 1, 2], "early", 400);
    assert!(
        cluster.nodes[0].status().floor > Round(100),
        "{}",
        cluster.describe()
    );
    cluster.start(3);
    order(&mut cluster, &[0, 1, 2, 3], "late", 20);
    cluster.check_agreement();
    assert!(
        cluster
            .nodes
            .iter()
            .map(|node| node.store_reads)
            .sum::<usize>()
            > 0
    );
    assert!(cluster.nodes[3].status().round > Round(100));
    assert!(
        cluster.pushed[3] < 400,
        "it did not create events for rounds long past"
    );
}

#[test]
fn a_transaction_whose_event_fell_to_the_floor_is_proposed_again() {
    let parameters = Parameters {
        gc_depth_rounds: 10,
        ..Default::default()
    };
    let mut cluster = Cluster::new(&[1; 4], 3, parameters);
    order(&mut cluster, &[0, 1, 2, 3], "before", 10);
    cluster.isolate(3);
    cluster.submit(3, "stranded");
    cluster.run_for(100);
    assert!(cluster.nodes[3].status().own_uncommitted_events > 0);
    order(&mut cluster, &[0, 1, 2], "meanwhile", 100);
    cluster.heal();
    let stranded = ["stranded".to_owned()];
    cluster.run_until("stranded", |cluster| {
        cluster.all_have(&[0, 1, 2, 3], &stranded)
    });
    cluster.check_agreement();
}

#[test]
fn a_minority_commits_nothing_and_goes_on_when_healed() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    order(&mut cluster, &[0, 1, 2, 3], "before", 10);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        cluster.cut.insert((a, b));
        cluster.cut.insert((b, a));
    }
    cluster.submit(0, "split");
    cluster.run_for(60_000);
    assert!(
        !cluster.nodes[0]
            .transactions()
            .contains(&"split".to_owned())
    );
    cluster.heal();
    let split = ["split".to_owned()];
    let healed_ms = cluster.now_ms;
    cluster.run_until("split", |cluster| cluster.all_have(&[0, 1, 2, 3], &split));
    assert!(
        cluster.now_ms - healed_ms < 5_000,
        "{} ms",
        cluster.now_ms - healed_ms
    );
    cluster.check_agreement();
}

#[test]
fn a_member_restored_from_a_backup_halts_before_it_signs() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    order(&mut cluster, &[0, 1, 2, 3], "before", 10);
    let backup = cluster.nodes[2].log.clone();
    order(&mut cluster, &[0, 1, 2, 3], "after the backup", 10);
    cluster.crash(2);
    cluster.nodes[2].log = backup;
    let pushed = cluster.pushed[2];
    cluster.start(2);
    cluster.run_until("halt", |cluster| !cluster.nodes[2].halts.is_empty());
    assert!(matches!(
        cluster.nodes[2].halts[0],
        HaltReason::OwnEventUnknown(_)
    ));
    assert_eq!(cluster.pushed[2], pushed, "it signed nothing");
    order(&mut cluster, &[0, 1, 3], "without it", 10);
    assert!(cluster.nodes.iter().all(|node| node.proofs.is_empty()));
}

#[test]
fn an_empty_log_of_a_known_member_halts() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    order(&mut cluster, &[0, 1, 2, 3], "before", 10);
    cluster.crash(0);
    cluster.nodes[0].log.clear();
    cluster.start(0);
    cluster.run_until("halt", |cluster| !cluster.nodes[0].halts.is_empty());
}

#[test]
fn a_second_process_with_the_key_makes_both_halt_or_be_proven() {
    // Member 3's key runs twice: seat 3 of this cluster, and a copy whose events are fed in by hand.
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    order(&mut cluster, &[0, 1, 2, 3], "before", 10);
    let copied = cluster.nodes[3].log.clone();
    order(&mut cluster, &[0, 1, 2, 3], "more", 10);
    let last = copied
        .iter()
        .rev()
        .find(|event| event.creator() == MemberIndex(3))
        .expect("own events");
    let parents = {
        let own = last.reference();
        let mut parents: Vec<EventRef> = copied
            .iter()
            .filter(|event| event.round() == own.round && event.creator() != own.creator)
            .map(|event| *event.reference())
            .collect();
        parents.push(*own);
        parents.sort_by_key(|parent| parent.creator);
        parents
    };
    let forged = EventDraft {
        chain_id: cluster::CHAIN,
        epoch: Epoch(0),
        round: last.round().next(),
        creator: MemberIndex(3),
        timestamp_ms: last.timestamp_ms() + 1,
        parents,
        checkpoint_votes: vec![],
        transactions: vec![],
    }
    .seal(&cluster.keys[3]);
    let verified = verify_events(vec![forged], &cluster::CHAIN, &cluster.committee)
        .remove(0)
        .expect("valid");
    for seat in 0..4 {
        let from = Peer::Member(MemberIndex((seat as u16 + 1) % 4));
        cluster.input(
            seat,
            Input::Events {
                from,
                events: vec![verified.clone()],
            },
        );
    }
    assert!(matches!(
        cluster.nodes[3].halts[..],
        [HaltReason::OwnEventUnknown(_)]
    ));
    let proof = cluster.nodes[0]
        .proofs
        .first()
        .expect("the twins are proof");
    let proven = proof
        .verify(&cluster::CHAIN, &cluster.committee)
        .expect("it verifies");
    assert_eq!(proven, (MemberIndex(3), verified.round()));
    order(&mut cluster, &[0, 1, 2], "without it", 20);
    cluster.check_agreement();
}

#[test]
fn a_member_with_other_roots_halts_and_the_others_go_on() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    cluster.diverging.insert(2);
    cluster.submit(0, "something");
    cluster.run_until("halt", |cluster| !cluster.nodes[2].halts.is_empty());
    assert!(matches!(
        cluster.nodes[2].halts[0],
        HaltReason::Diverged { .. }
    ));
    order(&mut cluster, &[0, 1, 3], "without it", 10);
    cluster.check_agreement();
}

#[test]
fn no_quorum_for_any_root_does_not_spin() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    cluster.diverging.extend([2, 3]);
    cluster.submit(0, "something");
    cluster.run_for(60_000);
    let before = cluster.pushed[0];
    cluster.run_for(60_000);
    // A heartbeat a second, and fifty rounds after the one checkpoint of a network at rest.
    assert!(
        cluster.pushed[0] - before <= 61 + 50,
        "{} events",
        cluster.pushed[0] - before
    );
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| node.certificates.is_empty())
    );
}

#[test]
fn answers_to_an_earlier_life_do_not_let_a_member_sign() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    order(&mut cluster, &[0, 1, 2, 3], "before", 5);
    cluster.crash(2);
    cluster.run_for(100);
    cluster.isolate(2);
    cluster.start(2);
    // Answers to questions of before the crash were still on their way: they say nothing of what was signed after them.
    for from in [0, 1, 3] {
        let frontier = Frontier {
            epoch: Epoch(0),
            exchange: Exchange::Answer(1),
            floor: Round(0),
            commit: CommitIndex(0),
            time_ms: 0,
            highest: vec![Round(0); 4],
        };
        let from = Peer::Member(MemberIndex(from));
        let message = Message::Frontier(frontier);
        cluster.input(2, Input::Message { from, message });
    }
    assert!(!cluster.nodes[2].status().signing);
    cluster.heal();
    cluster.run_until("it signs", |cluster| cluster.nodes[2].status().signing);
}
