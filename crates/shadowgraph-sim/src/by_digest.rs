//! Maps and sets whose keys are digests. A digest is as good as random already, so the maps do not hash it again: the
//! simulator looks events up a hundred times for each that a node takes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Takes the first bytes of the last thing written. For digests only.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk().expect("a digest has eight bytes");
        self.0 = u64::from_le_bytes(*first);
    }

    fn write_usize(&mut self, _: usize) {
        // The length of the digest, before it.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by digest.
pub type DigestMap<K, V> = HashMap<K, V, BuildHasherDefault<FirstBytes>>;
/// A set of digests.
pub type DigestSet<K> = HashSet<K, BuildHasherDefault<FirstBytes>>;
