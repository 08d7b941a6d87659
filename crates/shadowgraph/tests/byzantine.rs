//! A faulty member within f: twins, floods, lies about time and rounds. The others keep agreeing and going.

mod cluster;

use bytes::Bytes;
use cluster::{CHAIN, Cluster};
use shadowgraph::*;

/// Seat 3, driven by hand: sees what member 0 sees and makes what events it likes.
struct Liar {
    last: EventRef,
    timestamp_ms: u64,
}

impl Liar {
    const SEAT: MemberIndex = MemberIndex(3);

    fn new() -> Self {
        Self {
            last: EventRef::genesis(&CHAIN, Epoch(0), Self::SEAT),
            timestamp_ms: 0,
        }
    }

    /// The parents of an event of `round`, from what member `seat` holds.
    fn parents(&self, cluster: &Cluster, seat: usize, round: Round) -> Option<Vec<EventRef>> {
        let log = &cluster.nodes[seat].log;
        let honest = log
            .iter()
            .filter(|event| event.round().next() == round && event.creator() != Self::SEAT);
        let mut parents: Vec<EventRef> = honest.map(|event| *event.reference()).collect();
        parents.push(self.last);
        parents.sort_by_key(|parent| parent.creator);
        (round == Round(1) && parents.len() == 1 || parents.len() == 4).then_some(parents)
    }

    fn draft(
        &self,
        cluster: &Cluster,
        seat: usize,
        round: Round,
        payload: &str,
    ) -> Option<EventDraft> {
        let parents = if round == Round(1) {
            vec![self.last]
        } else {
            self.parents(cluster, seat, round)?
        };
        Some(EventDraft {
            chain_id: CHAIN,
            epoch: Epoch(0),
            round,
            creator: Self::SEAT,
            timestamp_ms: cluster.now_ms.max(self.timestamp_ms),
            parents,
            checkpoint_votes: vec![],
            transactions: vec![Bytes::from(payload.to_owned())],
        })
    }

    /// Signs, and remembers as its last.
    fn sign(&mut self, cluster: &Cluster, draft: &EventDraft) -> VerifiedEvent {
        let sealed = draft.seal(&cluster.keys[3]);
        let event = verify_events(vec![sealed], &CHAIN, &cluster.committee)
            .remove(0)
            .expect("valid");
        self.last = *event.reference();
        self.timestamp_ms = draft.timestamp_ms;
        event
    }
}

fn three_of_four(seed: u64) -> Cluster {
    let mut cluster = Cluster::idle(&[1; 4], seed, Parameters::default());
    (0..3).for_each(|seat| cluster.start(seat));
    cluster
}

fn give(cluster: &mut Cluster, seat: usize, event: &VerifiedEvent) {
    cluster.input(
        seat,
        Input::Events {
            from: Peer::Member(Liar::SEAT),
            events: vec![event.clone()],
        },
    );
}

#[test]
fn twins_sent_to_different_members_do_no_harm() {
    for seed in 0..4 {
        let mut cluster = three_of_four(seed);
        let mut liar = Liar::new();
        cluster.submit(0, "start");
        for round in (1..=12).map(Round) {
            cluster.run_until("a round", |cluster| {
                cluster.nodes[0].status().round >= round
            });
            cluster.run_for(10);
            let Some(draft) = liar.draft(&cluster, 0, round, "one") else {
                continue;
            };
            let other = EventDraft {
                transactions: vec![Bytes::from("other")],
                ..draft.clone()
            };
            let other = liar.sign(&cluster, &other);
            let one = liar.sign(
                &cluster,
                &EventDraft {
                    transactions: vec![Bytes::from(format!("one {round}"))],
                    ..draft
                },
            );
            give(&mut cluster, 0, &one);
            give(&mut cluster, 1, &other);
            give(&mut cluster, 2, if seed % 2 == 0 { &one } else { &other });
            cluster.submit(1, &format!("honest {round}"));
        }
        cluster.submit(2, "end");
        cluster.run_until("end", |cluster| {
            cluster.all_have(&[0, 1, 2], &["start".into(), "end".into()])
        });
        for node in &cluster.nodes[..3] {
            assert_eq!(node.proofs.len(), 1, "once per culprit");
            assert_eq!(
                node.proofs[0]
                    .verify(&CHAIN, &cluster.committee)
                    .expect("it verifies")
                    .0,
                Liar::SEAT
            );
            // docs/protocol.md 5.4
            let mut slots = std::collections::BTreeSet::new();
            for event in node.commits.iter().flat_map(|(_, commit)| &commit.events) {
                assert!(
                    slots.insert((event.round(), event.creator())),
                    "two events of one slot were output"
                );
            }
        }
    }
}

/// docs/protocol.md 8.3
#[test]
fn whoever_signed_twins_is_cited_no_more() {
    let mut cluster = three_of_four(4);
    let mut liar = Liar::new();
    // The proof is everywhere before anybody has made an event.
    for text in ["other", "one"] {
        let draft = EventDraft {
            parents: vec![EventRef::genesis(&CHAIN, Epoch(0), Liar::SEAT)],
            ..liar.draft(&cluster, 0, Round(1), text).expect("the first")
        };
        let twin = liar.sign(&cluster, &draft);
        (0..3).for_each(|seat| give(&mut cluster, seat, &twin));
    }
    cluster.submit(0, "start");
    cluster.run_until("round 4", |cluster| {
        cluster.nodes[0].status().round >= Round(4)
    });
    let entered = cluster.nodes[0].log.iter();
    let entered = entered.filter(|event| event.creator() == Liar::SEAT);
    assert_eq!(entered.count(), 1, "one of the twins can be cited");
    cluster.run_for(2_000);
    for node in &cluster.nodes[..3] {
        assert_eq!(node.proofs.len(), 1);
        let cited = |parent: &EventRef| parent.creator == Liar::SEAT;
        let cites = |event: &VerifiedEvent| {
            event.creator() != Liar::SEAT && event.parents().iter().any(cited)
        };
        assert!(!node.log.iter().any(cites));
    }
}

#[test]
fn a_timestamp_below_the_own_parents_is_refused_and_the_future_is_not_cited() {
    let mut cluster = three_of_four(1);
    let mut liar = Liar::new();
    cluster.submit(0, "start");
    let first = EventDraft {
        timestamp_ms: cluster.now_ms + 3_600_000,
        ..liar.draft(&cluster, 0, Round(1), "early").unwrap()
    };
    let first = liar.sign(&cluster, &first);
    (0..3).for_each(|seat| give(&mut cluster, seat, &first));
    cluster.run_until("round 4", |cluster| {
        cluster.nodes[0].status().round >= Round(4)
    });
    let mut second = liar
        .draft(&cluster, 0, Round(2), "back")
        .expect("round 1 is complete");
    second.timestamp_ms = cluster.now_ms;
    let second = liar.sign(&cluster, &second);
    give(&mut cluster, 0, &second);
    assert_eq!(
        cluster.nodes[0].faults[0].1,
        PeerFault::TimestampBelowOwnParent(*second.reference())
    );
    cluster.run_for(20_000);
    let cited = |event: &VerifiedEvent| event.parents().contains(first.reference());
    let honest = cluster.nodes[0]
        .log
        .iter()
        .filter(|event| event.creator() != Liar::SEAT);
    assert!(
        !honest.clone().any(cited),
        "an event an hour ahead was cited"
    );
    let (at_ms, last) = cluster.nodes[0].commits.last().expect("commits go on");
    assert!(last.time_ms <= *at_ms, "the liar moved the clock");
    cluster.check_agreement();
}

#[test]
fn a_flood_without_ancestors_stays_within_its_share() {
    let mut cluster = three_of_four(2);
    let limit = cluster.parameters.pending_events_per_peer_max;
    cluster.submit(0, "start");
    cluster.run_for(200);
    // A chain of events of its own on parents that nobody has.
    let mut liar = Liar::new();
    let mut events = Vec::new();
    for round in (2..=(limit as u64 + 200)).map(Round) {
        let strange = |seat: u16| EventRef {
            round: round.back(1),
            creator: MemberIndex(seat),
            digest: Digest([round.0 as u8; 32]),
        };
        let own = if round == Round(2) {
            EventRef {
                digest: Digest([1; 32]),
                ..strange(3)
            }
        } else {
            liar.last
        };
        let draft = EventDraft {
            chain_id: CHAIN,
            epoch: Epoch(0),
            round,
            creator: Liar::SEAT,
            timestamp_ms: cluster.now_ms,
            parents: vec![strange(0), strange(1), strange(2), own],
            checkpoint_votes: vec![],
            transactions: vec![],
        };
        events.push(liar.sign(&cluster, &draft));
    }
    cluster.input(
        0,
        Input::Events {
            from: Peer::Member(Liar::SEAT),
            events,
        },
    );
    assert_eq!(cluster.nodes[0].status().pending_events, limit);
    assert!(
        cluster.nodes[0]
            .faults
            .iter()
            .any(|(_, fault)| *fault == PeerFault::PendingOverflow)
    );
    // The claim of high rounds by one member does not make the others wait.
    let texts: Vec<String> = (0..20).map(|number| format!("{number}")).collect();
    for text in &texts {
        cluster.submit(0, text);
        cluster.run_for(10);
    }
    let started_ms = cluster.now_ms;
    cluster.run_until("all", |cluster| cluster.all_have(&[0, 1, 2], &texts));
    assert!(
        cluster.now_ms - started_ms < 2_000,
        "{} ms",
        cluster.now_ms - started_ms
    );
}

fn request(wanted: SyncRequest) -> Message {
    Message::Request(Request {
        epoch: Epoch(0),
        wanted,
    })
}

#[test]
fn requests_beyond_a_rate_are_refused() {
    let mut cluster = three_of_four(3);
    cluster.run_for(100);
    for _ in 0..1_000 {
        let message = request(SyncRequest::Events(vec![]));
        cluster.input(
            0,
            Input::Message {
                from: Peer::Member(Liar::SEAT),
                message,
            },
        );
    }
    let refused = cluster.nodes[0]
        .faults
        .iter()
        .filter(|(_, fault)| *fault == PeerFault::RequestFlood)
        .count();
    assert!(refused > 700, "{refused}");
    let short = After {
        from: Round(1),
        to: Round(2),
        after: vec![],
    };
    let message = request(SyncRequest::After(short));
    cluster.input(
        1,
        Input::Message {
            from: Peer::Member(Liar::SEAT),
            message,
        },
    );
    assert_eq!(
        cluster.nodes[1].faults,
        [(Peer::Member(Liar::SEAT), PeerFault::Malformed)]
    );
}

#[test]
fn wakes_do_not_keep_a_resting_committee_running() {
    let mut cluster = three_of_four(4);
    cluster.run_for(30_000);
    let before = cluster.pushed[0];
    for _ in 0..2_000 {
        for seat in 0..3 {
            let wake = Message::Wake(Wake {
                epoch: Epoch(0),
                round: Round(u64::MAX),
            });
            cluster.input(
                seat,
                Input::Message {
                    from: Peer::Member(Liar::SEAT),
                    message: wake,
                },
            );
        }
        cluster.run_for(10);
    }
    // Twenty heartbeats, eight hints heeded in each.
    let made = cluster.pushed[0] - before;
    assert!(made <= 200, "{made} events");
}

#[test]
fn twins_that_nobody_needs_do_not_enter() {
    let mut cluster = three_of_four(7);
    let mut liar = Liar::new();
    cluster.submit(0, "start");
    let draft = liar.draft(&cluster, 0, Round(1), "one").expect("round 1");
    let before = cluster.nodes[0].status().graph_events;
    for number in 0..50 {
        let twin = EventDraft {
            transactions: vec![Bytes::from(format!("twin {number}"))],
            ..draft.clone()
        };
        let twin = liar.sign(&cluster, &twin);
        give(&mut cluster, 0, &twin);
    }
    // docs/protocol.md 8.4
    let status = cluster.nodes[0].status();
    assert_eq!(
        (status.graph_events, status.pending_events),
        (before + 1, 0)
    );
    assert_eq!(cluster.nodes[0].proofs.len(), 1);
}
