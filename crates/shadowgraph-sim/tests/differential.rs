//! The library's commit rule against the naive one, on graphs made without any network: all graphs of four members over two
//! rounds of choices, up to the names of members, and random graphs with twins, gaps, weights and shuffled arrival.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use shadowgraph::{
    ChainId, Commit, Committee, Config, Epoch, EpochStart, EventDraft, EventRef, Input, Member,
    MemberIndex, Message, Output, Parameters, Peer, Recipient, Replica, Round, SyncRequest,
    VerifiedEvent, verify_events,
};
use shadowgraph_sim::checkers::naive::{NaiveCommit, NaiveGraph};
use shadowgraph_sim::checkers::replay::{recompute, vertex};
use shadowgraph_sim::checkers::schedule::Reputation;
use shadowgraph_sim::rng::SimRng;
use shadowgraph_sim::world::{START_MS, member_key};

/// Makes real signed events, each distinct one once.
struct Workshop {
    chain_id: ChainId,
    committee: Committee,
    weights: Vec<u64>,
    made: HashMap<(u64, u16, u8, Vec<EventRef>), VerifiedEvent>,
}

impl Workshop {
    fn new(weights: Vec<u64>) -> Self {
        let members = weights.iter().enumerate();
        let members = members.map(|(seat, weight)| Member {
            key: member_key(seat).public(),
            weight: *weight,
        });
        let committee =
            Committee::new(Epoch(0), members.collect()).expect("an admissible committee");
        Self {
            chain_id: ChainId([9; 32]),
            committee,
            weights,
            made: HashMap::new(),
        }
    }

    fn genesis(&self, member: u16) -> EventRef {
        EventRef::genesis(&self.chain_id, Epoch(0), MemberIndex(member))
    }

    /// The event of this slot on these parents; `twin` tells several apart.
    fn event(
        &mut self,
        round: u64,
        creator: u16,
        twin: u8,
        mut parents: Vec<EventRef>,
    ) -> VerifiedEvent {
        parents.sort_by_key(|parent| parent.creator);
        let key = (round, creator, twin, parents.clone());
        if let Some(event) = self.made.get(&key) {
            return event.clone();
        }
        let draft = EventDraft {
            chain_id: self.chain_id,
            epoch: Epoch(0),
            round: Round(round),
            creator: MemberIndex(creator),
            timestamp_ms: START_MS + round * 10 + u64::from(creator) * 3,
            parents,
            checkpoint_votes: Vec::new(),
            transactions: vec![Bytes::from(vec![twin + 1])],
        };
        let sealed = draft.seal(&member_key(usize::from(creator)));
        let verified = verify_events(vec![sealed], &self.chain_id, &self.committee).remove(0);
        let event = verified.expect("the workshop makes valid events");
        self.made.insert(key, event.clone());
        event
    }

    /// What a follower commits when it hears these events in this order.
    fn library(&self, parameters: &Parameters, arrival: &[VerifiedEvent]) -> Vec<Commit> {
        let config = Config {
            chain_id: self.chain_id,
            committee: self.committee.clone(),
            me: None,
            start: EpochStart::genesis(START_MS),
            parameters: parameters.clone(),
        };
        let mut now_ms = START_MS + 1_000_000;
        let mut replica = Replica::new(config, None, now_ms);
        let mut commits = Vec::new();
        let mut asked = Vec::new();
        for event in arrival {
            let from = Peer::Member(event.creator());
            replica.handle(
                now_ms,
                Input::Events {
                    from,
                    events: vec![event.clone()],
                },
            );
            collect(&mut replica, &mut commits, &mut asked);
        }
        // A twin is taken only when something cites it: the follower asks for it again.
        let steps = if has_twins(arrival) { SERVED_STEPS } else { 0 };
        for _ in 0..steps {
            for (to, request) in std::mem::take(&mut asked) {
                let events = arrival
                    .iter()
                    .filter(|event| wants(&request, event.reference()))
                    .cloned()
                    .collect();
                replica.handle(now_ms, Input::Events { from: to, events });
            }
            now_ms += 50;
            replica.handle(now_ms, Input::Timeout);
            collect(&mut replica, &mut commits, &mut asked);
        }
        commits
    }

    fn naive(&self, parameters: &Parameters, events: &[VerifiedEvent]) -> Vec<NaiveCommit> {
        let mut graph = NaiveGraph::new(self.weights.clone());
        events.iter().for_each(|event| graph.insert(vertex(event)));
        let interval = parameters.schedule_interval_rounds;
        let mut schedule =
            Reputation::new(self.weights.clone(), parameters.leaders_per_round, interval);
        recompute(&graph, &mut schedule, parameters.gc_depth_rounds, START_MS)
    }

    fn compare(&self, parameters: &Parameters, arrival: &[VerifiedEvent], what: &str) -> usize {
        let library = self.library(parameters, arrival);
        let naive = self.naive(parameters, arrival);
        let of_library: Vec<_> = library
            .iter()
            .map(|commit| {
                let events: Vec<_> = commit.events.iter().map(|event| event.digest().0).collect();
                (
                    commit.leader.round.0,
                    commit.rank,
                    commit.leader.digest.0,
                    commit.time_ms,
                    events,
                )
            })
            .collect();
        let of_naive: Vec<_> = naive
            .into_iter()
            .map(|commit| {
                (
                    commit.round,
                    commit.rank,
                    commit.leader,
                    commit.time_ms,
                    commit.events,
                )
            })
            .collect();
        // A twin that nobody cites does not enter the library's graph: at the very top its vote may be lacking.
        let lacking = if has_twins(arrival) {
            of_naive.len() / 4
        } else {
            0
        };
        let enough =
            of_library.len() + lacking >= of_naive.len() && of_library.len() <= of_naive.len();
        assert!(
            enough,
            "{what}: {} commits, by the naive rule {}",
            of_library.len(),
            of_naive.len()
        );
        for (library, naive) in of_library.iter().zip(&of_naive) {
            assert_eq!(library, naive, "{what}");
        }
        of_library.len()
    }
}

/// How often a follower's requests are answered after it has heard everything.
const SERVED_STEPS: u64 = 100;

fn collect(replica: &mut Replica, commits: &mut Vec<Commit>, asked: &mut Vec<(Peer, SyncRequest)>) {
    while let Some(output) = replica.poll_output() {
        match output {
            Output::Commit(commit) => commits.push(commit),
            Output::Send {
                to: Recipient::One(peer),
                message: Message::Request(request),
            } => asked.push((peer, request.wanted)),
            _ => {}
        }
    }
}

fn has_twins(events: &[VerifiedEvent]) -> bool {
    let slots: BTreeSet<_> = events
        .iter()
        .map(|event| (event.round(), event.creator()))
        .collect();
    slots.len() < events.len()
}

fn wants(request: &SyncRequest, reference: &EventRef) -> bool {
    match request {
        SyncRequest::Events(references) => references.contains(reference),
        SyncRequest::After(after) => after.wants(reference.round, reference.creator),
    }
}

fn parameters() -> Parameters {
    Parameters {
        schedule_interval_rounds: 0,
        ..Parameters::default()
    }
}

/// For each member whom it leaves out as a parent; itself means nobody.
type Choices = [u16; 4];

fn all_choices() -> impl Iterator<Item = Choices> {
    (0..256u16).map(|code| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3])
}

/// The least of all renamings.
fn representative(choices: &Choices) -> Choices {
    let mut best = *choices;
    for first in 0..4u16 {
        for second in (0..4).filter(|second| *second != first) {
            for third in (0..4).filter(|third| *third != first && *third != second) {
                let names = [first, second, third, 6 - first - second - third];
                let mut renamed = [0; 4];
                (0..4).for_each(|member| {
                    renamed[usize::from(names[member])] = names[usize::from(choices[member])]
                });
                best = best.min(renamed);
            }
        }
    }
    best
}

#[test]
fn every_small_graph_commits_as_the_naive_rule_says() {
    let mut workshop = Workshop::new(vec![1; 4]);
    let classes: BTreeSet<Choices> = all_choices()
        .map(|choices| representative(&choices))
        .collect();
    let everybody: Choices = [0, 1, 2, 3];
    let mut graphs = 0;
    let mut by_commits = BTreeMap::new();
    for support in &classes {
        for certify in all_choices() {
            // Two rounds of choices, then rounds that let every slot be decided.
            let rounds = [support, &certify, &everybody, &everybody, &everybody];
            let mut below: Vec<VerifiedEvent> = (0..4)
                .map(|member| workshop.event(1, member, 0, vec![workshop.genesis(member)]))
                .collect();
            let mut arrival = below.clone();
            for (round, choices) in (2..).zip(rounds) {
                let next = (0..4u16).map(|member| {
                    let left_out = choices[usize::from(member)];
                    let cited = below
                        .iter()
                        .filter(|event| member == left_out || event.creator().0 != left_out);
                    let parents = cited.map(|event| *event.reference()).collect();
                    workshop.event(round, member, 0, parents)
                });
                below = next.collect();
                arrival.extend(below.iter().cloned());
            }
            let commits = workshop.compare(
                &parameters(),
                &arrival,
                &format!("{support:?} then {certify:?}"),
            );
            *by_commits.entry(commits).or_insert(0) += 1;
            graphs += 1;
        }
    }
    assert!(
        graphs > 4_000 && by_commits.len() > 3,
        "{graphs} graphs, {by_commits:?}"
    );
}

/// A random graph that honest members and up to f equivocators could have made, in causal order.
fn random_graph(workshop: &mut Workshop, rng: &mut SimRng, rounds: u64) -> Vec<VerifiedEvent> {
    let members = workshop.weights.len() as u16;
    let quorum = workshop.committee.quorum_weight();
    let mut byzantine: BTreeSet<u16> = BTreeSet::new();
    let mut spare = workshop.committee.fault_weight();
    for member in 0..members {
        let weight = workshop.weights[usize::from(member)];
        if weight <= spare && rng.chance(500) {
            spare -= weight;
            byzantine.insert(member);
        }
    }
    let mut last: Vec<Vec<EventRef>> = (0..members)
        .map(|member| vec![workshop.genesis(member)])
        .collect();
    let mut arrival = Vec::new();
    let mut below: BTreeMap<u16, Vec<EventRef>> = BTreeMap::new();
    let (presence, citation) = (rng.between(700, 1000) as u32, rng.between(300, 1000) as u32);
    for round in 1..=rounds {
        let mut here: BTreeMap<u16, Vec<EventRef>> = BTreeMap::new();
        for member in 0..members {
            let twins = if byzantine.contains(&member) && rng.chance(500) {
                2
            } else {
                1
            };
            for twin in 0..twins {
                let own = *rng.choose(&last[usize::from(member)]);
                let parents = choose_parents(workshop, rng, &below, own, round, citation, quorum);
                if let Some(parents) = parents.filter(|_| rng.chance(presence) || round == 1) {
                    let event = workshop.event(round, member, twin, parents);
                    here.entry(member).or_default().push(*event.reference());
                    arrival.push(event);
                }
            }
        }
        let present: u64 = here
            .keys()
            .map(|member| workshop.weights[usize::from(*member)])
            .sum();
        for (member, events) in &here {
            last[usize::from(*member)] = events.clone();
        }
        below = here;
        if present < quorum {
            break;
        }
    }
    arrival
}

/// The own parent and random others of the round below, of quorum weight where the round needs one.
fn choose_parents(
    workshop: &Workshop,
    rng: &mut SimRng,
    below: &BTreeMap<u16, Vec<EventRef>>,
    own: EventRef,
    round: u64,
    citation: u32,
    quorum: u64,
) -> Option<Vec<EventRef>> {
    let mut parents = vec![own];
    if round == 1 {
        return Some(parents);
    }
    let weight = |reference: &EventRef| workshop.committee.weight(reference.creator);
    let mut total = if own.round.0 + 1 == round {
        weight(&own)
    } else {
        0
    };
    let mut others: Vec<&Vec<EventRef>> = below
        .iter()
        .filter(|(member, _)| **member != own.creator.0)
        .map(|(_, events)| events)
        .collect();
    rng.shuffle(&mut others);
    for events in others {
        let event = *rng.choose(events);
        if total < quorum || rng.chance(citation) {
            total += weight(&event);
            parents.push(event);
        }
    }
    (total >= quorum).then_some(parents)
}

#[test]
fn random_graphs_commit_as_the_naive_rule_says() {
    let mut commits = 0;
    for seed in 0..150 {
        let mut rng = SimRng::stream(seed, "differential", 0);
        let members = *rng.choose(&[1, 2, 3, 4, 4, 4, 5, 7]);
        let uniform = rng.chance(600);
        let weights = (0..members)
            .map(|_| if uniform { 1 } else { rng.between(1, 5) })
            .collect();
        let mut workshop = Workshop::new(weights);
        let parameters = Parameters {
            leaders_per_round: *rng.choose(&[1, 2, u16::MAX]),
            schedule_interval_rounds: *rng.choose(&[0, 3, 10]),
            gc_depth_rounds: *rng.choose(&[5, 10, 50]),
            ..parameters()
        };
        let mut arrival = random_graph(&mut workshop, &mut rng, 30);
        let what = format!("seed {seed}");
        commits += workshop.compare(&parameters, &arrival, &what);
        // Another order of arrival, within what one sender may have waiting: the same commits.
        for start in (0..arrival.len()).step_by(40) {
            let end = (start + 40).min(arrival.len());
            rng.shuffle(&mut arrival[start..end]);
        }
        workshop.compare(&parameters, &arrival, &format!("{what}, shuffled"));
    }
    assert!(
        commits > 1_000,
        "only {commits} commits: the graphs test nothing"
    );
}
