//! Links between nodes of one process: the same queues, and a task instead of a connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock, atomic::Ordering},
};

use dagger_ledger::Key;

use super::{ConsensusProtocol, Frame, Inbound, link::Link};

/// Bytes taken from a queue at once.
const BATCH_BYTES: usize = 256 << 10;

/// The nodes of one process.
pub(crate) struct Hub<I>(Arc<RwLock<BTreeMap<Key, ConsensusProtocol<I>>>>);

impl<I> Clone for Hub<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Default for Hub<I> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<I: Inbound> Hub<I> {
    /// Adds a node and links it with those that are there.
    pub fn join(&self, own: &Key, protocol: &ConsensusProtocol<I>) {
        let mut nodes = self.0.write().expect("no holder panics");
        for (key, other) in nodes.iter() {
            pump(protocol, own, other, key);
            pump(other, key, protocol, own);
        }
        nodes.insert(*own, protocol.clone());
    }
}

/// Carries what waits at `from` for `to`.
fn pump<I: Inbound>(
    from: &ConsensusProtocol<I>,
    from_key: &Key,
    to: &ConsensusProtocol<I>,
    to_key: &Key,
) {
    let link = |protocol: &ConsensusProtocol<I>, key: &Key| protocol.links.by_key(key);
    let (Some(out), Some(into)) = (link(from, to_key), link(to, from_key)) else {
        return;
    };
    out.in_process.store(true, Ordering::Relaxed);
    let inbound = Arc::clone(&to.inbound);
    from.spawn(carry(out, into, inbound));
}

async fn carry<I: Inbound>(out: Arc<Link>, into: Arc<Link>, inbound: Arc<I>) {
    loop {
        for encoded in out.queue.pop(BATCH_BYTES).await {
            out.sent_bytes
                .fetch_add(encoded.len() as u64, Ordering::Relaxed);
            into.received_frames.fetch_add(1, Ordering::Relaxed);
            let kind = *encoded.head.last().expect("a head ends with the kind");
            let frame = Frame::decode_body(kind, encoded.body).expect("encoded in this process");
            inbound.receive(&into, frame).await;
        }
    }
}
