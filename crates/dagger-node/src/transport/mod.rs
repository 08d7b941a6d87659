//! Links to other nodes.

use std::net::SocketAddr;

use dagger_ledger::Key;

use crate::error::SubmitError;

/// The links to all peers.
#[derive(Clone)]
pub struct Links {}

impl Links {
    /// Sends a transaction to a member that is connected.
    ///
    /// # Errors
    /// `E_NO_MEMBER` if there is none.
    pub fn forward(&self, _wire: &[u8]) -> Result<(), SubmitError> {
        unimplemented!()
    }

    /// Addresses known for a node.
    pub fn addresses(&self, _node_key: &Key) -> Vec<SocketAddr> {
        unimplemented!()
    }
}
