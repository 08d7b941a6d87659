//! The commit rule, recomputed the naive way from the events themselves: sets and walks, no tallies, no caches that outlive a
//! decision, no code shared with the library. Slow and plain on purpose.
//! Knows the rules of docs/protocol.md; must not know how the library keeps its graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::by_digest::DigestMap;

/// Digest of an event.
pub type Id = [u8; 32];

/// An event as the rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Digest.
    pub id: Id,
    /// Round.
    pub round: u64,
    /// Creator's index in the committee.
    pub creator: u16,
    /// Timestamp that the creator wrote, Unix ms.
    pub timestamp_ms: u64,
    /// Round, creator and digest of each parent as the event states them.
    pub parents: Vec<(u64, u16, Id)>,
}

/// What becomes of a leader slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The graph does not tell yet.
    Undecided,
    /// No event of the slot is ever committed.
    Skip,
    /// This event is committed; directly, by a quorum of certificates, or through a later anchor.
    Commit {
        /// The committed event.
        leader: Id,
        /// Whether a quorum of certificates decided it.
        direct: bool,
    },
}

/// Who leads which slots. Implementations may change with each commit.
pub trait Schedule {
    /// The leaders of `round`, by rank. Empty where the round has no slot.
    fn leaders(&self, round: u64) -> Vec<u16>;
    /// A commit happened.
    fn on_commit(&mut self, graph: &NaiveGraph, commit: &NaiveCommit);
}

/// A commit as recomputed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiveCommit {
    /// Count from the start of the epoch.
    pub index: u64,
    /// The leader's digest.
    pub leader: Id,
    /// The leader's round.
    pub round: u64,
    /// The leader's rank among the slots of its round.
    pub rank: u16,
    /// Digests of the events it outputs, in order.
    pub events: Vec<Id>,
    /// Commit time, Unix ms.
    pub time_ms: u64,
}

/// A set of events with the weights of their creators.
#[derive(Clone, Debug, Default)]
pub struct NaiveGraph {
    vertices: DigestMap<Id, Vertex>,
    rounds: BTreeMap<u64, BTreeSet<Id>>,
    weights: Vec<u64>,
}

impl NaiveGraph {
    /// An empty graph over a committee with these weights.
    pub fn new(weights: Vec<u64>) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    /// Adds an event. Adding it twice changes nothing.
    pub fn insert(&mut self, vertex: Vertex) {
        self.rounds
            .entry(vertex.round)
            .or_default()
            .insert(vertex.id);
        self.vertices.insert(vertex.id, vertex);
    }

    /// The event with this digest.
    pub fn get(&self, id: &Id) -> Option<&Vertex> {
        self.vertices.get(id)
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// The highest round with an event.
    pub fn highest_round(&self) -> u64 {
        self.rounds.keys().next_back().copied().unwrap_or(0)
    }

    /// All events of `round`, in order of their digests.
    pub fn round(&self, round: u64) -> impl Iterator<Item = &Vertex> {
        self.rounds
            .get(&round)
            .into_iter()
            .flatten()
            .map(|id| &self.vertices[id])
    }

    /// Members.
    pub fn members(&self) -> u16 {
        self.weights.len() as u16
    }

    /// Total weight less what may be faulty: W - floor((W - 1) / 3).
    pub fn quorum(&self) -> u64 {
        let total: u64 = self.weights.iter().sum();
        total - (total - 1) / 3
    }

    /// The weight of a set of distinct members.
    pub fn weight(&self, members: &BTreeSet<u16>) -> u64 {
        members
            .iter()
            .map(|member| self.weights[usize::from(*member)])
            .sum()
    }

    /// Whether members, some perhaps named more than once, have quorum weight.
    fn is_quorum(&self, members: impl Iterator<Item = u16>) -> bool {
        let mut counted = vec![false; self.weights.len()];
        members.for_each(|member| counted[usize::from(member)] = true);
        let counted = self.weights.iter().zip(counted);
        let weight: u64 = counted
            .filter(|(_, is)| *is)
            .map(|(weight, _)| weight)
            .sum();
        weight >= self.quorum()
    }

    /// Whether `voter` (an event of the round after) has `leader` as a direct parent.
    fn supports(&self, voter: &Vertex, leader: &Vertex) -> bool {
        let of_leader = |creator: &u16| *creator == leader.creator;
        let mut parents = voter.parents.iter();
        parents.any(|(_, creator, id)| of_leader(creator) && *id == leader.id)
    }

    /// The events of the round after that support `leader`, with their creators.
    pub fn supporters(&self, leader: &Vertex) -> DigestMap<Id, u16> {
        let voters = self.round(leader.round + 1);
        voters
            .filter(|voter| self.supports(voter, leader))
            .map(|voter| (voter.id, voter.creator))
            .collect()
    }

    /// Whether `event`, two rounds above `leader`, is a certificate for it: among its parents of the round between, distinct
    /// creators of quorum weight support the leader. `supporters` are all that do.
    pub fn is_certificate(
        &self,
        event: &Vertex,
        leader: &Vertex,
        supporters: &DigestMap<Id, u16>,
    ) -> bool {
        let between = event.parents.iter();
        let between = between.filter(|(round, _, _)| *round == leader.round + 1);
        let creators = between.filter_map(|(_, _, id)| supporters.get(id).copied());
        event.round == leader.round + 2 && self.is_quorum(creators)
    }

    /// All events from which `from` descends, itself included, down to `floor` (a round, included).
    pub fn history(&self, from: &Id, floor: u64) -> BTreeSet<Id> {
        self.history_beyond(from, floor, &BTreeSet::new())
    }

    /// The same without what lies in `known` and below it: a set that holds the history, down to `floor`, of all it holds.
    pub fn history_beyond(&self, from: &Id, floor: u64, known: &BTreeSet<Id>) -> BTreeSet<Id> {
        let mut seen = BTreeSet::new();
        let mut open = vec![*from];
        while let Some(id) = open.pop() {
            let Some(vertex) = self.vertices.get(&id) else {
                continue;
            };
            if vertex.round >= floor && !known.contains(&id) && seen.insert(id) {
                open.extend(vertex.parents.iter().map(|(_, _, parent)| *parent));
            }
        }
        seen
    }

    /// What direct evidence says of the slot of `leader` in `round`.
    ///
    /// # Panics
    /// When two events of the slot are both certified by a quorum: more than f members are faulty, or the graph holds
    /// events that no honest rule admits.
    pub fn direct_verdict(&self, round: u64, leader: u16) -> Verdict {
        let candidates: Vec<&Vertex> = self
            .round(round)
            .filter(|event| event.creator == leader)
            .collect();
        let against = self
            .round(round + 1)
            .filter(|voter| {
                !candidates
                    .iter()
                    .any(|candidate| self.supports(voter, candidate))
            })
            .map(|voter| voter.creator);
        let certified: Vec<&&Vertex> = candidates
            .iter()
            .filter(|candidate| {
                let supporters = self.supporters(candidate);
                let certificates = self
                    .round(round + 2)
                    .filter(|event| self.is_certificate(event, candidate, &supporters));
                self.is_quorum(certificates.map(|event| event.creator))
            })
            .collect();
        assert!(
            certified.len() <= 1,
            "two twins of member {leader} in round {round} are both certified"
        );
        match (certified.first(), self.is_quorum(against)) {
            (Some(_), true) => {
                panic!("slot of member {leader} in round {round} is both certified and skipped")
            }
            (Some(event), false) => Verdict::Commit {
                leader: event.id,
                direct: true,
            },
            (None, true) => Verdict::Skip,
            (None, false) => Verdict::Undecided,
        }
    }

    /// What becomes of slot (`round`, `rank`) under `schedule`, by direct evidence or through the anchor.
    pub fn verdict(&self, round: u64, rank: usize, schedule: &dyn Schedule) -> Verdict {
        self.verdict_memo(round, rank, schedule, &mut HashMap::new())
    }

    fn verdict_memo(
        &self,
        round: u64,
        rank: usize,
        schedule: &dyn Schedule,
        memo: &mut HashMap<(u64, usize), Verdict>,
    ) -> Verdict {
        if let Some(known) = memo.get(&(round, rank)) {
            return *known;
        }
        let leader = schedule.leaders(round)[rank];
        let mut verdict = self.direct_verdict(round, leader);
        if verdict == Verdict::Undecided {
            verdict = self.indirect_verdict(round, leader, schedule, memo);
        }
        memo.insert((round, rank), verdict);
        verdict
    }

    fn indirect_verdict(
        &self,
        round: u64,
        leader: u16,
        schedule: &dyn Schedule,
        memo: &mut HashMap<(u64, usize), Verdict>,
    ) -> Verdict {
        for later in round + 3..=self.highest_round() {
            for rank in 0..schedule.leaders(later).len() {
                match self.verdict_memo(later, rank, schedule, memo) {
                    Verdict::Skip => {}
                    Verdict::Undecided => return Verdict::Undecided,
                    Verdict::Commit { leader: anchor, .. } => {
                        return self.verdict_by_anchor(round, leader, &anchor);
                    }
                }
            }
        }
        Verdict::Undecided
    }

    /// What a committed anchor says of an earlier slot: committed if its history holds a certificate for it.
    pub fn verdict_by_anchor(&self, round: u64, leader: u16, anchor: &Id) -> Verdict {
        let history = self.history(anchor, round + 2);
        let certified: Vec<Id> = self
            .round(round)
            .filter(|event| event.creator == leader)
            .filter(|candidate| {
                let supporters = self.supporters(candidate);
                history.iter().any(|id| {
                    self.vertices[id].round == round + 2
                        && self.is_certificate(&self.vertices[id], candidate, &supporters)
                })
            })
            .map(|event| event.id)
            .collect();
        assert!(
            certified.len() <= 1,
            "two twins of member {leader} in round {round} have certificates"
        );
        certified
            .first()
            .map_or(Verdict::Skip, |leader| Verdict::Commit {
                leader: *leader,
                direct: false,
            })
    }
}
