//! The commit rule: decides leader slots in their order, directly or by an anchor. docs/protocol.md 3.
//! It reads the graph and the tallies; what a commit contains is for the linearizer.

use crate::commit::Decision;
use crate::committee::Committee;
use crate::event::VerifiedEvent;
use crate::graph::{Graph, Handle};
use crate::ids::Round;
use crate::index_set::IndexSet;
use crate::schedule::Schedule;
use crate::tally::Tally;

/// Rounds from a slot to its certificates.
const CERTIFY_ROUNDS: u64 = 2;
/// Rounds from a slot to the first that may hold its anchor.
pub(crate) const ANCHOR_ROUNDS: u64 = 3;

/// A leader slot; the order of slots is the order of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) round: Round,
    pub(crate) rank: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Undecided,
    Skipped,
    /// The event, and its anchor where one was needed.
    Committed(Handle, Option<Handle>),
}

/// A slot that is decided for an event, next in order.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) slot: Slot,
    pub(crate) leader: Handle,
    pub(crate) decision: Decision,
}

/// Decides slot after slot.
#[derive(Debug)]
pub(crate) struct Committer {
    committee: Committee,
    pub(crate) tally: Tally,
    pub(crate) schedule: Schedule,
    /// The first slot that is not decided.
    head: Slot,
    /// The head and the number of direct decisions when anchors were last looked for in vain.
    searched: Option<(Slot, u64)>,
}

impl Committer {
    pub(crate) fn new(committee: Committee, schedule: Schedule) -> Self {
        Self {
            tally: Tally::new(committee.clone()),
            committee,
            schedule,
            head: Slot {
                round: Round(1),
                rank: 0,
            },
            searched: None,
        }
    }

    /// Counts the votes of an event that was just inserted.
    pub(crate) fn observe(&mut self, graph: &Graph, handle: Handle) {
        self.tally.observe(graph, handle);
    }

    /// Decides slots in order until one is decided for an event; skips those decided against. docs/protocol.md 3.8
    pub(crate) fn next(&mut self, graph: &Graph) -> Option<Decided> {
        while self.head.round <= graph.top() {
            let slot = self.head;
            let status = match self.direct(graph, slot) {
                Status::Undecided => self.by_anchor(graph, slot),
                decided => decided,
            };
            match status {
                Status::Undecided => return None,
                Status::Skipped => self.advance(),
                Status::Committed(leader, anchor) => {
                    self.advance();
                    let decision = self.explain(graph, leader, anchor);
                    return Some(Decided {
                        slot,
                        leader,
                        decision,
                    });
                }
            }
        }
        None
    }

    /// Takes a commit into account for the schedule. Decisions above its leader that an older schedule made are
    /// not kept anywhere, so there is nothing to discard: the tallies belong to events, not to slots.
    pub(crate) fn committed(&mut self, leader_round: Round, events: &[VerifiedEvent]) {
        self.schedule.commit(leader_round, events);
        self.searched = None;
    }

    pub(crate) fn raise_floor(&mut self, floor: Round) {
        self.tally.raise_floor(floor);
    }

    fn advance(&mut self) {
        self.head.rank += 1;
        if self.head.rank >= self.schedule.slots(self.head.round) {
            self.head = Slot {
                round: self.head.round.next(),
                rank: 0,
            };
        }
    }

    fn explain(&self, graph: &Graph, leader: Handle, anchor: Option<Handle>) -> Decision {
        if let Some(anchor) = anchor {
            let anchor = graph.node(anchor).expect("anchors are above the floor");
            return Decision::Indirect {
                anchor: *anchor.event.reference(),
            };
        }
        let certifiers = self
            .tally
            .votes(leader)
            .expect("leaders are above the floor")
            .certifiers;
        Decision::Direct {
            certifiers: certifiers.iter().collect(),
            weight: certifiers.weight(),
        }
    }

    /// docs/protocol.md 3.4 and 3.5
    fn direct(&self, graph: &Graph, slot: Slot) -> Status {
        let (seat, quorum) = (
            self.schedule.leader(slot.round, slot.rank),
            self.committee.quorum_weight(),
        );
        let certified = |handle: &Handle| {
            self.tally
                .votes(*handle)
                .is_some_and(|votes| votes.certifiers.weight() >= quorum)
        };
        if let Some(leader) = graph.slot(slot.round, seat).find(certified) {
            return Status::Committed(leader, None);
        }
        if self.tally.blame(slot.round, seat) >= quorum {
            Status::Skipped
        } else {
            Status::Undecided
        }
    }

    /// docs/protocol.md 3.6: decides from the newest slot down, so that each finds its anchor decided or not.
    fn by_anchor(&mut self, graph: &Graph, head: Slot) -> Status {
        // What anchors say changes only with a direct decision: nothing new, no new search.
        let knowledge = (head, self.tally.decisions());
        let possible = self.tally.decided_top() >= head.round.ahead(ANCHOR_ROUNDS);
        if !possible || self.searched == Some(knowledge) {
            return Status::Undecided;
        }
        let mut search = Search {
            committer: self,
            graph,
            base: head.round,
            statuses: Vec::new(),
            reached: None,
        };
        let status = search.run(head);
        self.searched = (status == Status::Undecided).then_some(knowledge);
        status
    }
}

/// One pass over the undecided slots, newest first.
struct Search<'a> {
    committer: &'a Committer,
    graph: &'a Graph,
    base: Round,
    /// Per round from `base` on, per rank.
    statuses: Vec<Vec<Status>>,
    /// The history of the anchor looked at last.
    reached: Option<(Handle, Vec<IndexSet>)>,
}

impl Search<'_> {
    fn run(&mut self, head: Slot) -> Status {
        let top = self.graph.top();
        self.statuses = vec![Vec::new(); (top.0 - self.base.0 + 1) as usize];
        for round in (self.base.0..=top.0).rev().map(Round) {
            for rank in 0..self.committer.schedule.slots(round) {
                let slot = Slot { round, rank };
                let status = match self.committer.direct(self.graph, slot) {
                    Status::Undecided => self.indirect(slot),
                    decided => decided,
                };
                self.statuses[(round.0 - self.base.0) as usize].push(status);
            }
        }
        self.statuses[0][usize::from(head.rank)]
    }

    fn indirect(&mut self, slot: Slot) -> Status {
        let first = (slot.round.0 - self.base.0 + ANCHOR_ROUNDS) as usize;
        let later = self.statuses.iter().skip(first).flatten();
        let anchor = match later.copied().find(|status| *status != Status::Skipped) {
            Some(Status::Committed(anchor, _)) => anchor,
            _ => return Status::Undecided,
        };
        let seat = self.committer.schedule.leader(slot.round, slot.rank);
        let (graph, committer) = (self.graph, self.committer);
        let reached = self.reach(anchor, slot.round.ahead(CERTIFY_ROUNDS));
        let certified = |handle: &Handle| {
            let votes = committer.tally.votes(*handle).expect("above the floor");
            votes
                .certificates
                .iter()
                .any(|position| reached.contains(position))
        };
        match graph.slot(slot.round, seat).find(certified) {
            Some(leader) => Status::Committed(leader, Some(anchor)),
            None => Status::Skipped,
        }
    }

    /// The positions in `round` of the events in the anchor's history.
    fn reach(&mut self, anchor: Handle, round: Round) -> &IndexSet {
        if self
            .reached
            .as_ref()
            .is_none_or(|(last, _)| *last != anchor)
        {
            self.reached = Some((anchor, history(self.graph, anchor, self.base)));
        }
        let (_, reached) = self.reached.as_ref().expect("set above");
        &reached[(round.0 - self.base.0) as usize]
    }
}

/// Per round from `base` up to the anchor's, the positions of the events in its history.
fn history(graph: &Graph, anchor: Handle, base: Round) -> Vec<IndexSet> {
    let mut reached = vec![IndexSet::default(); (anchor.round.0 - base.0 + 1) as usize];
    reached[(anchor.round.0 - base.0) as usize].insert(anchor.position);
    for at in (1..reached.len()).rev() {
        let (below, here) = reached.split_at_mut(at);
        for position in here[0].iter() {
            let handle = Handle {
                round: base.ahead(at as u64),
                position,
            };
            let node = graph.node(handle).expect("above the floor");
            for parent in node.parents().filter(|parent| parent.round >= base) {
                below[(parent.round.0 - base.0) as usize].insert(parent.position);
            }
        }
    }
    reached
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
