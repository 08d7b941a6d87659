//! What members of the next epoch say before it has begun here: kept, unverified, within bounds, so that nobody has to say
//! it again. docs/protocol.md 10.4

use std::collections::BTreeMap;

use crate::committee::Committee;
use crate::event::UnverifiedEvent;
use crate::message::{Message, Peer};

/// The most that is kept of one member, and of all followers together.
const ITEMS_PER_PEER_MAX: usize = 16;
const BYTES_PER_PEER_MAX: usize = 2 << 20;

/// Whoever has no seat: such peers have one share among them.
const NOBODY: Peer = Peer::Follower(u64::MAX);

#[derive(Debug)]
pub(super) enum Item {
    Event(UnverifiedEvent),
    Message(Message),
}

#[derive(Debug, Default)]
struct Share {
    items: Vec<Item>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Early {
    shares: BTreeMap<Peer, Share>,
}

impl Early {
    /// Keeps an item of the next epoch, if its sender's share has room.
    pub(super) fn keep(&mut self, from: Peer, item: Item) {
        let from = match from {
            Peer::Member(_) => from,
            Peer::Follower(_) => NOBODY,
        };
        let share = self.shares.entry(from).or_default();
        let bytes = match &item {
            Item::Event(event) => event.bytes().len(),
            Item::Message(_) => 0, // frontiers and hints: small, and counted
        };
        if share.items.len() < ITEMS_PER_PEER_MAX && share.bytes + bytes <= BYTES_PER_PEER_MAX {
            share.bytes += bytes;
            share.items.push(item);
        }
    }

    /// The epoch begins: members get their new seats. Who has none is nobody that the new epoch's words come from, but
    /// others' events may have come through it.
    pub(super) fn renumber(&mut self, old: &Committee, new: &Committee) {
        let seat = |peer: Peer| match peer {
            Peer::Member(seat) => old
                .member(seat)
                .and_then(|member| new.seat(&member.key))
                .map_or(NOBODY, Peer::Member),
            Peer::Follower(_) => NOBODY,
        };
        let mut renumbered: BTreeMap<Peer, Share> = BTreeMap::new();
        for (peer, share) in std::mem::take(&mut self.shares) {
            let into = renumbered.entry(seat(peer)).or_default();
            into.items.extend(share.items);
        }
        self.shares = renumbered;
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Peer, Vec<Item>)> + use<> {
        std::mem::take(&mut self.shares)
            .into_iter()
            .map(|(peer, share)| (peer, share.items))
    }
}

#[cfg(test)]
#[path = "early_tests.rs"]
mod tests;
