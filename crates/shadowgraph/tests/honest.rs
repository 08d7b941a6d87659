//! Honest members on an imperfect network: everything submitted is committed, in one order, and then it is quiet.

mod cluster;

use cluster::{CHAIN, Cluster};
use shadowgraph::*;

fn texts(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("transaction {number}"))
        .collect()
}

fn order_everything(
    weights: &[u64],
    seed: u64,
    loss_permille: u64,
    parameters: Parameters,
) -> Cluster {
    let mut cluster = Cluster::new(weights, seed, parameters);
    cluster.loss_permille = loss_permille;
    let texts = texts(40);
    for (number, text) in texts.iter().enumerate() {
        cluster.submit(number % weights.len(), text);
        cluster.run_for(7);
    }
    let seats: Vec<usize> = (0..weights.len()).collect();
    cluster.run_until("all commit", |cluster| cluster.all_have(&seats, &texts));
    cluster.check_agreement();
    cluster
}

#[test]
fn committees_of_any_size_and_weight_order_everything() {
    for (seed, weights) in [
        vec![1],
        vec![1, 1],
        vec![1, 1, 1],
        vec![1, 1, 1, 1],
        vec![5, 3, 1, 1],
        vec![10, 1, 1, 1, 1],
        vec![1; 7],
        vec![3, 1, 4, 1, 5, 9, 2],
    ]
    .into_iter()
    .enumerate()
    {
        order_everything(&weights, seed as u64, 0, Parameters::default());
    }
}

#[test]
fn lost_messages_are_made_up_for() {
    for seed in 0..6 {
        order_everything(&[1; 4], seed, 100 + 50 * seed, Parameters::default());
    }
}

#[test]
fn few_leaders_and_no_reputation_work_too() {
    for leaders in [1, 2, 3] {
        let parameters = Parameters {
            leaders_per_round: leaders,
            schedule_interval_rounds: 0,
            ..Default::default()
        };
        order_everything(&[1; 4], 5, 50, parameters);
    }
}

#[test]
fn a_certificate_follows_and_then_all_rest() {
    let mut cluster = order_everything(&[1; 4], 1, 0, Parameters::default());
    cluster.run_until("certified", |cluster| {
        cluster.nodes.iter().all(|node| {
            let last = node
                .commits
                .iter()
                .rev()
                .find(|(_, commit)| commit.is_checkpoint);
            let certified = node
                .certificates
                .last()
                .map(|certificate| certificate.checkpoint.commit);
            last.map(|(_, commit)| commit.index) == certified && !node.status().awake
        })
    });
    for node in &cluster.nodes {
        for certificate in &node.certificates {
            certificate
                .verify(&cluster::CHAIN, &cluster.committee)
                .expect("it verifies");
        }
    }
    // docs/protocol.md 4.7: one event a heartbeat.
    cluster.run_for(2_000);
    let before = cluster.pushed.clone();
    cluster.run_for(20_000);
    for (before, after) in before.iter().zip(&cluster.pushed) {
        assert!(
            (18..=21).contains(&(after - before)),
            "{} events in 20 heartbeats",
            after - before
        );
    }
}

#[test]
fn the_first_transaction_after_a_rest_is_fast() {
    let mut cluster = order_everything(&[1; 4], 2, 0, Parameters::default());
    cluster.delay_ms = (10, 10);
    for number in 0..5 {
        cluster.run_for(10_123);
        assert!(
            cluster.nodes.iter().all(|node| !node.status().awake),
            "{}",
            cluster.describe()
        );
        let text = format!("after rest {number}");
        let submitted_ms = cluster.now_ms;
        cluster.submit(number % 4, &text);
        cluster.run_until("committed", |cluster| {
            cluster.all_have(&[0, 1, 2, 3], std::slice::from_ref(&text))
        });
        // An event, the others' answer to it, and two more rounds.
        assert!(
            cluster.now_ms - submitted_ms <= 50,
            "{} ms",
            cluster.now_ms - submitted_ms
        );
    }
}

/// Three message delays from an event's creation to its commit, for all events, when nothing is wrong.
#[test]
fn commits_take_three_delays() {
    for members in [4, 10] {
        let mut cluster = Cluster::new(&vec![1; members], 3, Parameters::default());
        cluster.delay_ms = (100, 100);
        cluster.run_for(1_000);
        for number in 0..100 {
            cluster.submit(number % members, &format!("{number}"));
            cluster.run_for(100);
        }
        cluster.run_for(1_000);
        cluster.check_agreement();
        let mut delays: Vec<u64> = Vec::new();
        for node in &cluster.nodes {
            for (at_ms, commit) in node
                .commits
                .iter()
                .filter(|(_, commit)| commit.leader.round > Round(10))
            {
                delays.extend(
                    commit
                        .events
                        .iter()
                        .map(|event| at_ms - event.timestamp_ms()),
                );
            }
        }
        delays.sort_unstable();
        let (p50, p99) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
        assert!(
            p50 <= 310 && p99 <= 410,
            "n = {members}: p50 {p50} ms, p99 {p99} ms"
        );
    }
}

/// docs/protocol.md 4.7: with long ways between them nobody takes the others for asleep, round after round: every hint
/// would bring an event once more.
#[test]
fn distant_members_are_not_taken_for_asleep() {
    for delay_ms in [(100, 100), (150, 150), (250, 300)] {
        let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
        cluster.delay_ms = delay_ms;
        let busy = |cluster: &mut Cluster| {
            for number in 0..40 {
                cluster.submit(number % 4, &format!("{} {number}", cluster.now_ms));
                cluster.run_for(100);
            }
        };
        busy(&mut cluster);
        let before = cluster.hints;
        busy(&mut cluster);
        let hints = cluster.hints - before;
        assert!(hints <= 10, "{delay_ms:?}: {hints} hints");
    }
}

/// docs/protocol.md 4.9: as many rounds as spacing each would make, and half a wave and three delays from submission to commit.
#[test]
fn a_paced_committee_waits_once_in_three_rounds() {
    let (interval_ms, delay_ms, run_ms) = (20, 2, 6_000);
    let parameters = Parameters {
        min_round_interval_ms: interval_ms,
        ..Parameters::default()
    };
    let mut cluster = Cluster::new(&[1; 4], 3, parameters);
    cluster.delay_ms = (delay_ms, delay_ms);
    cluster.submit(0, "start");
    cluster.run_for(1_000);
    let before = cluster.nodes[0].status().round;
    let mut submitted = Vec::new();
    while cluster.now_ms < 1_001_000 + run_ms {
        let number = submitted.len();
        submitted.push(cluster.now_ms);
        cluster.submit(number % 4, &format!("{number}"));
        cluster.run_for(7);
    }
    let rounds = cluster.nodes[0].status().round.0 - before.0;
    let unpaced = run_ms / interval_ms;
    assert!(
        (unpaced * 95 / 100..=unpaced * 105 / 100).contains(&rounds),
        "{rounds} rounds, {unpaced} if each were spaced"
    );
    cluster.run_for(1_000);
    let mut latencies: Vec<u64> = Vec::new();
    for (seat, node) in cluster.nodes.iter().enumerate() {
        for (at_ms, commit) in &node.commits {
            let own = commit
                .events
                .iter()
                .filter(|e| e.creator().0 as usize == seat);
            for wire in own.flat_map(|event| event.transactions().collect::<Vec<_>>()) {
                let text = String::from_utf8_lossy(&wire).into_owned();
                if let Ok(number) = text.parse::<usize>() {
                    latencies.push(at_ms - submitted[number]);
                }
            }
        }
    }
    assert_eq!(latencies.len(), submitted.len());
    latencies.sort_unstable();
    let (p50, worst) = (
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1],
    );
    assert!(
        p50 <= interval_ms * 3 / 2 + 4 * delay_ms,
        "p50 {p50} ms, {latencies:?}"
    );
    assert!(
        worst <= interval_ms * 3 + 8 * delay_ms,
        "at most {worst} ms"
    );
}

#[test]
fn a_silent_member_soon_costs_nothing() {
    let mut cluster = Cluster::new(&[1; 4], 3, Parameters::default());
    cluster.delay_ms = (50, 50);
    cluster.crash(3);
    for number in 0..60 {
        cluster.submit(number % 3, &format!("{number}"));
        cluster.run_for(100);
    }
    cluster.run_for(1_000);
    cluster.check_agreement();
    assert_eq!(cluster.nodes[0].status().leaders, 3);
    let late: Vec<_> = cluster.nodes[0].commits.iter().rev().take(60).collect();
    for (at_ms, commit) in late
        .iter()
        .filter(|(_, commit)| commit.transaction_count() > 0)
    {
        for event in &commit.events {
            assert!(
                at_ms - event.timestamp_ms() <= 200,
                "{} ms",
                at_ms - event.timestamp_ms()
            );
        }
    }
}

#[test]
fn nothing_is_added_to_what_cannot_be_ordered() {
    // docs/protocol.md 6.3, with a bound that every event is beyond: what a member takes stays in its pool.
    let parameters = Parameters {
        payload_rounds_max: 0,
        ..Parameters::default()
    };
    let mut cluster = Cluster::new(&[1; 4], 3, parameters);
    cluster.submit(0, "waits");
    cluster.run_for(2_000);
    let status = cluster.nodes[0].status();
    assert!(status.round > Round(5), "the rounds go on: {status:?}");
    assert_eq!(status.pool_transactions, 1);
    let carried = cluster.nodes[0]
        .log
        .iter()
        .map(VerifiedEvent::transaction_count);
    assert_eq!(carried.sum::<u32>(), 0);
}

#[test]
fn a_member_that_fell_behind_a_resting_committee_is_with_it_at_once() {
    // docs/protocol.md 4.5: without that it would make up one round in half a heartbeat.
    let mut cluster = Cluster::new(&[1; 4], 5, Parameters::default());
    cluster.submit(0, "start");
    cluster.run_for(5_000);
    cluster.isolate(3);
    cluster.run_for(30_000);
    let behind = cluster.nodes[3].status().round;
    assert!(
        behind.ahead(20) < cluster.nodes[0].status().round,
        "the others went on"
    );
    cluster.heal();
    cluster.run_for(3_000);
    let (there, here) = (
        cluster.nodes[0].status().round,
        cluster.nodes[3].status().round,
    );
    assert!(there <= here.ahead(1), "{here:?} is behind {there:?}");
}

#[test]
fn a_certificate_proves_nothing_without_a_quorum_of_true_signatures() {
    let mut cluster = Cluster::new(&[1; 4], 8, Parameters::default());
    cluster.submit(0, "sealed");
    cluster.run_until("a certificate", |cluster| {
        !cluster.nodes[0].certificates.is_empty()
    });
    let good = cluster.nodes[0].certificates[0].clone();
    let verdict =
        |certificate: &CheckpointCertificate| certificate.verify(&CHAIN, &cluster.committee);
    assert_eq!(verdict(&good), Ok(()));
    let mut few = good.clone();
    few.signatures.truncate(2);
    assert_eq!(verdict(&few), Err(CertificateError::Weight(2, 3)));
    let mut repeated = few.clone();
    repeated.signatures.push(repeated.signatures[1]);
    assert_eq!(verdict(&repeated), Err(CertificateError::Signers));
    let mut other = good.clone();
    other.checkpoint.state_root = Digest([9; 32]);
    let first = other.signatures[0].0;
    assert_eq!(verdict(&other), Err(CertificateError::BadSignature(first)));
}
