//! The graph above the collection floor: who stands where, and who cites whom, under dense positions.
//! It takes complete events only (every ancestor above the floor present) and knows nothing of votes or order.

use std::collections::VecDeque;

use crate::committee::{Committee, MemberSet};
use crate::event::{EventRef, VerifiedEvent};
use crate::ids::{Digest, MemberIndex, Round};
use crate::index_set::IndexSet;

const NONE: u16 = u16::MAX;

/// Where an event stands: its round, and its position among that round's events in order of insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    pub(crate) round: Round,
    pub(crate) position: u16,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) event: VerifiedEvent,
    /// Beside the event so that a look-up touches no further memory.
    digest: Digest,
    pub(crate) creator: MemberIndex,
    next_twin: u16,
    /// The positions of the parents of the round before.
    pub(crate) previous: IndexSet,
    /// The parents of lower rounds. Of all parents only those above the floor at the time of insertion are kept.
    older: Vec<Handle>,
    /// Whether a commit has output it, or dropped it as a twin.
    pub(crate) ordered: bool,
}

impl Node {
    /// The parents above the floor at the time of insertion, in no order that means anything.
    pub(crate) fn parents(&self) -> impl Iterator<Item = Handle> + '_ {
        let round = self.event.round().back(1);
        let previous = self.previous.iter();
        let previous = previous.map(move |position| Handle { round, position });
        previous.chain(self.older.iter().copied())
    }
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) nodes: Vec<Node>,
    /// Per position, who made the event: a large committee's tallies need no more of the nodes.
    pub(crate) creator_at: Vec<MemberIndex>,
    /// Per seat, the position of its first event, and that event's digest: an event names its parents in order of seat, so that
    /// finding them all walks through these.
    first: Vec<u16>,
    first_digest: Vec<Digest>,
    /// Who has an event here.
    pub(crate) creators: MemberSet,
    /// Whose event here was output.
    pub(crate) output: MemberSet,
}

/// All events above the floor.
#[derive(Debug)]
pub(crate) struct Graph {
    committee: Committee,
    floor: Round,
    /// The layer at position i is of round floor + 1 + i.
    layers: VecDeque<Layer>,
    highest: Vec<Round>,
    events: usize,
    unordered_payload: usize,
}

impl Graph {
    pub(crate) fn new(committee: Committee) -> Self {
        let highest = vec![Round(0); committee.len()];
        Self {
            committee,
            floor: Round(0),
            layers: VecDeque::new(),
            highest,
            events: 0,
            unordered_payload: 0,
        }
    }

    /// Events of this round and below are gone and no longer count.
    pub(crate) fn floor(&self) -> Round {
        self.floor
    }

    /// The highest round with an event, at least the floor.
    pub(crate) fn top(&self) -> Round {
        self.floor.ahead(self.layers.len() as u64)
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.events
    }

    /// How many events carry payload that no commit has output yet.
    pub(crate) fn unordered_payload(&self) -> usize {
        self.unordered_payload
    }

    /// The highest round of a member's events ever inserted.
    pub(crate) fn highest(&self, seat: MemberIndex) -> Round {
        self.highest[seat.index()]
    }

    /// Per seat, the highest round of its events ever inserted.
    pub(crate) fn highest_rounds(&self) -> &[Round] {
        &self.highest
    }

    pub(crate) fn layer(&self, round: Round) -> Option<&Layer> {
        let above = round.0.checked_sub(self.floor.0 + 1)?;
        self.layers.get(usize::try_from(above).ok()?)
    }

    pub(crate) fn layer_mut(&mut self, round: Round) -> Option<&mut Layer> {
        let above = round.0.checked_sub(self.floor.0 + 1)?;
        self.layers.get_mut(usize::try_from(above).ok()?)
    }

    /// The weight of the members with an event in a round.
    pub(crate) fn weight(&self, round: Round) -> u64 {
        self.layer(round).map_or(0, |layer| layer.creators.weight())
    }

    /// The node at a handle, unless it has fallen to the floor.
    pub(crate) fn node(&self, handle: Handle) -> Option<&Node> {
        self.layer(handle.round)?
            .nodes
            .get(usize::from(handle.position))
    }

    pub(crate) fn node_mut(&mut self, handle: Handle) -> Option<&mut Node> {
        self.layer_mut(handle.round)?
            .nodes
            .get_mut(usize::from(handle.position))
    }

    /// All events of a slot, the first inserted first.
    pub(crate) fn slot(
        &self,
        round: Round,
        seat: MemberIndex,
    ) -> impl Iterator<Item = Handle> + '_ {
        let layer = self.layer(round);
        let mut at = layer.map_or(NONE, |layer| layer.first[seat.index()]);
        std::iter::from_fn(move || {
            let node = layer?.nodes.get(usize::from(at))?;
            let handle = Handle {
                round,
                position: at,
            };
            at = node.next_twin;
            Some(handle)
        })
    }

    /// The event of a slot that came first here.
    pub(crate) fn first(&self, round: Round, seat: MemberIndex) -> Option<&Node> {
        let layer = self.layer(round)?;
        layer.nodes.get(usize::from(layer.first[seat.index()]))
    }

    #[inline]
    pub(crate) fn find(&self, reference: &EventRef) -> Option<Handle> {
        let (round, seat) = (reference.round, reference.creator);
        let layer = self.layer(round)?;
        let position = layer.first[seat.index()];
        if position == NONE {
            return None;
        }
        if layer.first_digest[seat.index()] == reference.digest {
            return Some(Handle { round, position });
        }
        let is_it =
            |twin: &Handle| layer.nodes[usize::from(twin.position)].digest == reference.digest;
        self.slot(round, seat).skip(1).find(is_it)
    }

    /// The parents above the floor that are not here. Empty means the event can be inserted.
    pub(crate) fn missing(&self, event: &VerifiedEvent) -> Vec<EventRef> {
        let lacking = |parent: &&EventRef| parent.round > self.floor && self.find(parent).is_none();
        event.parents().iter().filter(lacking).copied().collect()
    }

    /// Whether one more event of this round has a position. Distinct members' citations of twins do not add up to so many.
    pub(crate) fn has_room(&self, round: Round) -> bool {
        self.layer(round)
            .is_none_or(|layer| layer.nodes.len() < usize::from(NONE))
    }

    /// Inserts a complete event above the floor that is not here yet.
    pub(crate) fn insert(&mut self, event: VerifiedEvent) -> Handle {
        let reference = *event.reference();
        let round = reference.round;
        assert!(round > self.floor, "inserted events are above the floor");
        let (mut previous, mut older) = (IndexSet::default(), Vec::new());
        for parent in event.parents() {
            if parent.round <= self.floor {
                continue;
            }
            let handle = self.find(parent).expect("inserted events are complete");
            if parent.round.next() == round {
                previous.insert(handle.position);
            } else {
                older.push(handle);
            }
        }
        while self.top() < round {
            self.layers.push_back(Layer {
                nodes: Vec::new(),
                creator_at: Vec::new(),
                first: vec![NONE; self.committee.len()],
                first_digest: vec![Digest::default(); self.committee.len()],
                creators: MemberSet::default(),
                output: MemberSet::default(),
            });
        }
        self.events += 1;
        self.unordered_payload += usize::from(event.transaction_count() > 0);
        let highest = &mut self.highest[reference.creator.index()];
        *highest = round.max(*highest);
        let last_twin = self.slot(round, reference.creator).last();
        let committee = self.committee.clone();
        let layer = self.layer_mut(round).expect("made above");
        let position = u16::try_from(layer.nodes.len()).expect("twins per slot are capped");
        match last_twin {
            Some(twin) => layer.nodes[usize::from(twin.position)].next_twin = position,
            None => {
                layer.first[reference.creator.index()] = position;
                layer.first_digest[reference.creator.index()] = reference.digest;
                layer.creators.insert(&committee, reference.creator);
            }
        }
        layer.creator_at.push(reference.creator);
        layer.nodes.push(Node {
            digest: reference.digest,
            creator: reference.creator,
            next_twin: NONE,
            previous,
            older,
            ordered: false,
            event,
        });
        Handle { round, position }
    }

    /// Notes that a commit has dealt with an event. False if one has before.
    pub(crate) fn mark_ordered(&mut self, handle: Handle) -> bool {
        let Some(node) = self.node_mut(handle) else {
            return false;
        };
        if node.ordered {
            return false;
        }
        node.ordered = true;
        let payload = node.event.transaction_count() > 0;
        self.unordered_payload -= usize::from(payload);
        true
    }

    /// Lets everything at the new floor and below go. docs/protocol.md 6.1
    pub(crate) fn raise_floor(&mut self, floor: Round) {
        while self.floor < floor {
            self.floor = self.floor.next();
            let Some(layer) = self.layers.pop_front() else {
                continue;
            };
            self.events -= layer.nodes.len();
            let lost = |node: &&Node| !node.ordered && node.event.transaction_count() > 0;
            self.unordered_payload -= layer.nodes.iter().filter(lost).count();
        }
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
