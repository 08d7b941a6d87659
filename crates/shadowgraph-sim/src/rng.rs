//! Seeded randomness. Every random decision of a run comes from here, and each concern draws from its own stream, so that
//! adding a draw in one place does not reshuffle all the others.
//! Nothing here may read the operating system's randomness.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of random numbers, fixed by the seed of the run and the name of the stream.
#[derive(Clone, Debug)]
pub struct SimRng(ChaCha8Rng);

impl SimRng {
    /// The stream called `label` (with a number, for one stream per node) of the run with `seed`.
    pub fn stream(seed: u64, label: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("dagger simulator stream v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(label.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included. Multiplication instead of rejection: the bias is below 2^-32 for
    /// every range a simulation asks for, and each call draws exactly once.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range {low}..={high}");
        let width = u128::from(high - low) + 1;
        low + ((u128::from(self.bits()) * width) >> 64) as u64
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "no index below zero");
        self.between(0, len as u64 - 1) as usize
    }

    /// True in `permille` of a thousand cases. Draws nothing when the answer is certain.
    pub fn chance(&mut self, permille: u32) -> bool {
        match permille {
            0 => false,
            1000.. => true,
            _ => self.between(0, 999) < u64::from(permille),
        }
    }

    /// One of `items`.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Puts `items` into a random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }
}
