//! Serving blobs to other nodes over iroh-blobs: only to keys that the network knows, read requests
//! only. Where the bytes lie is [`super::Images`]' business.

use std::{fmt, sync::Arc};

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::{
    BlobsProtocol,
    provider::events::{EventMask, EventSender, ProviderMessage, ThrottleMode},
};
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;

/// Says whether a node key belongs to the network (a member's or a machine's on the ledger).
pub type Admission = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;

/// Connections with another key than the network's get this code and nothing else.
const NOT_ADMITTED: u32 = 1;

/// The handler for iroh-blobs' ALPN. iroh-blobs itself serves anyone who connects, so the key of the
/// connection is checked here, before a request is read; push requests stay disabled.
#[derive(Clone)]
pub struct ImagesProtocol {
    blobs: BlobsProtocol,
    admission: Admission,
}

impl ImagesProtocol {
    pub(super) fn new(blobs: BlobsProtocol, admission: Admission) -> Self {
        ImagesProtocol { blobs, admission }
    }
}

/// Chunks (of 16 KiB) whose senders may wait for their turn.
const WAITING_MAX: usize = 64;

/// Holds back whoever sends, all together, to the pace: after each chunk in the order in which they were sent.
pub(super) fn paced(mut pace: Pace) -> EventSender {
    let mask = EventMask {
        throttle: ThrottleMode::Intercept,
        ..EventMask::DEFAULT
    };
    let (sender, mut messages) = EventSender::channel(WAITING_MAX, mask);
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            if let ProviderMessage::Throttle(chunk) = message {
                sleep_until(pace.sent(Instant::now(), chunk.inner.size)).await;
                // Whoever has hung up meanwhile needs no answer.
                let _ = chunk.tx.send(Ok(())).await;
            }
        }
    });
    sender
}

impl fmt::Debug for ImagesProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagesProtocol").finish_non_exhaustive()
    }
}

impl ProtocolHandler for ImagesProtocol {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        if !(self.admission)(connection.remote_id().as_bytes()) {
            connection.close(NOT_ADMITTED.into(), b"not admitted");
            return Ok(());
        }
        self.blobs.accept(connection).await
    }

    async fn shutdown(&self) {
        self.blobs.shutdown().await;
    }
}
