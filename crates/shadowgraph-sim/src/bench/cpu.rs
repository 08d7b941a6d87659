//! What one replica computes for an event, from 4 members to 200, and what a whole committee of 200 does. Events without
//! payload; see `payload` for those with.

use std::time::Duration;

use bytes::Bytes;
use shadowgraph::{
    ChainId, Committee, Config, Epoch, EpochStart, EventDraft, EventRef, Input, Member,
    MemberIndex, Output, Parameters, Peer, Replica, Round, UnverifiedEvent, verify_events,
};

use super::{Choice, Figure, thread_cpu};
use crate::network::Latency;
use crate::plan::Plan;
use crate::queue::{MS, SECOND};
use crate::run::run_plan;
use crate::world::member_key;

const CHAIN: ChainId = ChainId([1; 32]);
/// How many events a replica of the node checks at once.
const BATCH: usize = 128;
/// Committees, and how many rounds of them are measured.
const SIZES: [(usize, u64); 5] = [(4, 4_000), (10, 1_600), (50, 200), (100, 80), (200, 40)];

/// Full rounds of a committee, every event citing all of the round before.
pub(super) struct Rounds {
    committee: Committee,
    wire: Vec<Bytes>,
}

impl Rounds {
    /// Makes and signs them.
    pub(super) fn make(members: usize, rounds: u64, payload: &[Bytes]) -> Self {
        let keys: Vec<_> = (0..members).map(member_key).collect();
        let seats = keys.iter().map(|key| Member {
            key: key.public(),
            weight: 1,
        });
        let committee = Committee::new(Epoch(0), seats.collect()).expect("a committee");
        let genesis = |seat: u16| EventRef::genesis(&CHAIN, Epoch(0), MemberIndex(seat));
        let (mut wire, mut previous) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let mut current = Vec::new();
            for (key, seat) in keys.iter().zip(0u16..) {
                let draft = EventDraft {
                    chain_id: CHAIN,
                    epoch: Epoch(0),
                    round: Round(round),
                    creator: MemberIndex(seat),
                    timestamp_ms: round,
                    parents: match round {
                        1 => vec![genesis(seat)],
                        _ => previous.clone(),
                    },
                    checkpoint_votes: vec![],
                    transactions: payload.to_vec(),
                };
                let event = draft.seal(key);
                current.push(*event.reference());
                wire.push(event.bytes().clone());
            }
            previous = current;
        }
        Self { committee, wire }
    }

    /// How many events there are.
    pub(super) fn events(&self) -> usize {
        self.wire.len()
    }

    /// One follower takes them all. Returns the time for decoding and verifying, and that for the graph, the log and the
    /// order. With a `log` every event is written to it, as a node does with its own before it syncs.
    ///
    /// # Panics
    /// If a transaction's bytes are anywhere else than where they came off the wire, or events are missing from the order.
    pub(super) fn take(self, log: Option<&mut Vec<u8>>) -> (Duration, Duration) {
        let Self { committee, wire } = self;
        let events = wire.len();
        let members = committee.len();
        let start = thread_cpu();
        let mut verified = Vec::with_capacity(events);
        for batch in wire.chunks(BATCH) {
            let decoded = batch
                .iter()
                .map(|bytes| UnverifiedEvent::decode(bytes.clone()).expect("an event"));
            let checked = verify_events(decoded.collect(), &CHAIN, &committee);
            verified.extend(checked.into_iter().map(|event| event.expect("valid")));
        }
        let verifying = thread_cpu() - start;
        let config = Config {
            chain_id: CHAIN,
            committee,
            me: None,
            start: EpochStart::default(),
            parameters: Parameters::default(),
        };
        let mut replica = Replica::new(config, None, 0);
        let mut ordered = 0;
        let mut log = log;
        let start = thread_cpu();
        for event in verified {
            let from = Peer::Member(event.creator());
            let now_ms = event.timestamp_ms();
            let events = vec![event];
            replica.handle(now_ms, Input::Events { from, events });
            while let Some(output) = replica.poll_output() {
                match output {
                    Output::Persist(event) => {
                        if let Some(log) = &mut log {
                            log.extend_from_slice(event.bytes());
                        }
                    }
                    Output::Commit(commit) => {
                        ordered += commit.events.len();
                        let _ = std::hint::black_box(commit.transaction_count());
                    }
                    _ => {}
                }
            }
        }
        let inserting = thread_cpu() - start;
        // The last rounds have nobody to decide them.
        assert!(ordered + 4 * members >= events, "events are missing");
        (verifying, inserting)
    }
}

pub(super) fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    let figure = |name: String, value: f64, unit| Figure::plain("cpu", name, value, unit);
    let mut each_us = Vec::new();
    for (members, rounds) in SIZES {
        if !choice.has(&format!("n={members} an event")) {
            continue;
        }
        let rounds = if choice.quick { rounds / 4 } else { rounds };
        let made = Rounds::make(members, rounds, &[]);
        let events = made.events() as f64;
        let (verifying, inserting) = made.take(None);
        let us = |time: Duration| time.as_secs_f64() * 1e6 / events;
        let total = us(verifying) + us(inserting);
        let name = |what: &str| format!("n={members} an event {what}");
        show(figure(name("decoded and verified"), us(verifying), "us"));
        show(figure(name("inserted and ordered"), us(inserting), "us"));
        let a_second = 1e6 / total / members as f64;
        let keeps_up = figure(
            name("in all: rounds that a replica keeps up with"),
            a_second,
            "/s",
        );
        show(if members == 200 {
            keeps_up.at_least(30.0)
        } else {
            keeps_up
        });
        each_us.push((members, total));
    }
    let of = |size| each_us.iter().find(|(members, _)| *members == size);
    if let (Some((_, small)), Some((_, large))) = (of(4), of(200)) {
        // An event of 200 has 50 times the parents of one of 4.
        let name = "n=200 an event in all, times that of n=4".to_string();
        show(figure(name, large / small, "times").at_most(50.0));
    }
    if choice.has(WHOLE) {
        show(figure(WHOLE.to_string(), whole_committee(choice.quick), "/s").at_least(1.0));
    }
}

const WHOLE: &str = "n=200 whole committee, simulated: rounds";

/// Rounds for every second of one core: 200 replicas with their disks, the network between them and the checkers.
fn whole_committee(quick: bool) -> f64 {
    let mut plan = Plan::calm(200);
    plan.latency = Latency::Uniform(100 * MS);
    plan.chaos_us = if quick { SECOND } else { 2 * SECOND };
    plan.load.every_us = 100 * MS;
    let start = thread_cpu();
    let report = run_plan(&plan, 1, false);
    assert!(report.is_good(), "{:?}", report.violations);
    report.events as f64 / 200.0 / (thread_cpu() - start).as_secs_f64()
}
