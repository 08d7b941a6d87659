//! Events verified lately. Under load one event comes several times, from its creator and from those who were asked for it,
//! and its signatures need to be checked once.

use std::collections::{HashMap, VecDeque};

use shadowgraph::Digest;

/// Events remembered, and their bytes; the graph holds most of them anyway.
const EVENTS_MAX: usize = 1024;
const BYTES_MAX: usize = 32 << 20;

/// What became of the verification of events, by digest; the oldest go first.
pub(super) struct Recent<T> {
    by_digest: HashMap<Digest, T>,
    order: VecDeque<(Digest, usize)>,
    bytes: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            by_digest: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T: Clone> Recent<T> {
    /// Only of what was verified: whatever has the same digest counts as verified too.
    pub fn put(&mut self, digest: Digest, event: T, bytes: usize) {
        if self.by_digest.insert(digest, event).is_some() {
            return;
        }
        self.order.push_back((digest, bytes));
        self.bytes += bytes;
        while self.order.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let (oldest, bytes) = self.order.pop_front().expect("over its bound");
            self.bytes -= bytes;
            self.by_digest.remove(&oldest);
        }
    }

    pub fn get(&self, digest: &Digest) -> Option<T> {
        self.by_digest.get(digest).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        let mut digest = Digest([0; 32]);
        digest.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
        digest
    }

    #[test]
    fn the_oldest_go_beyond_either_bound() {
        let mut recent = Recent::default();
        for number in 0..EVENTS_MAX + 10 {
            recent.put(digest(number), number, 1);
            recent.put(digest(number), number, 1);
        }
        assert_eq!(recent.get(&digest(9)), None);
        assert_eq!(recent.get(&digest(10)), Some(10));
        assert_eq!(recent.by_digest.len(), EVENTS_MAX);
        recent.put(digest(0), 7, BYTES_MAX);
        assert_eq!(recent.get(&digest(0)), Some(7));
        assert_eq!((recent.by_digest.len(), recent.bytes), (1, BYTES_MAX));
    }
}
