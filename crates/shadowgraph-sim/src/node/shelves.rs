//! What is on a node's disk, found by where it stands: round by round, seat by seat. Two hundred nodes ask for the parents of
//! every event, two hundred of them: so they lie side by side in the order in which an event names them.

use std::collections::BTreeMap;

use bytes::Bytes;
use shadowgraph::{Epoch, EventRef, MemberIndex, Round, VerifiedEvent};

/// The events of one round.
#[derive(Debug, Default)]
struct Shelf {
    /// Per seat, the first event of its slot.
    first: Vec<Option<(EventRef, Bytes)>>,
    twins: BTreeMap<EventRef, Bytes>,
}

impl Shelf {
    fn get(&self, reference: &EventRef) -> Option<&Bytes> {
        match self.first.get(usize::from(reference.creator.0)) {
            Some(Some((first, bytes))) if first == reference => Some(bytes),
            _ => self.twins.get(reference),
        }
    }

    fn put(&mut self, event: &VerifiedEvent) {
        let (reference, bytes) = (*event.reference(), event.bytes().clone());
        let seat = usize::from(reference.creator.0);
        if self.first.len() <= seat {
            self.first.resize(seat + 1, None);
        }
        match &mut self.first[seat] {
            Some((first, _)) if *first != reference => {
                self.twins.insert(reference, bytes);
            }
            place => *place = Some((reference, bytes)),
        }
    }
}

/// All events by epoch, round and creator.
#[derive(Debug, Default)]
pub(super) struct Shelves(BTreeMap<(Epoch, Round), Shelf>);

impl Shelves {
    pub(super) fn put(&mut self, event: &VerifiedEvent) {
        let place = (event.epoch(), event.round());
        self.0.entry(place).or_default().put(event);
    }

    pub(super) fn get(&self, epoch: Epoch, reference: &EventRef) -> Option<&Bytes> {
        self.0.get(&(epoch, reference.round))?.get(reference)
    }

    /// Those of `references` that are not here.
    pub(super) fn lacking<'a>(
        &'a self,
        epoch: Epoch,
        references: impl Iterator<Item = &'a EventRef> + 'a,
    ) -> impl Iterator<Item = &'a EventRef> + 'a {
        let mut shelf: Option<(Round, Option<&Shelf>)> = None;
        references.filter(move |reference| {
            let found = match shelf {
                Some((round, found)) if round == reference.round => found,
                _ => self.0.get(&(epoch, reference.round)),
            };
            shelf = Some((reference.round, found));
            found.is_none_or(|found| found.get(reference).is_none())
        })
    }

    /// The events of an epoch whose round and creator are wanted, in the order of their names.
    pub(super) fn of_epoch(
        &self,
        epoch: Epoch,
        wants: impl Fn(Round, MemberIndex) -> bool,
    ) -> Vec<&Bytes> {
        let mut events: Vec<(&EventRef, &Bytes)> = Vec::new();
        let rounds = (epoch, Round(0))..(Epoch(epoch.0 + 1), Round(0));
        for shelf in self.0.range(rounds).map(|(_, shelf)| shelf) {
            let first = shelf.first.iter().flatten();
            events.extend(first.map(|(reference, bytes)| (reference, bytes)));
            events.extend(&shelf.twins);
        }
        events.retain(|(reference, _)| wants(reference.round, reference.creator));
        events.sort_unstable_by_key(|(reference, _)| **reference);
        events.into_iter().map(|(_, bytes)| bytes).collect()
    }
}
