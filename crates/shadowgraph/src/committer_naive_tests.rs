//! The commit rule against a second implementation that follows the words of docs/protocol.md 3 literally, on random
//! graphs with twins, in random orders of arrival, and on parts of each graph.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::committer::Committer;
use crate::dag_text::Maker;
use crate::event::{EventRef, VerifiedEvent};
use crate::graph::Graph;
use crate::ids::{MemberIndex, Round};
use crate::schedule::Schedule;

/// A graph by names only.
struct Naive<'a> {
    maker: &'a Maker,
    events: BTreeMap<EventRef, Vec<EventRef>>,
    leaders: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Undecided,
    Skipped,
    Committed(EventRef),
}

impl Naive<'_> {
    fn weight(&self, seats: impl Iterator<Item = MemberIndex>) -> u64 {
        let distinct: BTreeSet<_> = seats.collect();
        distinct
            .into_iter()
            .map(|seat| self.maker.committee.weight(seat))
            .sum()
    }

    fn quorum(&self) -> u64 {
        self.maker.committee.quorum_weight()
    }

    fn round(&self, round: u64) -> impl Iterator<Item = &EventRef> {
        self.events
            .keys()
            .filter(move |event| event.round.0 == round)
    }

    fn cites(&self, event: &EventRef, cited: &EventRef) -> bool {
        self.events[event].contains(cited)
    }

    fn is_certificate(&self, event: &EventRef, leader: &EventRef) -> bool {
        let voters = self.events[event]
            .iter()
            .filter(|parent| parent.round == leader.round.next());
        let supporting = voters.filter(|voter| self.cites(voter, leader));
        event.round == leader.round.ahead(2)
            && self.weight(supporting.map(|voter| voter.creator)) >= self.quorum()
    }

    fn history(&self, event: &EventRef) -> BTreeSet<EventRef> {
        let mut seen = BTreeSet::from([*event]);
        let mut open = vec![*event];
        while let Some(event) = open.pop() {
            for parent in self.events[&event]
                .iter()
                .filter(|parent| parent.round > Round(0))
            {
                if seen.insert(*parent) {
                    open.push(*parent);
                }
            }
        }
        seen
    }

    fn leader(&self, round: u64, rank: u64) -> MemberIndex {
        let members = self.maker.committee.len() as u64;
        let slots = self.slots();
        let stride = if slots < members { slots } else { 1 };
        // docs/protocol.md 4.2, worked out by walking up: the leaders met in steps of three rounds, until one comes again.
        let mut met = BTreeSet::new();
        while met.insert(met.len() as u64 * 3 * stride % members) && met.len() < members as usize {}
        let met = met.len() as u64;
        let turns = if met < members { round / (3 * met) } else { 0 };
        MemberIndex(((round * stride + turns + rank) % members) as u16)
    }

    fn slots(&self) -> u64 {
        u64::from(self.leaders).min(self.maker.committee.len() as u64)
    }

    fn decide(&self, round: u64, rank: u64, top: u64) -> Status {
        let seat = self.leader(round, rank);
        let slot: Vec<_> = self
            .round(round)
            .filter(|event| event.creator == seat)
            .collect();
        for leader in &slot {
            let certificates = self
                .round(round + 2)
                .filter(|event| self.is_certificate(event, leader));
            if self.weight(certificates.map(|event| event.creator)) >= self.quorum() {
                return Status::Committed(**leader);
            }
        }
        let against = self
            .round(round + 1)
            .filter(|event| !slot.iter().any(|leader| self.cites(event, leader)));
        if self.weight(against.map(|event| event.creator)) >= self.quorum() {
            return Status::Skipped;
        }
        let later =
            (round + 3..=top).flat_map(|round| (0..self.slots()).map(move |rank| (round, rank)));
        let mut open = later.map(|(round, rank)| self.decide(round, rank, top));
        let Some(Status::Committed(anchor)) = open.find(|status| *status != Status::Skipped) else {
            return Status::Undecided;
        };
        let history = self.history(&anchor);
        let certified = |leader: &&&EventRef| {
            history
                .iter()
                .any(|event| self.is_certificate(event, leader))
        };
        slot.iter()
            .find(certified)
            .map_or(Status::Skipped, |leader| Status::Committed(**leader))
    }

    fn sequence(&self) -> Vec<EventRef> {
        let top = self
            .events
            .keys()
            .map(|event| event.round.0)
            .max()
            .unwrap_or(0);
        let mut sequence = Vec::new();
        for (round, rank) in
            (1..=top).flat_map(|round| (0..self.slots()).map(move |rank| (round, rank)))
        {
            match self.decide(round, rank, top) {
                Status::Undecided => break,
                Status::Skipped => {}
                Status::Committed(leader) => sequence.push(leader),
            }
        }
        sequence
    }
}

/// Inserts in this order and gives the leaders committed.
fn incremental(maker: &Maker, leaders: u16, events: &[VerifiedEvent]) -> Vec<EventRef> {
    let schedule = Schedule::new(maker.committee.clone(), leaders, 0);
    let mut graph = Graph::new(maker.committee.clone());
    let mut committer = Committer::new(maker.committee.clone(), schedule);
    let mut sequence = Vec::new();
    for event in events {
        let handle = graph.insert(event.clone());
        committer.observe(&graph, handle);
        while let Some(decided) = committer.next(&graph) {
            sequence.push(
                *graph
                    .node(decided.leader)
                    .expect("above the floor")
                    .event
                    .reference(),
            );
        }
    }
    sequence
}

/// A random valid graph: every event cites a random quorum or more of the round before; the last seat (weight within
/// f) may make twins.
fn random_graph(maker: &Maker, rounds: u64, choices: &[u32]) -> Vec<VerifiedEvent> {
    let mut at = 0;
    let mut choose = move |bound: usize| {
        at += 1;
        (choices[at % choices.len()]
            .wrapping_mul(2_654_435_761)
            .rotate_left(at as u32) as usize)
            % bound.max(1)
    };
    let members = maker.committee.len();
    let mut all: Vec<VerifiedEvent> = Vec::new();
    for round in (1..=rounds).map(Round) {
        for seat in (0..members as u16).map(MemberIndex) {
            let twins = if seat.index() + 1 == members && choose(3) == 0 {
                2
            } else {
                1
            };
            for twin in 0..twins {
                let own = all
                    .iter()
                    .rev()
                    .find(|event| event.creator() == seat && event.round() < round);
                let own = own.map_or(maker.genesis(seat), |event| *event.reference());
                let mut parents = BTreeMap::from([(seat, own)]);
                let before: Vec<_> = all
                    .iter()
                    .filter(|event| event.round().next() == round)
                    .collect();
                let first = choose(before.len());
                let leave_out = choose(3);
                let weight = |parents: &BTreeMap<MemberIndex, EventRef>| -> u64 {
                    let cited = parents
                        .values()
                        .filter(|parent| parent.round.next() == round);
                    cited
                        .map(|parent| maker.committee.weight(parent.creator))
                        .sum()
                };
                for step in 0..before.len() {
                    let event = before[(first + step) % before.len()];
                    if weight(&parents) < maker.committee.quorum_weight() || leave_out == 0 {
                        parents.entry(event.creator()).or_insert(*event.reference());
                    }
                }
                if round > Round(1) && weight(&parents) < maker.committee.quorum_weight() {
                    continue; // its own last event is older and the others are too few
                }
                let mut draft = maker.draft(seat, round, parents.into_values().collect());
                draft.timestamp_ms += 100 * twin;
                all.push(maker.sign(&draft));
            }
        }
    }
    all
}

fn naive<'a>(maker: &'a Maker, leaders: u16, events: &[VerifiedEvent]) -> Naive<'a> {
    let events = events
        .iter()
        .map(|event| (*event.reference(), event.parents().to_vec()))
        .collect();
    Naive {
        maker,
        events,
        leaders,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_rule_is_the_same_when_counted_naively(
        weights in prop_oneof![Just(vec![1; 4]), Just(vec![5, 3, 1, 1]), Just(vec![2, 2, 2, 1]), Just(vec![1; 7])],
        leaders in 1u16..=8,
        choices in prop::collection::vec(any::<u32>(), 64),
        arrival in any::<u32>(),
    ) {
        let maker = Maker::new(&weights);
        let events = random_graph(&maker, 8, &choices);
        let whole = naive(&maker, leaders, &events);
        let expected = whole.sequence();
        prop_assert_eq!(&incremental(&maker, leaders, &events), &expected);

        // Another order of arrival, ancestors first all the same.
        let mut rest: Vec<&VerifiedEvent> = events.iter().collect();
        let mut shuffled: Vec<VerifiedEvent> = Vec::new();
        let mut inside: BTreeSet<EventRef> = BTreeSet::new();
        let mut state = u64::from(arrival) | 1;
        while !rest.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (state >> 33) as usize % rest.len();
            let complete = |event: &VerifiedEvent| {
                event.parents().iter().all(|parent| parent.round == Round(0) || inside.contains(parent))
            };
            let next = (0..rest.len()).map(|step| (start + step) % rest.len()).find(|at| complete(rest[*at]));
            let event = rest.remove(next.expect("some event is complete"));
            inside.insert(*event.reference());
            shuffled.push(event.clone());
        }
        prop_assert_eq!(&incremental(&maker, leaders, &shuffled), &expected);

        // What one event's history alone decides is a prefix of what the whole decides.
        for event in events.iter().rev().step_by(3) {
            let history = whole.history(event.reference());
            let part: Vec<_> = events.iter().filter(|event| history.contains(event.reference())).cloned().collect();
            let decided = incremental(&maker, leaders, &part);
            prop_assert!(expected.starts_with(&decided) || decided.starts_with(&expected));
            prop_assert_eq!(naive(&maker, leaders, &part).sequence(), decided);
        }
    }
}
