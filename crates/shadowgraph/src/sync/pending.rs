//! Events that wait for ancestors, and the ancestors that are asked for. Every sender has its own share: when it is
//! used up, that sender's highest rounds go first. docs/protocol.md 7.3 to 7.5.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{EventRef, VerifiedEvent};
use crate::ids::{Digest, MemberIndex, Round};
use crate::message::Peer;
use crate::parameters::Parameters;

#[derive(Debug)]
struct Waiting {
    event: VerifiedEvent,
    from: Peer,
    /// How many ancestors are still lacking.
    lacking: usize,
}

#[derive(Debug)]
struct Lacking {
    /// Who waits for it.
    waiting: BTreeSet<Digest>,
    /// Who referred to it first.
    referrer: Peer,
    attempts: u32,
    ask_at_ms: u64,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// By round, so that the highest can go first.
    events: BTreeSet<(Round, Digest)>,
}

/// What became of an event that lacks ancestors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It waits.
    Waits,
    /// It waits already.
    Known,
    /// The sender's share is used up: an event went, this one or one of a higher round.
    Overflow,
}

#[derive(Debug)]
pub(crate) struct Pending {
    events: BTreeMap<Digest, Waiting>,
    lacking: BTreeMap<EventRef, Lacking>,
    due: BTreeSet<(u64, EventRef)>,
    shares: BTreeMap<Peer, Share>,
    /// The waiting events by slot.
    slots: BTreeSet<(Round, MemberIndex, Digest)>,
    events_max: usize,
    bytes_max: usize,
    delay_ms: u64,
    retry_ms: u64,
}

impl Pending {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Self {
            events: BTreeMap::new(),
            lacking: BTreeMap::new(),
            due: BTreeSet::new(),
            shares: BTreeMap::new(),
            slots: BTreeSet::new(),
            events_max: parameters.pending_events_per_peer_max,
            bytes_max: parameters.pending_bytes_per_peer_max,
            delay_ms: parameters.pull_delay_ms,
            retry_ms: parameters.pull_retry_ms.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.events.contains_key(digest)
    }

    /// Another waiting event of the same slot.
    pub(crate) fn twin_of(&self, event: &VerifiedEvent) -> Option<&VerifiedEvent> {
        let slot = (event.round(), event.creator());
        let from = (slot.0, slot.1, Digest([0; 32]));
        let of_slot = self
            .slots
            .range(from..)
            .take_while(|(round, seat, _)| (*round, *seat) == slot);
        let other = of_slot
            .map(|(_, _, digest)| digest)
            .find(|digest| *digest != event.digest());
        other.map(|digest| &self.events[digest].event)
    }

    /// Whether a waiting event cites this one, by a creator that `counts`, or one that is itself needed so.
    pub(crate) fn is_needed(
        &self,
        reference: &EventRef,
        counts: impl Fn(MemberIndex) -> bool,
    ) -> bool {
        let (mut open, mut seen) = (vec![*reference], BTreeSet::new());
        while let Some(needed) = open.pop() {
            let waiting = self.lacking.get(&needed).map(|lacking| &lacking.waiting);
            for digest in waiting
                .into_iter()
                .flatten()
                .filter(|digest| seen.insert(**digest))
            {
                let citing = self.events[digest].event.reference();
                if counts(citing.creator) {
                    return true;
                }
                open.push(*citing);
            }
        }
        false
    }

    /// From now on a missing ancestor is asked for after this time.
    pub(crate) fn ask_after(&mut self, delay_ms: u64) {
        self.delay_ms = delay_ms;
    }

    /// Keeps an event until its ancestors `missing` are there.
    pub(crate) fn add(
        &mut self,
        now_ms: u64,
        from: Peer,
        event: VerifiedEvent,
        missing: &[EventRef],
    ) -> Added {
        let digest = *event.digest();
        if self.events.contains_key(&digest) {
            return Added::Known;
        }
        let share = self.shares.entry(from).or_default();
        share.bytes += event.bytes().len();
        share.events.insert((event.round(), digest));
        self.slots.insert((event.round(), event.creator(), digest));
        for ancestor in missing {
            // An ancestor that waits itself needs no asking, but its arrival is what this one waits for.
            let ask_at_ms = now_ms + self.delay_ms;
            let known = self.events.contains_key(&ancestor.digest);
            let due = &mut self.due;
            let lacking = self.lacking.entry(*ancestor).or_insert_with(|| {
                if !known {
                    due.insert((ask_at_ms, *ancestor));
                }
                Lacking {
                    waiting: BTreeSet::new(),
                    referrer: from,
                    attempts: 0,
                    ask_at_ms,
                }
            });
            lacking.waiting.insert(digest);
        }
        // It may itself be what others wait for: no need to ask for it any more.
        if let Some(lacking) = self.lacking.get(event.reference()) {
            self.due.remove(&(lacking.ask_at_ms, *event.reference()));
        }
        self.events.insert(
            digest,
            Waiting {
                event,
                from,
                lacking: missing.len(),
            },
        );
        self.shrink(from)
    }

    fn shrink(&mut self, from: Peer) -> Added {
        let mut outcome = Added::Waits;
        loop {
            let share = self.shares.get(&from).expect("just filled");
            if share.events.len() <= self.events_max && share.bytes <= self.bytes_max {
                return outcome;
            }
            let (_, highest) = *share.events.last().expect("over its bound");
            self.remove(&highest);
            outcome = Added::Overflow;
        }
    }

    /// Takes an event out; whoever waits for it goes on waiting, and may ask for it again.
    fn remove(&mut self, digest: &Digest) -> Option<VerifiedEvent> {
        let waiting = self.events.remove(digest)?;
        let event = waiting.event;
        let share = self
            .shares
            .get_mut(&waiting.from)
            .expect("every event is in a share");
        share.bytes -= event.bytes().len();
        share.events.remove(&(event.round(), *digest));
        self.slots
            .remove(&(event.round(), event.creator(), *digest));
        if share.events.is_empty() {
            self.shares.remove(&waiting.from);
        }
        for ancestor in event.parents() {
            let Some(lacking) = self.lacking.get_mut(ancestor) else {
                continue;
            };
            lacking.waiting.remove(digest);
            if lacking.waiting.is_empty() {
                self.due.remove(&(lacking.ask_at_ms, *ancestor));
                self.lacking.remove(ancestor);
            }
        }
        if let Some(lacking) = self.lacking.get(event.reference()) {
            self.due.insert((lacking.ask_at_ms, *event.reference()));
        }
        Some(event)
    }

    /// Notes that an ancestor is in the graph (or no longer needed); returns the events that waited for it alone.
    pub(crate) fn arrived(&mut self, reference: &EventRef) -> Vec<(Peer, VerifiedEvent)> {
        let Some(lacking) = self.lacking.remove(reference) else {
            return Vec::new();
        };
        self.due.remove(&(lacking.ask_at_ms, *reference));
        let mut complete = Vec::new();
        for digest in &lacking.waiting {
            let waiting = self
                .events
                .get_mut(digest)
                .expect("only waiting events lack ancestors");
            waiting.lacking -= 1;
            if waiting.lacking == 0 {
                complete.push((waiting.from, waiting.event.clone()));
            }
        }
        for (_, event) in &complete {
            self.remove(event.digest());
        }
        complete
    }

    /// Ancestors at the floor and below are not needed any more, events there are of no use. docs/protocol.md 6.2
    pub(crate) fn raise_floor(&mut self, floor: Round) -> Vec<(Peer, VerifiedEvent)> {
        let useless: Vec<Digest> = self
            .shares
            .values()
            .flat_map(|share| share.events.iter().take_while(|(round, _)| *round <= floor))
            .map(|(_, digest)| *digest)
            .collect();
        for digest in &useless {
            self.remove(digest);
        }
        let below = self
            .lacking
            .keys()
            .take_while(|reference| reference.round <= floor);
        let exempt: Vec<EventRef> = below.copied().collect();
        exempt
            .iter()
            .flat_map(|reference| self.arrived(reference))
            .collect()
    }

    /// When the next ancestor is to be asked for.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// The ancestors to ask for now (of round `up_to` and below), with who referred to each and how often it was
    /// asked for before. The wait for the next attempt grows.
    pub(crate) fn take_due(
        &mut self,
        now_ms: u64,
        up_to: Round,
        most: usize,
    ) -> Vec<(EventRef, Peer, u32)> {
        let mut taken = Vec::new();
        while let Some((due_ms, reference)) = self.due.first().copied() {
            if due_ms > now_ms || taken.len() >= most {
                break;
            }
            self.due.remove(&(due_ms, reference));
            let lacking = self
                .lacking
                .get_mut(&reference)
                .expect("what is due is lacking");
            if reference.round <= up_to {
                taken.push((reference, lacking.referrer, lacking.attempts));
                lacking.attempts += 1;
            }
            lacking.ask_at_ms =
                now_ms + (self.retry_ms << lacking.attempts.saturating_sub(1).min(4));
            self.due.insert((lacking.ask_at_ms, reference));
        }
        taken
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
