//! A node that orders opaque bytes instead of a ledger's transactions: consensus, transport and store as they are,
//! nothing executed. For benchmarks of consensus alone.
//!
//! What must not live here: anything a node with a ledger does differently for it.

use std::sync::Arc;

use bytes::Bytes;
use shadowgraph::Commit;

pub use crate::replica::Batch;
use crate::{
    config::NodeConfig,
    error::NodeError,
    node::Node,
    replica::{Ingest, ReplicaInput},
    transport::Hub,
};

/// Takes what was ordered.
pub trait Consumer: Send + Sync + 'static {
    /// The next commit. The node's executor waits for it.
    fn committed(&self, commit: &Commit);
}

/// Nodes of one process that reach one another without a socket.
#[derive(Clone, Default)]
pub struct MemoryNetwork(pub(crate) Hub<Ingest>);

/// What makes a node one that orders opaque bytes.
pub struct Opaque {
    /// Takes what was ordered.
    pub consumer: Arc<dyn Consumer>,
    /// The network in memory, or the node's own socket.
    pub network: Option<MemoryNetwork>,
    /// Write nothing: events live in the graph for as long as they count. Such a node must never be started twice.
    pub discard_log: bool,
}

impl Node {
    /// Starts a node that orders opaque bytes.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_opaque(config: NodeConfig, opaque: Opaque) -> Result<Self, NodeError> {
        Self::start_with(config, Some(opaque)).await
    }

    /// Hands opaque transactions to the pool; waits only while the replica's queue is full. The answer says later
    /// how many were refused because the pool was full.
    pub fn submit_opaque(&self, transactions: Vec<Bytes>) -> Batch {
        let batch = Batch::default();
        self.handle()
            .shared
            .replica
            .blocking_input(ReplicaInput::SubmitMany {
                transactions,
                batch: batch.clone(),
            });
        batch
    }

    /// What the replica was doing a moment ago.
    pub fn replica_status(&self) -> shadowgraph::ReplicaStatus {
        self.handle().shared.replica.status()
    }

    /// Bytes of frames handed to the transport so far.
    pub fn sent_bytes(&self) -> u64 {
        let links = self.handle().shared.links.views();
        links.iter().map(|link| link.sent_bytes).sum()
    }

    /// Frames that were dropped so far because a peer was too slow.
    pub fn dropped_frames(&self) -> u64 {
        let links = self.handle().shared.links.views();
        links.iter().map(|link| link.dropped_frames).sum()
    }
}
