//! Which members lead which rounds, by reputation that follows from the commits alone. docs/protocol.md 4.

use crate::committee::{Committee, MemberSet};
use crate::committer::ANCHOR_ROUNDS;
use crate::event::VerifiedEvent;
use crate::ids::{MemberIndex, Round};

/// A member leads if its score is this share of that of the best members of validity weight. docs/protocol.md 4.3
const RELATIVE_PERCENT_MIN: u64 = 90;
/// And if its events were cited at once by this share of the events output. docs/protocol.md 4.3
const SUPPORT_PERCENT_MIN: u64 = 50;

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A list of leaders, and what follows from its length.
#[derive(Clone, Debug)]
struct Leaders {
    seats: Vec<MemberIndex>,
    /// Slots a round, and by how many seats the next round's begin further on.
    slots: u16,
    stride: u64,
    /// How many leaders the anchors of a slot meet in steps of three rounds, at rank 0.
    met: u64,
}

impl Leaders {
    fn new(seats: Vec<MemberIndex>, slots_max: u16) -> Self {
        let count = u16::try_from(seats.len()).expect("at most 200");
        let slots = slots_max.min(count);
        // With fewer slots than leaders the slots walk on through all; with all, the order turns by one.
        let stride = u64::from(if slots < count { slots } else { 1 });
        let met = u64::from(count) / gcd(ANCHOR_ROUNDS * stride, u64::from(count));
        Self {
            seats,
            slots,
            stride,
            met,
        }
    }

    /// docs/protocol.md 4.2
    fn leader(&self, round: Round, rank: u16) -> MemberIndex {
        let count = self.seats.len() as u64;
        // A slot that is left open waits for the first one three rounds above it. If those met the same few leaders again and
        // again, these few could keep one another's slots open for ever: where they would, the order turns once more.
        let turns = if self.met < count {
            round.0 / (ANCHOR_ROUNDS * self.met)
        } else {
            0
        };
        let start = (round.0 % count) * self.stride + turns % count;
        self.seats[((start + u64::from(rank)) % count) as usize]
    }
}

/// The leaders of all rounds, as far as the commits so far tell.
#[derive(Debug)]
pub(crate) struct Schedule {
    committee: Committee,
    slots_max: u16,
    interval_rounds: u64,
    /// Holds from this round on.
    from: Round,
    current: Leaders,
    /// Holds below `from`.
    previous: Leaders,
    /// Per seat, the weight of the events of the window that cite its event of the round before.
    support: Vec<u64>,
    /// The weight of all events of the window.
    total: u64,
}

impl Schedule {
    pub(crate) fn new(committee: Committee, leaders_per_round: u16, interval_rounds: u64) -> Self {
        let slots_max = leaders_per_round.max(1);
        let everyone = committee.members().map(|(seat, _)| seat).collect();
        let everyone = Leaders::new(everyone, slots_max);
        Self {
            slots_max,
            interval_rounds,
            from: Round(1),
            previous: everyone.clone(),
            current: everyone,
            support: vec![0; committee.len()],
            total: 0,
            committee,
        }
    }

    fn leaders(&self, round: Round) -> &Leaders {
        if round >= self.from {
            &self.current
        } else {
            &self.previous
        }
    }

    /// How many seats may lead now.
    pub(crate) fn leader_count(&self) -> usize {
        self.current.seats.len()
    }

    /// How many slots a round has.
    pub(crate) fn slots(&self, round: Round) -> u16 {
        self.leaders(round).slots
    }

    /// Who leads a slot. docs/protocol.md 4.2
    pub(crate) fn leader(&self, round: Round, rank: u16) -> MemberIndex {
        self.leaders(round).leader(round, rank)
    }

    /// The leaders of a round in order of rank.
    pub(crate) fn round(&self, round: Round) -> impl Iterator<Item = MemberIndex> + '_ {
        let leaders = self.leaders(round);
        (0..leaders.slots).map(move |rank| leaders.leader(round, rank))
    }

    /// Takes a commit's events into account, and changes the leaders of the rounds above `leader_round` if it is time.
    pub(crate) fn commit(&mut self, leader_round: Round, events: &[VerifiedEvent]) {
        if self.interval_rounds == 0 {
            return;
        }
        for event in events.iter().filter(|event| event.round() > Round(1)) {
            let weight = self.committee.weight(event.creator());
            self.total += weight;
            let voted = event.round().back(1);
            for parent in event
                .parents()
                .iter()
                .filter(|parent| parent.round == voted)
            {
                self.support[parent.creator.index()] += weight;
            }
        }
        if leader_round.0 >= self.from.0 + self.interval_rounds {
            self.change(leader_round.next());
        }
    }

    fn change(&mut self, from: Round) {
        let best_first = {
            let mut seats: Vec<_> = self.committee.members().map(|(seat, _)| seat).collect();
            seats.sort_by_key(|seat| (std::cmp::Reverse(self.support[seat.index()]), *seat));
            seats
        };
        // docs/protocol.md 4.3
        // Measured against the best f + 1: members who cite nobody lower everybody's score alike.
        let validity = self.committee.validity_weight();
        let mut best = MemberSet::default();
        let mut bar = 0;
        for seat in &best_first {
            if best.weight() < validity {
                best.insert(&self.committee, *seat);
                bar = self.support[seat.index()];
            }
        }
        let mut chosen = best;
        for seat in best_first {
            let support = self.support[seat.index()] * 100;
            let prompt = support >= bar * RELATIVE_PERCENT_MIN;
            if prompt && support >= self.total * SUPPORT_PERCENT_MIN {
                chosen.insert(&self.committee, seat);
            }
        }
        let chosen = Leaders::new(chosen.iter().collect(), self.slots_max);
        self.previous = std::mem::replace(&mut self.current, chosen);
        self.from = from;
        // Older commits count for half of the newer ones, and again.
        self.support.iter_mut().for_each(|support| *support /= 2);
        self.total /= 2;
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
