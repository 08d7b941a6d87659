//! Puts a node together, and takes it apart again.

use std::future::Future;

use crate::{config::NodeConfig, error::NodeError, handle::NodeHandle};

/// A started node.
pub struct Node {
    handle: NodeHandle,
}

impl Node {
    /// Opens the data directory, recovers from the log, binds the sockets and starts all parts.
    ///
    /// # Errors
    /// Every code of [`NodeError`] that concerns a start; nothing keeps running then.
    pub async fn start(_config: NodeConfig) -> Result<Self, NodeError> {
        unimplemented!()
    }

    /// The node's handle.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Waits until the node stops by itself, which it does only for a reason it cannot go on with.
    pub async fn stopped(&mut self) -> NodeError {
        unimplemented!()
    }

    /// Stops all parts in order; what was acknowledged is on disk.
    pub async fn stop(self) {
        unimplemented!()
    }
}

/// Runs a node until `shutdown` resolves or the node cannot go on.
///
/// # Errors
/// What kept it from starting or made it stop.
pub async fn run(config: NodeConfig, shutdown: impl Future) -> Result<(), NodeError> {
    let mut node = Node::start(config).await?;
    tokio::select! {
        error = node.stopped() => {
            node.stop().await;
            Err(error)
        }
        _ = shutdown => {
            node.stop().await;
            Ok(())
        }
    }
}
