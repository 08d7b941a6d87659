//! The leader schedule of docs/protocol.md 4, worked out a second time from the commits: the members whose events most others
//! cite at once lead the rounds above a commit.

use std::collections::{BTreeMap, BTreeSet};

use super::naive::{NaiveCommit, NaiveGraph, Schedule};

/// The share of the output events, in percent, that must cite a member's events for it to lead.
const SHARE_PERCENT: u64 = 50;
/// The share of the score of the last of the best that a leader needs, in percent.
const NEAR_PERCENT: u64 = 90;

/// What a citation count needs to know of an event.
pub struct Cited {
    /// Its creator.
    pub creator: u16,
    /// Its round.
    pub round: u64,
    /// Creators of its parents of the round before.
    pub parents: Vec<u16>,
}

/// Reputation as it follows from the commits so far.
#[derive(Clone, Debug)]
pub struct Reputation {
    weights: Vec<u64>,
    slots: usize,
    interval_rounds: u64,
    /// The schedules by the round from which they hold.
    history: BTreeMap<u64, Vec<u16>>,
    support: Vec<u64>,
    total: u64,
}

impl Reputation {
    /// Everybody leads at first.
    pub fn new(weights: Vec<u64>, slots: u16, interval_rounds: u64) -> Self {
        let everybody = (0..weights.len() as u16).collect();
        Self {
            slots: usize::from(slots.max(1)),
            interval_rounds,
            history: BTreeMap::from([(1, everybody)]),
            support: vec![0; weights.len()],
            total: 0,
            weights,
        }
    }

    /// The leaders of a round by rank.
    pub fn of_round(&self, round: u64) -> Vec<u16> {
        let (_, leaders) = self
            .history
            .range(..=round.max(1))
            .next_back()
            .expect("there is a first schedule");
        let slots = self.slots.min(leaders.len());
        let stride = if slots == leaders.len() { 1 } else { slots };
        let start = (round as u128 * stride as u128 % leaders.len() as u128) as usize
            + turns(round, stride, leaders.len());
        (0..slots)
            .map(|rank| leaders[(start + rank) % leaders.len()])
            .collect()
    }

    /// A commit with this leader round output these events.
    pub fn commit(&mut self, leader_round: u64, events: impl Iterator<Item = Cited>) {
        if self.interval_rounds == 0 {
            return;
        }
        for event in events.filter(|event| event.round > 1) {
            let weight = self.weights[usize::from(event.creator)];
            self.total += weight;
            event
                .parents
                .iter()
                .for_each(|parent| self.support[usize::from(*parent)] += weight);
        }
        let since = *self
            .history
            .keys()
            .next_back()
            .expect("there is a first schedule");
        if leader_round >= since + self.interval_rounds {
            let leaders = self.elect();
            self.history.insert(leader_round + 1, leaders);
            self.support.iter_mut().for_each(|support| *support /= 2);
            self.total /= 2;
        }
    }

    /// The best cited members: f + 1 by weight, and all who come near the last of those and above the share.
    fn elect(&self) -> Vec<u16> {
        let mut members: Vec<u16> = (0..self.weights.len() as u16).collect();
        members.sort_by(|a, b| {
            self.support[usize::from(*b)]
                .cmp(&self.support[usize::from(*a)])
                .then(a.cmp(b))
        });
        let faulty = (self.weights.iter().sum::<u64>() - 1) / 3;
        let mut reached = 0;
        let last_of_best = members.iter().find(|member| {
            reached += self.weights[usize::from(**member)];
            reached > faulty
        });
        let bar = last_of_best.map_or(0, |member| self.support[usize::from(*member)]);
        let mut chosen = BTreeSet::new();
        let mut weight = 0;
        for member in members {
            let percent = self.support[usize::from(member)] * 100;
            let cited = percent >= bar * NEAR_PERCENT && percent >= self.total * SHARE_PERCENT;
            if cited || weight <= faulty {
                chosen.insert(member);
                weight += self.weights[usize::from(member)];
            }
        }
        chosen.into_iter().collect()
    }
}

/// How often the order has turned besides: once whenever the first leaders of every third round have all been met, unless that
/// is everybody.
fn turns(round: u64, stride: usize, leaders: usize) -> usize {
    let first_met = (1..=leaders).find(|step| (step * 3 * stride).is_multiple_of(leaders));
    let met = first_met.expect("after as many steps as leaders it begins again");
    if met == leaders {
        return 0;
    }
    (round / (3 * met as u64) % leaders as u64) as usize
}

impl Schedule for Reputation {
    fn leaders(&self, round: u64) -> Vec<u16> {
        self.of_round(round)
    }

    fn on_commit(&mut self, graph: &NaiveGraph, commit: &NaiveCommit) {
        let cited = commit
            .events
            .iter()
            .filter_map(|id| graph.get(id))
            .map(|vertex| Cited {
                creator: vertex.creator,
                round: vertex.round,
                parents: vertex
                    .parents
                    .iter()
                    .filter(|(round, _, _)| round + 1 == vertex.round)
                    .map(|p| p.1)
                    .collect(),
            });
        let cited: Vec<Cited> = cited.collect();
        self.commit(commit.round, cited.into_iter());
    }
}
