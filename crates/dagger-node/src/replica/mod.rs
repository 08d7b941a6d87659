//! The replica loop.

use bytes::Bytes;

use crate::error::SubmitError;

/// Talks to the replica loop.
#[derive(Clone)]
pub struct ReplicaHandle {}

impl ReplicaHandle {
    /// Hands a checked transaction to the pool.
    ///
    /// # Errors
    /// `E_POOL_FULL`, `E_STOPPING`.
    pub async fn submit(&self, _wire: Bytes) -> Result<(), SubmitError> {
        unimplemented!()
    }
}
