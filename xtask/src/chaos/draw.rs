//! Numbers drawn from a seed (splitmix64), so that a run's faults can be drawn again.

/// A seeded source of numbers.
pub struct Draw(u64);

/// A seed that differs from run to run.
pub fn fresh_seed() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.as_micros() as u64 % 1_000_000
}

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A few different ones of `0..of`, at least one, at most `most`.
    pub fn some(&mut self, of: usize, most: usize) -> Vec<usize> {
        let count = 1 + self.below(most as u64) as usize;
        let mut all: Vec<usize> = (0..of).collect();
        (0..count.min(of))
            .map(|_| {
                let at = self.below(all.len() as u64) as usize;
                all.swap_remove(at)
            })
            .collect()
    }
}
