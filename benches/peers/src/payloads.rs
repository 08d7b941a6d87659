//! Payloads by their digests: what members order is digests, what they send beside them is these.

use crate::Digest;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;

/// Payloads that are kept after they were ordered, for members that are behind.
const ORDERED_KEPT: usize = 64;
/// Digests of ordered payloads that are remembered, so that a late copy is not kept for ever.
const DIGESTS_KEPT: usize = 65_536;

/// The payloads that one member has.
#[derive(Default)]
pub struct Payloads {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Digest, Bytes>,
    ordered: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Payloads {
    /// Keeps a payload under its digest.
    pub fn insert(&self, payload: Bytes) -> Digest {
        let digest = *blake3::hash(&payload).as_bytes();
        let mut inner = self.inner.lock().expect("no holder panics");
        if !inner.ordered.contains(&digest) {
            inner.known.insert(digest, payload);
        }
        digest
    }

    /// The payload of this digest.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        let inner = self.inner.lock().expect("no holder panics");
        inner.known.get(digest).cloned()
    }

    /// Whether the payload is here, or was and has been ordered.
    pub fn has(&self, digest: &Digest) -> bool {
        let inner = self.inner.lock().expect("no holder panics");
        inner.known.contains_key(digest) || inner.ordered.contains(digest)
    }

    /// The payload was ordered: it will not be needed for long.
    pub fn order(&self, digest: &Digest) -> Option<Bytes> {
        let mut inner = self.inner.lock().expect("no holder panics");
        if !inner.ordered.insert(*digest) {
            return None;
        }
        inner.order.push_back(*digest);
        if inner.order.len() > ORDERED_KEPT {
            let old = inner.order[inner.order.len() - 1 - ORDERED_KEPT];
            inner.known.remove(&old);
        }
        if inner.order.len() > DIGESTS_KEPT {
            let oldest = inner.order.pop_front().expect("it is not empty");
            inner.ordered.remove(&oldest);
        }
        inner.known.get(digest).cloned()
    }
}
