//! Replay protection: digests of executed transactions, remembered until their `valid_until_ms` has passed.
//!
//! They are kept in slots of expiry time. Each slot's digests are chained into one hash, so that remembering one costs
//! one compression and forgetting costs nothing; the state root covers the slots' hashes.

use std::collections::{BTreeMap, HashSet};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash;
use crate::ids::Digest;

/// Width of a slot.
const SLOT_MS: u64 = 4_096;

#[derive(Clone, Default)]
pub(super) struct Replay {
    slots: BTreeMap<u64, Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    chain: [u8; 32],
    order: Vec<Digest>,
    known: HashSet<Digest>,
}

impl Replay {
    pub(super) fn contains(&self, digest: &Digest, valid_until_ms: u64) -> bool {
        self.slots
            .get(&(valid_until_ms / SLOT_MS))
            .is_some_and(|slot| slot.known.contains(digest))
    }

    pub(super) fn insert(&mut self, digest: Digest, valid_until_ms: u64) {
        let slot = self.slots.entry(valid_until_ms / SLOT_MS).or_default();
        assert!(slot.known.insert(digest), "remembered twice");
        slot.order.push(digest);
        slot.chain = hash::pair(hash::REPLAY, &slot.chain, &digest.0);
    }

    /// Forgets slots in which everything has expired.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(slot) = self.slots.first_entry() {
            if *slot.key() >= now_ms / SLOT_MS {
                break;
            }
            slot.remove();
        }
    }

    /// The slots' starts, counts and hashes.
    pub(super) fn summary(&self) -> Vec<(u64, u64, [u8; 32])> {
        let line = |(start, slot): (&u64, &Slot)| (*start, slot.order.len() as u64, slot.chain);
        self.slots.iter().map(line).collect()
    }
}

/// The form in a snapshot; hashes are computed anew from the digests.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct ReplayImage(Vec<(u64, Vec<Digest>)>);

impl From<&Replay> for ReplayImage {
    fn from(replay: &Replay) -> Self {
        Self(
            replay
                .slots
                .iter()
                .map(|(start, slot)| (*start, slot.order.clone()))
                .collect(),
        )
    }
}

impl ReplayImage {
    /// `None` if a digest stands twice.
    pub(super) fn restore(self) -> Option<Replay> {
        let mut replay = Replay::default();
        for (start, digests) in self.0 {
            for digest in digests {
                let valid_until_ms = start.checked_mul(SLOT_MS)?;
                if replay.contains(&digest, valid_until_ms) {
                    return None;
                }
                replay.insert(digest, valid_until_ms);
            }
        }
        Some(replay)
    }
}
