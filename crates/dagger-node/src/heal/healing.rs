//! One epoch's damaged log: what it lacks, which events fill that, and where each of them goes.
//!
//! What must not live here: how peers are asked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use bytes::Bytes;
use shadowgraph::{
    ChainId, Committee, Digest, EventRef, MemberIndex, UnverifiedEvent, VerifiedEvent,
    verify_events,
};

use crate::{
    error::NodeError,
    store::{Content, EventKey, Salvage, key_of},
};

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Healed {
    /// Events that peers gave.
    pub events: usize,
    /// Events that no peer has and nothing in the log refers to: left out.
    pub dropped: usize,
    /// Segments written anew.
    pub segments: usize,
}

/// See the module.
pub(crate) struct Healing {
    chain_id: ChainId,
    committee: Committee,
    salvage: Salvage,
    /// Events that can be read.
    held: HashSet<Digest>,
    /// Events whose place is known and whose bytes are lost, with the number of their piece.
    lost: BTreeMap<EventRef, usize>,
    /// Pieces of which nothing is known.
    unknown: Vec<usize>,
    /// Events that something refers to and that are not held, with the first piece that does (the number of pieces if only
    /// lost events do): such as may have stood in an unknown piece.
    absent: BTreeMap<EventRef, usize>,
    /// Lost events that something in the log refers to.
    cited: HashSet<Digest>,
    found: BTreeMap<EventRef, VerifiedEvent>,
}

impl Healing {
    /// Reads the log in `dir` as far as it can be read; `own` is the seat whose events must all be there, because this node
    /// may still sign in that epoch.
    ///
    /// # Errors
    /// `E_OWN_EVENT_DAMAGED` if an event of `own` is lost, or may be; as [`Salvage::read`].
    pub fn examine(
        dir: &Path,
        chain_id: ChainId,
        committee: Committee,
        own: Option<MemberIndex>,
    ) -> Result<Self, NodeError> {
        let mut reading = Reading {
            chain_id,
            committee: &committee,
            held: HashMap::new(),
            citers: HashMap::new(),
            last_own: None,
            own,
        };
        let salvage = Salvage::read(dir, chain_id.0, &mut |piece, key, body, doubtful| {
            reading.judge(piece, key, body, doubtful)
        })?;
        let Reading {
            held,
            mut citers,
            last_own,
            ..
        } = reading;
        for (tip, behind) in &salvage.tips {
            let citer = citers.entry(reference(tip)).or_insert(*behind);
            *citer = (*citer).min(*behind);
        }
        let mut this = Self {
            chain_id,
            committee,
            salvage,
            held: held.into_keys().collect(),
            lost: BTreeMap::new(),
            unknown: Vec::new(),
            absent: BTreeMap::new(),
            cited: HashSet::new(),
            found: BTreeMap::new(),
        };
        for (number, piece) in this.salvage.pieces.iter().enumerate() {
            match piece.content {
                Content::Whole(_) => {}
                Content::Lost(key) => {
                    this.lost.insert(reference(&key), number);
                }
                Content::Unknown => this.unknown.push(number),
            }
        }
        let first_unknown = this.unknown.first().copied().unwrap_or(usize::MAX);
        for (event, citer) in citers {
            if this.lost.contains_key(&event) {
                this.cited.insert(event.digest);
            } else if !this.held.contains(&event.digest)
                && citer > first_unknown
                && event.round.0 > 0
            {
                this.absent.insert(event, citer);
            }
        }
        match own {
            Some(own) => this.own_events_are_whole(own, last_own).map(|()| this),
            None => Ok(this),
        }
    }

    /// Own events form one chain, and each refers to the one before: if one can be read behind every unknown piece, and none
    /// is known to be lost, then none is lost.
    fn own_events_are_whole(
        &self,
        own: MemberIndex,
        last_own: Option<usize>,
    ) -> Result<(), NodeError> {
        let of_own = |events: &BTreeMap<EventRef, usize>| {
            let mut events = events.iter().filter(|(event, _)| event.creator == own);
            events.next().map(|(_, piece)| *piece)
        };
        let unproven = self.unknown.last().filter(|u| last_own < Some(**u));
        let first_unknown = self.unknown.first().copied();
        let piece = of_own(&self.lost)
            .or_else(|| of_own(&self.absent).and(first_unknown))
            .or(unproven.copied());
        match piece {
            None => Ok(()),
            Some(piece) => {
                let (path, offset) = self.salvage.place(piece);
                Err(NodeError::OwnEventDamaged { path, offset })
            }
        }
    }

    /// Whether there is nothing to do.
    pub fn is_sound(&self) -> bool {
        self.salvage.is_sound()
    }

    /// Whether parts of the log are such that nothing says what stood there.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Events that peers are to be asked for, apart from those in `asked`; at most `limit`.
    pub fn wanted(&self, asked: &BTreeSet<EventRef>, limit: usize) -> Vec<EventRef> {
        let all = self.lost.keys().chain(self.absent.keys());
        let open = all.filter(|e| !self.found.contains_key(e) && !asked.contains(e));
        open.take(limit).copied().collect()
    }

    /// Takes what a peer gave; returns how many of these it keeps.
    pub fn take(&mut self, events: Vec<Bytes>) -> usize {
        let decoded: Vec<UnverifiedEvent> = events
            .into_iter()
            .filter_map(|bytes| UnverifiedEvent::decode(bytes).ok())
            .filter(|event| {
                let name = event.reference();
                let wanted = self.lost.contains_key(name) || self.absent.contains_key(name);
                wanted && !self.found.contains_key(name)
            })
            .collect();
        let verified = verify_events(decoded, &self.chain_id, &self.committee);
        let mut taken = 0;
        for event in verified.into_iter().flatten() {
            taken += 1;
            for parent in event.parents() {
                if self.lost.contains_key(parent) {
                    self.cited.insert(parent.digest);
                } else if self.has_unknown()
                    && parent.round.0 > 0
                    && !self.held.contains(&parent.digest)
                {
                    let only_by_lost = self.salvage.pieces.len();
                    self.absent.entry(*parent).or_insert(only_by_lost);
                }
            }
            self.found.insert(*event.reference(), event);
        }
        taken
    }

    /// Lost events without which the log cannot be read on: something in it refers to them.
    pub fn lacks(&self) -> usize {
        let lost = self.lost.keys();
        lost.filter(|e| self.cited.contains(&e.digest) && !self.found.contains_key(e))
            .count()
    }

    /// Writes the log anew. Events that are wanted and not found are left out.
    ///
    /// # Errors
    /// As [`Salvage::rewrite`].
    pub fn finish(self) -> Result<Healed, NodeError> {
        assert_eq!(self.lacks(), 0, "the log would not be causal");
        let places = self.places();
        let events = places.values().map(Vec::len).sum();
        let named = |event: &&EventRef| !self.found.contains_key(event);
        let dropped = self.lost.keys().filter(named).count();
        let segments = self.salvage.rewrite(&places)?;
        Ok(Healed {
            events,
            dropped,
            segments,
        })
    }

    /// The events found, by the piece that they go into. Whose name was left goes where it stood; any other into the last
    /// unknown piece before everything that refers to it, which is not before its ancestors.
    fn places(&self) -> BTreeMap<usize, Vec<(EventKey, Bytes)>> {
        let mut places: BTreeMap<usize, Vec<(EventKey, Bytes)>> = BTreeMap::new();
        // The last piece that an event may stand in, by those that refer to it; they come first here.
        let mut latest: HashMap<EventRef, usize> = HashMap::new();
        for (name, event) in self.found.iter().rev() {
            let (piece, for_parents) = match self.lost.get(name) {
                Some(piece) => (*piece, piece.checked_sub(1)),
                None => {
                    let by_whole = self.absent.get(name).map_or(0, |citer| citer - 1);
                    let bound = latest.get(name).map_or(by_whole, |l| by_whole.min(*l));
                    let fit = self.unknown.iter().rev().find(|u| **u <= bound);
                    // It never stood in this log: it was collected already when what refers to it came.
                    let Some(piece) = fit else { continue };
                    (*piece, Some(*piece))
                }
            };
            if let Some(bound) = for_parents {
                for parent in event.parents() {
                    let latest = latest.entry(*parent).or_insert(bound);
                    *latest = bound.min(*latest);
                }
            }
            let entry = (key_of(name), event.bytes().clone());
            places.entry(piece).or_default().push(entry);
        }
        for events in places.values_mut() {
            events.sort_unstable_by_key(|(key, _)| *key);
        }
        places
    }
}

/// The reading of what is whole.
struct Reading<'a> {
    chain_id: ChainId,
    committee: &'a Committee,
    held: HashMap<Digest, usize>,
    /// By event, the first piece that refers to it.
    citers: HashMap<EventRef, usize>,
    own: Option<MemberIndex>,
    last_own: Option<usize>,
}

impl Reading<'_> {
    fn judge(&mut self, piece: usize, key: EventKey, body: &[u8], doubtful: bool) -> bool {
        let bytes = Bytes::copy_from_slice(body);
        let event = if doubtful {
            let Ok(event) = UnverifiedEvent::decode(bytes) else {
                return false;
            };
            let mut verified = verify_events(vec![event], &self.chain_id, self.committee);
            verified.pop().and_then(Result::ok)
        } else {
            VerifiedEvent::from_own_log(bytes).ok()
        };
        let Some(event) = event.filter(|event| key_of(event.reference()) == key) else {
            return false;
        };
        // A record within the payload of a lost event may repeat one that stands elsewhere.
        if doubtful && self.held.contains_key(event.digest()) {
            return false;
        }
        self.held.insert(*event.digest(), piece);
        for parent in event.parents() {
            self.citers.entry(*parent).or_insert(piece);
        }
        if Some(event.creator()) == self.own {
            self.last_own = Some(piece);
        }
        true
    }
}

fn reference(key: &EventKey) -> EventRef {
    EventRef {
        round: shadowgraph::Round(key.round),
        creator: MemberIndex(key.creator),
        digest: Digest(key.digest),
    }
}
