//! The serving side: ends of epochs and the ledger at an epoch's start, from this node's disk.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use dagger_ledger::Key;
use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use shadowgraph::{Epoch, EventRef};
use tokio::{sync::Semaphore, time::timeout};

use super::wire::{
    Answer, ENDS_MAX, EVENTS_BYTES_MAX, EVENTS_MAX, Manifest, PEERS_MAX, Request, WireError,
    read_request, write_answer,
};
use crate::{
    error::NodeError,
    store::{Epochs, OpenSnapshot, Snapshots, key_of},
};

/// Requests answered at once over all peers; further ones wait.
const ANSWERED_MAX: usize = 8;
/// Streams of one connection served at once.
const STREAMS_MAX: usize = 8;
/// How long a peer may take with its request or with taking the answer.
const PATIENCE: Duration = Duration::from_secs(30);
const CLOSE_STRANGER: VarInt = VarInt::from_u32(1);

/// Says whether the node with a key may ask.
pub(crate) type Admission = Arc<dyn Fn(&Key) -> bool + Send + Sync>;

/// Says which nodes this one is connected to, so many of them at most.
pub(crate) type Connected = Arc<dyn Fn(usize) -> Vec<(Key, Vec<String>)> + Send + Sync>;

/// The snapshot that was asked for last: open, with the hashes of its chunks.
struct Held {
    manifest: Manifest,
    snapshot: OpenSnapshot,
}

/// Handles [`super::ALPN`].
#[derive(Clone)]
pub(crate) struct CatchupProtocol {
    epochs: Epochs,
    snapshots: Snapshots,
    admission: Admission,
    connected: Connected,
    answered: Arc<Semaphore>,
    held: Arc<Mutex<Option<Arc<Held>>>>,
}

impl fmt::Debug for CatchupProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatchupProtocol")
    }
}

impl ProtocolHandler for CatchupProtocol {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        if !(self.admission)(&Key(*connection.remote_id().as_bytes())) {
            connection.close(
                CLOSE_STRANGER,
                b"not a member, not a machine, not in [peers]",
            );
            return Ok(());
        }
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        loop {
            let Ok(stream) = Arc::clone(&streams).acquire_owned().await else {
                return Ok(());
            };
            let Ok((send, recv)) = connection.accept_bi().await else {
                return Ok(());
            };
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.serve(send, recv).await {
                    tracing::debug!(%error, "a peer that catches up was not answered");
                }
                drop(stream);
            });
        }
    }
}

impl CatchupProtocol {
    /// Serves what is on disk to those that `admission` lets in.
    pub fn new(
        epochs: Epochs,
        snapshots: Snapshots,
        admission: Admission,
        connected: Connected,
    ) -> Self {
        Self {
            epochs,
            snapshots,
            admission,
            connected,
            answered: Arc::new(Semaphore::new(ANSWERED_MAX)),
            held: Arc::default(),
        }
    }

    async fn serve(&self, mut send: SendStream, mut recv: RecvStream) -> Result<(), WireError> {
        let slow = |_| WireError::Connection("the peer is too slow".into());
        let request = timeout(PATIENCE, read_request(&mut recv))
            .await
            .map_err(slow)??;
        let _permit = self.answered.acquire().await.expect("never closed");
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.answer(&request)).await;
        let answer = read
            .map_err(WireError::connection)?
            .map_err(WireError::connection)?;
        timeout(PATIENCE, write_answer(&mut send, &answer))
            .await
            .map_err(slow)?
    }

    /// What this node has of what is asked for.
    pub fn answer(&self, request: &Request) -> Result<Answer, NodeError> {
        Ok(match request {
            Request::Ends(from) => {
                let mut ends = Vec::new();
                for epoch in (*from..).take(ENDS_MAX) {
                    match self.epochs.end(Epoch(epoch))? {
                        Some(end) => ends.push(end),
                        None => break,
                    }
                }
                Answer::Ends(ends)
            }
            Request::Manifest(epoch) => {
                let held = self.hold(*epoch)?;
                Answer::Manifest(held.map(|h| (h.manifest.clone(), h.snapshot.head.transactions)))
            }
            Request::Chunk { epoch, index } => Answer::Chunk(self.chunk(*epoch, *index)?),
            Request::Peers => {
                let connected = (self.connected)(PEERS_MAX).into_iter();
                Answer::Peers(connected.map(|(key, at)| (key.0, at)).collect())
            }
            Request::Events { epoch, wanted } => Answer::Events(self.events(*epoch, wanted)?),
        })
    }

    fn events(&self, epoch: u64, wanted: &[EventRef]) -> Result<Vec<Vec<u8>>, NodeError> {
        let mut events: Vec<Vec<u8>> = Vec::new();
        let mut room = EVENTS_BYTES_MAX;
        let Some(log) = self.epochs.reader(Epoch(epoch))? else {
            return Ok(events);
        };
        for name in wanted.iter().take(EVENTS_MAX) {
            // One that is damaged here too is had from others.
            let Ok(Some(event)) = log.get(&key_of(name)) else {
                continue;
            };
            if event.len() > room && !events.is_empty() {
                break;
            }
            room = room.saturating_sub(event.len());
            events.push(event.to_vec());
        }
        Ok(events)
    }

    fn chunk(&self, epoch: u64, index: u32) -> Result<Option<Vec<u8>>, NodeError> {
        let Some(held) = self.hold(epoch)? else {
            return Ok(None);
        };
        if index as usize >= held.manifest.chunks.len() {
            return Ok(None);
        }
        held.snapshot.read_at(held.manifest.range(index)).map(Some)
    }

    /// The ledger at the start of an epoch.
    fn hold(&self, epoch: u64) -> Result<Option<Arc<Held>>, NodeError> {
        // Whoever asks while it is read through for its hashes waits for them.
        let mut held = self.held.lock().expect("no holder panics");
        if let Some(found) = held.as_ref().filter(|h| h.manifest.epoch == epoch) {
            return Ok(Some(Arc::clone(found)));
        }
        let Some(before) = epoch.checked_sub(1) else {
            return Ok(None);
        };
        // Only what a quorum has certified is worth fetching.
        let Some(end) = self.epochs.end(Epoch(before))? else {
            return Ok(None);
        };
        let commit = end.certificate.checkpoint.commit.0;
        let Some(snapshot) = self.snapshots.epoch_start(commit)? else {
            return Ok(None);
        };
        let Some(manifest) = Manifest::of(epoch, &snapshot)? else {
            tracing::warn!(
                code = "E_SNAPSHOT_DAMAGED",
                epoch,
                "not offering a snapshot of the ledger: its checksum does not match"
            );
            return Ok(None);
        };
        let found = Arc::new(Held { manifest, snapshot });
        *held = Some(Arc::clone(&found));
        Ok(Some(found))
    }
}
