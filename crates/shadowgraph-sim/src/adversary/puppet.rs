//! A member's seat without its conscience: hears events, signs one a round as soon as a quorum allows, and lets the
//! behaviours change all of it. Keeps no more than a window of rounds.

use std::collections::BTreeMap;

use bytes::Bytes;
use shadowgraph::{
    ChainId, Committee, EventDraft, EventRef, MemberIndex, Message, Round, SigningKey,
    VerifiedEvent,
};

use super::{Adversary, Behaviour, Publication, Raw, View};
use crate::rng::SimRng;

/// Rounds that a puppet remembers.
const WINDOW: u64 = 60;
/// Twins of one member and round that a puppet remembers.
const TWINS: usize = 4;

/// The identity of a puppet.
pub struct Seat {
    /// Its index, also its node number.
    pub member: u16,
    /// Its real key.
    pub key: SigningKey,
    /// The network.
    pub chain_id: ChainId,
    /// The committee.
    pub committee: Committee,
    /// All nodes it can send to.
    pub nodes: usize,
}

impl Seat {
    /// All other nodes.
    pub fn others(&self) -> Vec<usize> {
        (0..self.nodes)
            .filter(|node| *node != usize::from(self.member))
            .collect()
    }
}

/// Events by round and creator.
#[derive(Default)]
pub struct Heard {
    rounds: BTreeMap<u64, BTreeMap<u16, Vec<VerifiedEvent>>>,
    own: BTreeMap<u64, Vec<EventRef>>,
}

impl Heard {
    fn add(&mut self, event: VerifiedEvent) {
        let newest = self.newest_round();
        let round = event.round().0;
        // Others' claims to far-off rounds must not make it deaf for the present.
        if newest.saturating_sub(round) > WINDOW || round.saturating_sub(newest) > WINDOW {
            return;
        }
        let twins = self
            .rounds
            .entry(event.round().0)
            .or_default()
            .entry(event.creator().0)
            .or_default();
        if twins.len() < TWINS && !twins.contains(&event) {
            twins.push(event);
        }
        while self.rounds.len() as u64 > WINDOW {
            self.rounds.pop_first();
        }
    }

    /// The highest round of which anything is known.
    pub fn newest_round(&self) -> u64 {
        self.rounds.keys().next_back().copied().unwrap_or(0)
    }

    /// Some event by `creator` in `round`.
    pub fn event(&self, round: u64, creator: u16) -> Option<&VerifiedEvent> {
        self.rounds.get(&round)?.get(&creator)?.first()
    }

    /// All events in the window, oldest round first.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedEvent> {
        self.rounds
            .values()
            .flat_map(|creators| creators.values().flatten())
    }

    /// An own event of this round.
    pub fn own(&self, round: u64) -> Option<&EventRef> {
        self.own.get(&round)?.first()
    }

    /// The highest round with a quorum, not counting `without`.
    fn quorum_round(&self, committee: &Committee, without: Option<u16>) -> u64 {
        let weight = |creators: &BTreeMap<u16, Vec<VerifiedEvent>>| -> u64 {
            let counted = creators.keys().filter(|creator| Some(**creator) != without);
            counted
                .map(|creator| committee.weight(MemberIndex(*creator)))
                .sum()
        };
        let full = self
            .rounds
            .iter()
            .rev()
            .find(|(_, creators)| weight(creators) >= committee.quorum_weight());
        full.map_or(0, |(round, _)| *round)
    }
}

/// How far ahead a false timestamp is still built upon, in ms.
const HONOURED_LIE_MS: u64 = 20_000;

/// A Byzantine member.
pub struct Puppet {
    seat: Seat,
    heard: Heard,
    /// Its own seat, if its events have to stand on a quorum of the others.
    without: Option<u16>,
    round: u64,
    timestamp_ms: u64,
    made: u64,
    adversaries: Vec<Box<dyn Adversary>>,
    rng: SimRng,
    /// Transactions that it made up; they count as submitted.
    pub transactions: Vec<Bytes>,
}

impl Puppet {
    /// A member with these behaviours, applied in order.
    pub fn new(seat: Seat, behaviours: &[Behaviour], rng: SimRng) -> Self {
        let adversaries = behaviours
            .iter()
            .map(|behaviour| behaviour.adversary())
            .collect();
        let heard = Heard::default();
        let apart = |behaviour: &Behaviour| matches!(behaviour, Behaviour::StaleOwnParent { .. });
        let without = behaviours.iter().any(apart).then_some(seat.member);
        Self {
            seat,
            heard,
            without,
            round: 0,
            timestamp_ms: 0,
            made: 0,
            adversaries,
            rng,
            transactions: Vec::new(),
        }
    }

    fn quorum_round(&self) -> u64 {
        self.heard.quorum_round(&self.seat.committee, self.without)
    }

    /// The round that it would sign for next.
    pub fn next_round(&self) -> u64 {
        self.quorum_round()
            .max(self.round.min(self.heard.newest_round()))
            + 1
    }

    /// Takes in a message, already decoded and verified as far as it goes.
    pub fn hear(&mut self, bytes: &Bytes, events: Vec<VerifiedEvent>) {
        for adversary in &mut self.adversaries {
            adversary.overhear(bytes, &events);
        }
        events.into_iter().for_each(|event| self.heard.add(event));
    }

    /// Signs for the next round if a quorum has reached the one before, as often as that is so. `leads` tells whether the
    /// member leads a round.
    pub fn advance(&mut self, now_ms: u64, leads: &dyn Fn(u64) -> bool) -> Vec<Raw> {
        let mut sent = Vec::new();
        loop {
            let round = self.quorum_round() + 1;
            if round <= self.round {
                return sent;
            }
            self.round = round;
            sent.extend(self.sign(round, now_ms, leads(round)));
        }
    }

    /// Lets the behaviours send what else they like.
    pub fn disturb(&mut self, now_ms: u64, leads: &dyn Fn(u64) -> bool) -> Vec<Raw> {
        let leads = leads(self.next_round());
        let view = View {
            seat: &self.seat,
            now_ms,
            heard: &self.heard,
            leads,
        };
        self.adversaries
            .iter_mut()
            .flat_map(|adversary| adversary.disturb(&view, &mut self.rng))
            .collect()
    }

    fn sign(&mut self, round: u64, now_ms: u64, leads: bool) -> Vec<Raw> {
        self.timestamp_ms = self.timestamp_ms.max(now_ms);
        let mut draft = self.honest_draft(round);
        let view = View {
            seat: &self.seat,
            now_ms,
            heard: &self.heard,
            leads,
        };
        for adversary in &mut self.adversaries {
            adversary.draft(&view, &mut draft, &mut self.rng);
        }
        let mut publications = vec![Publication {
            draft,
            to: self.seat.others(),
            delay_us: 0,
        }];
        for adversary in &mut self.adversaries {
            adversary.publish(&view, &mut publications, &mut self.rng);
        }
        let mut sent = Vec::new();
        for Publication {
            draft,
            to,
            delay_us,
        } in publications
        {
            self.transactions.extend(draft.transactions.iter().cloned());
            let event = draft.seal(&self.seat.key);
            // A claim to a future round is not something to build on.
            if draft.round.0 == round {
                self.heard
                    .own
                    .entry(round)
                    .or_default()
                    .push(*event.reference());
                self.timestamp_ms = self
                    .timestamp_ms
                    .max(draft.timestamp_ms.min(now_ms + HONOURED_LIE_MS));
            }
            let bytes = Message::Events(vec![event.bytes().clone()]).encode();
            sent.extend(to.into_iter().map(|to| Raw {
                to,
                bytes: bytes.clone(),
                delay_us,
            }));
            if let Some(verified) =
                verify_own(event, &self.seat).filter(|event| event.round().0 == round)
            {
                self.heard.add(verified);
            }
        }
        while self.heard.own.len() as u64 > WINDOW {
            self.heard.own.pop_first();
        }
        sent
    }

    /// What an honest member with this knowledge might sign, with one made-up transaction now and then.
    fn honest_draft(&mut self, round: u64) -> EventDraft {
        let me = self.seat.member;
        let genesis = EventRef::genesis(
            &self.seat.chain_id,
            self.seat.committee.epoch(),
            MemberIndex(me),
        );
        let own = self.heard.own.range(..round).next_back();
        let own = own.map_or(genesis, |(_, twins)| *self.rng.choose(twins));
        let below = self.heard.rounds.get(&(round - 1)).into_iter().flatten();
        let mut parents: Vec<EventRef> = below
            .filter(|(creator, _)| **creator != me)
            .map(|(_, twins)| *self.rng.choose(twins).reference())
            .chain([own])
            .collect();
        parents.sort_by_key(|parent| parent.creator);
        let mut transactions = Vec::new();
        if self.rng.chance(300) {
            self.made += 1;
            transactions.push(Bytes::from(format!("byzantine {me} {}", self.made)));
        }
        EventDraft {
            chain_id: self.seat.chain_id,
            epoch: self.seat.committee.epoch(),
            round: Round(round),
            creator: MemberIndex(me),
            timestamp_ms: self.timestamp_ms,
            parents,
            checkpoint_votes: Vec::new(),
            transactions,
        }
    }
}

fn verify_own(event: shadowgraph::UnverifiedEvent, seat: &Seat) -> Option<VerifiedEvent> {
    shadowgraph::verify_events(vec![event], &seat.chain_id, &seat.committee)
        .pop()?
        .ok()
}
