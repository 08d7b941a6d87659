//! Decoding and verification as every node does it, with one memory for the whole run: equal bytes have an equal verdict, so
//! each distinct event's signature is checked once, not once per receiver.

use std::collections::BTreeMap;

use crate::by_digest::DigestMap;
use bytes::Bytes;
use shadowgraph::{ChainId, Committee, Digest, UnverifiedEvent, VerifiedEvent, verify_events};

/// Verifies events against the committees of a run.
pub struct Verifier {
    chain_id: ChainId,
    committees: Vec<Committee>,
    verdicts: DigestMap<[u8; 32], Option<VerifiedEvent>>,
    /// The digest of the first valid event seen per epoch, round and creator.
    first: BTreeMap<(u64, u64, u16), Digest>,
    twins: Vec<(u64, u64, u16)>,
}

impl Verifier {
    /// A verifier that has seen nothing.
    pub fn new(chain_id: ChainId, committees: Vec<Committee>) -> Self {
        Self {
            chain_id,
            committees,
            verdicts: DigestMap::default(),
            first: BTreeMap::new(),
            twins: Vec::new(),
        }
    }

    /// The valid events among `events`, in their order. Fresh ones are verified as one batch.
    pub fn verify(&mut self, events: &[Bytes]) -> Vec<VerifiedEvent> {
        let keys: Vec<[u8; 32]> = events
            .iter()
            .map(|bytes| *blake3::hash(bytes).as_bytes())
            .collect();
        let mut fresh: BTreeMap<u64, (Vec<UnverifiedEvent>, Vec<[u8; 32]>)> = BTreeMap::new();
        for (bytes, key) in events.iter().zip(&keys) {
            if self.verdicts.contains_key(key) {
                continue;
            }
            self.verdicts.insert(*key, None);
            if let Ok(event) = UnverifiedEvent::decode(bytes.clone()) {
                let (fresh, fresh_keys) = fresh.entry(event.epoch().0).or_default();
                fresh.push(event);
                fresh_keys.push(*key);
            }
        }
        for (epoch, (fresh, fresh_keys)) in fresh {
            let Some(committee) = self.committees.get(epoch as usize) else {
                continue;
            };
            let results = verify_events(fresh, &self.chain_id, committee);
            for (key, result) in fresh_keys.into_iter().zip(results) {
                if let Ok(event) = result {
                    self.note_twins(&event);
                    self.verdicts.insert(key, Some(event));
                }
            }
        }
        keys.iter()
            .filter_map(|key| self.verdicts[key].clone())
            .collect()
    }

    fn note_twins(&mut self, event: &VerifiedEvent) {
        let slot = (event.epoch().0, event.round().0, event.creator().0);
        let first = self.first.entry(slot).or_insert(*event.digest());
        if first != event.digest() {
            self.twins.push(slot);
        }
    }

    /// Epochs, rounds and creators of which more than one valid event was seen on the network.
    pub fn twins(&self) -> &[(u64, u64, u16)] {
        &self.twins
    }
}
