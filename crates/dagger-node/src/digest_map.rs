//! Maps whose keys are digests. Digests are spread already, so hashing them again costs more than it gives; but whoever makes
//! transactions can choose what theirs begin with, so a key drawn at the start of the process is mixed in.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

use dagger_ledger::Digest;

/// A map by digest.
pub(crate) type DigestMap<V> = HashMap<Digest, V, Keyed>;

static KEY: LazyLock<u64> = LazyLock::new(rand::random);

/// Makes hashers with the key of this process.
#[derive(Clone, Copy)]
pub(crate) struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(*KEY)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Multiplies word by word, and folds the halves of each product together.
pub(crate) struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    /// The length of a digest, which all have.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use dagger_ledger::Digest;

    use super::Keyed;

    /// Digests that begin alike, as somebody may make them, fall apart all the same; so do those that end alike.
    #[test]
    fn digests_that_are_alike_in_part_are_spread() {
        let hasher = Keyed::default();
        for at in [0, 8, 16, 24] {
            let low_bits = |number: u64| {
                let mut digest = Digest([7; 32]);
                digest.0[at..at + 8].copy_from_slice(&number.to_be_bytes());
                hasher.hash_one(digest) & 0xffff
            };
            let seen: HashSet<u64> = (0..10_000).map(low_bits).collect();
            // Drawn at random, 10,000 of 65,536 places would come to 9,270.
            assert!(seen.len() > 8_000, "{} of 10,000 at {at}", seen.len());
        }
    }
}
