//! Votes read off the graph: who supports an event, who certifies it, who supports nothing of a slot.
//! Kept up to date event by event, for every event of a round whoever leads it, so that a change of the
//! schedule needs no recount. What follows from the counts is for the committer.

use std::collections::VecDeque;

use crate::committee::{Committee, MemberSet};
use crate::graph::{Graph, Handle};
use crate::ids::{MemberIndex, Round};
use crate::index_set::IndexSet;

/// The certificates of one event.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// Positions in round r + 2 of its certificates. docs/protocol.md 3.3
    pub(crate) certificates: IndexSet,
    /// The creators of those certificates, each once.
    pub(crate) certifiers: MemberSet,
}

#[derive(Debug, Default)]
struct RoundVotes {
    /// Per event, the positions in round r + 1 of the events that cite it. docs/protocol.md 3.2. Apart from the certificates: every
    /// event of round r + 2 is held against all of these.
    supporters: Vec<IndexSet>,
    events: Vec<Votes>,
    /// Per slot, the creators with an event of round r + 1 that cites no event of the slot. docs/protocol.md 3.5
    blame: Vec<MemberSet>,
}

/// The votes about all events above the floor.
#[derive(Debug)]
pub(crate) struct Tally {
    committee: Committee,
    floor: Round,
    rounds: VecDeque<RoundVotes>,
    /// The highest round in which a slot came to be decided directly.
    decided_top: Round,
    /// How many times a slot came to be decided directly.
    decisions: u64,
}

impl Tally {
    pub(crate) fn new(committee: Committee) -> Self {
        Self {
            committee,
            floor: Round(0),
            rounds: VecDeque::new(),
            decided_top: Round(0),
            decisions: 0,
        }
    }

    fn position(&self, round: Round) -> Option<usize> {
        usize::try_from(round.0.checked_sub(self.floor.0 + 1)?).ok()
    }

    fn round_mut(&mut self, round: Round) -> Option<&mut RoundVotes> {
        let position = self.position(round)?;
        if self.rounds.len() <= position {
            let members = self.committee.len();
            let empty = || RoundVotes {
                supporters: Vec::new(),
                events: Vec::new(),
                blame: vec![MemberSet::default(); members],
            };
            self.rounds.resize_with(position + 1, empty);
        }
        self.rounds.get_mut(position)
    }

    /// The votes about an event above the floor.
    pub(crate) fn votes(&self, handle: Handle) -> Option<&Votes> {
        self.rounds
            .get(self.position(handle.round)?)?
            .events
            .get(usize::from(handle.position))
    }

    /// The weight of the creators of round r + 1 that cite no event of the slot.
    pub(crate) fn blame(&self, round: Round, seat: MemberIndex) -> u64 {
        let votes = self
            .position(round)
            .and_then(|position| self.rounds.get(position));
        votes.map_or(0, |votes| votes.blame[seat.index()].weight())
    }

    /// The highest round in which a slot has ever come to be decided directly.
    pub(crate) fn decided_top(&self) -> Round {
        self.decided_top
    }

    /// Grows with every direct decision: while it stands still, no slot's status changes.
    pub(crate) fn decisions(&self) -> u64 {
        self.decisions
    }

    fn decided_directly(&mut self, round: Round) {
        self.decisions += 1;
        self.decided_top = self.decided_top.max(round);
    }

    /// Counts the votes of an event that was just inserted.
    pub(crate) fn observe(&mut self, graph: &Graph, handle: Handle) {
        let node = graph.node(handle).expect("just inserted");
        let votes = self.round_mut(handle.round).expect("above the floor");
        votes.supporters.push(IndexSet::default());
        votes.events.push(Votes::default());
        debug_assert_eq!(votes.events.len(), usize::from(handle.position) + 1);
        if handle.round.0 > self.floor.0 + 1 {
            self.count_support(graph, handle, &node.previous, node.creator);
        }
        if handle.round.0 > self.floor.0 + 2 {
            self.count_certificates(graph, handle, &node.previous, node.creator);
        }
    }

    fn count_support(
        &mut self,
        graph: &Graph,
        voter: Handle,
        cited: &IndexSet,
        creator: MemberIndex,
    ) {
        let (committee, quorum) = (self.committee.clone(), self.committee.quorum_weight());
        let round = voter.round.back(1);
        let votes = self.round_mut(round).expect("above the floor");
        let (mut supported, mut decided) = (IndexSet::default(), false);
        if let Some(layer) = graph.layer(round) {
            for position in cited.iter() {
                votes.supporters[usize::from(position)].insert(voter.position);
                supported.insert(layer.creator_at[usize::from(position)].0);
            }
        }
        for (blame, seat) in votes.blame.iter_mut().zip(0..) {
            if !supported.contains(seat) {
                let before = blame.weight();
                blame.insert(&committee, creator);
                decided |= before < quorum && blame.weight() >= quorum;
            }
        }
        if decided {
            self.decided_directly(round);
        }
    }

    fn count_certificates(
        &mut self,
        graph: &Graph,
        voter: Handle,
        cited: &IndexSet,
        creator: MemberIndex,
    ) {
        let (committee, quorum) = (self.committee.clone(), self.committee.quorum_weight());
        let round = voter.round.back(2);
        let voters = graph.layer(voter.round.back(1));
        let weigh = Weigher::new(&committee, cited, |position| {
            voters.map_or(MemberIndex(0), |layer| {
                layer.creator_at[usize::from(position)]
            })
        });
        let votes = self.round_mut(round).expect("above the floor");
        let mut decided = false;
        for (votes, supporters) in votes.events.iter_mut().zip(&votes.supporters) {
            if weigh.common(supporters) < quorum {
                continue;
            }
            votes.certificates.insert(voter.position);
            let before = votes.certifiers.weight();
            votes.certifiers.insert(&committee, creator);
            decided |= before < quorum && votes.certifiers.weight() >= quorum;
        }
        if decided {
            self.decided_directly(round);
        }
    }

    /// Forgets the votes about events at the new floor and below.
    pub(crate) fn raise_floor(&mut self, floor: Round) {
        while self.floor < floor {
            self.floor = self.floor.next();
            self.rounds.pop_front();
        }
    }
}

/// Weighs what a set of distinct creators' events has in common with other sets.
struct Weigher<'a, F> {
    committee: &'a Committee,
    cited: &'a IndexSet,
    creator: F,
    whole: u64,
}

impl<'a, F: Fn(u16) -> MemberIndex> Weigher<'a, F> {
    fn new(committee: &'a Committee, cited: &'a IndexSet, creator: F) -> Self {
        let whole = match committee.uniform_weight() {
            Some(weight) => u64::from(cited.len()) * weight,
            None => cited
                .iter()
                .map(|position| committee.weight(creator(position)))
                .sum(),
        };
        Self {
            committee,
            cited,
            creator,
            whole,
        }
    }

    /// The whole less what is lacking, which is rarely much; with equal weights a count of bits.
    fn common(&self, other: &IndexSet) -> u64 {
        if self.cited.is_within(other) {
            return self.whole;
        }
        if let Some(weight) = self.committee.uniform_weight() {
            return u64::from(self.cited.overlap(other)) * weight;
        }
        let lacking = self
            .cited
            .minus(other)
            .map(|position| self.committee.weight((self.creator)(position)));
        self.whole - lacking.sum::<u64>()
    }
}
