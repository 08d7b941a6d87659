//! Fetching one blob from several nodes at once: which piece is asked of whom, verification while
//! streaming, and what each peer's failure means. Writes only through [`PartFile`].

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::Connection};
use iroh_blobs::{
    Hash,
    get::fsm::{self, AtBlobHeaderNextError, ConnectedNext, DecodeError},
    protocol::{ChunkRanges, ChunkRangesExt, ChunkRangesSeq, GetRequest},
};
use tokio::sync::watch;

use super::{
    error::ImageError,
    part::{PartFile, piece_count, piece_range},
};

/// Nodes asked at the same time; the others stand by for when one of these fails.
const PROVIDERS_AT_ONCE: usize = 4;
/// Requests in flight per node: enough to hide a round trip behind a piece.
const LANES_PER_PROVIDER: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that needs longer than this for one piece is given up for this transfer.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why one peer could not help, in rising order of what it says about the blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PeerFailure {
    Missing,
    Broken(String),
    WrongSize(u64),
    WrongData,
    Local(String, bool),
}

/// What is left to fetch. A piece is asked of a second peer once nothing fresh is left, so that one
/// slow peer does not hold up the end.
#[derive(Debug)]
struct Pieces {
    state: Vec<PieceState>,
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceState {
    Missing,
    Asked(EndpointId, bool),
    Done,
}

impl Pieces {
    fn take(&mut self, peer: EndpointId) -> Option<u64> {
        let fresh = self
            .state
            .iter()
            .position(|state| *state == PieceState::Missing);
        if let Some(index) = fresh {
            self.state[index] = PieceState::Asked(peer, false);
            return Some(index as u64);
        }
        let second = self
            .state
            .iter()
            .position(|state| matches!(state, PieceState::Asked(other, false) if *other != peer))?;
        self.state[second] = PieceState::Asked(peer, true);
        Some(second as u64)
    }

    fn done(&mut self, piece: u64) -> bool {
        let state = &mut self.state[piece as usize];
        let fresh = *state != PieceState::Done;
        if fresh {
            *state = PieceState::Done;
            self.left -= 1;
        }
        fresh
    }

    fn put_back(&mut self, piece: u64) {
        let state = &mut self.state[piece as usize];
        if *state != PieceState::Done {
            *state = PieceState::Missing;
        }
    }
}

/// One transfer of one blob.
struct Transfer {
    endpoint: Endpoint,
    hash: Hash,
    size: u64,
    part: Arc<PartFile>,
    pieces: Mutex<Pieces>,
    /// Counts changes of `pieces`; idle lanes wait on it.
    changed: watch::Sender<u64>,
}

/// Fetches what `part` still lacks of a blob from `providers` and returns the peers that served any
/// of it. Every byte is verified against `digest` before it is written. Dropping the future stops
/// the transfer; what was written stays for the next attempt.
pub(super) async fn fetch(
    endpoint: &Endpoint,
    digest: [u8; 32],
    size: u64,
    part: Arc<PartFile>,
    present: Vec<bool>,
    providers: Vec<EndpointAddr>,
) -> Result<Vec<EndpointId>, ImageError> {
    assert_eq!(present.len() as u64, piece_count(size));
    let state: Vec<_> = present
        .iter()
        .map(|&have| {
            if have {
                PieceState::Done
            } else {
                PieceState::Missing
            }
        })
        .collect();
    let left = state
        .iter()
        .filter(|state| **state != PieceState::Done)
        .count();
    let transfer = Transfer {
        endpoint: endpoint.clone(),
        hash: Hash::from(digest),
        size,
        part,
        pieces: Mutex::new(Pieces { state, left }),
        changed: watch::Sender::new(0),
    };
    let transfer = &transfer;
    let mut served = Vec::new();
    let mut failures = Vec::new();
    if left > 0 {
        let mut running = stream::iter(providers)
            .map(|provider| async move { (provider.id, transfer.run_provider(provider).await) })
            .buffer_unordered(PROVIDERS_AT_ONCE);
        while let Some((peer, (pieces, failure))) = running.next().await {
            if pieces > 0 {
                served.push(peer);
            }
            if let Some(failure) = failure {
                tracing::debug!(peer = %peer.fmt_short(), ?failure, "a peer could not serve the blob");
                failures.push((peer, failure));
            }
            if transfer.left() == 0 {
                break;
            }
        }
    }
    if transfer.left() == 0 {
        Ok(served)
    } else {
        Err(verdict(failures))
    }
}

/// The error a customer sees: the worst thing any peer showed about the blob.
fn verdict(failures: Vec<(EndpointId, PeerFailure)>) -> ImageError {
    let Some((peer, worst)) = failures.into_iter().max_by(|a, b| a.1.cmp(&b.1)) else {
        return ImageError::Unavailable("no node to ask".into());
    };
    let peer = peer.fmt_short();
    match worst {
        PeerFailure::Missing => {
            ImageError::Unavailable("every node that was asked lacks it".into())
        }
        PeerFailure::Broken(text) => ImageError::Interrupted(format!("node {peer}: {text}")),
        PeerFailure::WrongSize(size) => {
            ImageError::SizeMismatch(format!("node {peer} has {size} bytes"))
        }
        PeerFailure::WrongData => {
            ImageError::DigestMismatch(format!("node {peer} sent other data"))
        }
        PeerFailure::Local(_, true) => ImageError::DiskFull,
        PeerFailure::Local(text, false) => ImageError::Io(text),
    }
}

impl Transfer {
    fn left(&self) -> usize {
        self.pieces.lock().expect("no panic holds it").left
    }

    /// Serves pieces from one peer until all are done or the peer fails.
    async fn run_provider(&self, provider: EndpointAddr) -> (usize, Option<PeerFailure>) {
        let peer = provider.id;
        let connect = self.endpoint.connect(provider, iroh_blobs::ALPN);
        let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return (
                    0,
                    Some(PeerFailure::Broken(format!("cannot connect: {error:#}"))),
                );
            }
            Err(_) => {
                return (
                    0,
                    Some(PeerFailure::Broken("no answer to the connection".into())),
                );
            }
        };
        let lanes = (0..LANES_PER_PROVIDER).map(|_| self.run_lane(&connection, peer));
        let ended = futures_util::future::join_all(lanes).await;
        let pieces = ended.iter().map(|(pieces, _)| pieces).sum();
        let failure = ended.into_iter().filter_map(|(_, failure)| failure).max();
        connection.close(0u32.into(), b"done");
        (pieces, failure)
    }

    /// One request after another to one peer. Ends when every piece is done or the peer failed.
    async fn run_lane(
        &self,
        connection: &Connection,
        peer: EndpointId,
    ) -> (usize, Option<PeerFailure>) {
        let mut changed = self.changed.subscribe();
        let mut served = 0;
        loop {
            changed.borrow_and_update();
            let (piece, left) = {
                let mut pieces = self.pieces.lock().expect("no panic holds it");
                (pieces.take(peer), pieces.left)
            };
            let Some(piece) = piece else {
                if left == 0 || changed.changed().await.is_err() {
                    return (served, None);
                }
                continue;
            };
            let outcome = tokio::select! {
                outcome = self.fetch_piece(connection, piece) => outcome,
                () = self.all_done() => return (served, None),
            };
            let mut failure = None;
            match outcome {
                Ok(bytes) => match self.keep(piece, bytes).await {
                    Ok(()) => {
                        served +=
                            usize::from(self.pieces.lock().expect("no panic holds it").done(piece))
                    }
                    Err(error) => failure = Some(error),
                },
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                self.pieces
                    .lock()
                    .expect("no panic holds it")
                    .put_back(piece);
            }
            self.changed.send_modify(|count| *count += 1);
            if failure.is_some() {
                return (served, failure);
            }
        }
    }

    async fn all_done(&self) {
        let mut changed = self.changed.subscribe();
        while self.left() > 0 {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks for one piece; the bytes that come back are verified.
    async fn fetch_piece(
        &self,
        connection: &Connection,
        piece: u64,
    ) -> Result<Vec<u8>, PeerFailure> {
        tokio::time::timeout(PIECE_TIMEOUT, self.request_piece(connection, piece))
            .await
            .unwrap_or_else(|_| Err(PeerFailure::Broken("too slow".into())))
    }

    async fn request_piece(
        &self,
        connection: &Connection,
        piece: u64,
    ) -> Result<Vec<u8>, PeerFailure> {
        let (start, end) = piece_range(piece, self.size);
        let ranges = ChunkRangesSeq::from_ranges([ChunkRanges::bytes(start..end)]);
        let request = GetRequest::new(self.hash, ranges);
        let broken = |error: &dyn std::fmt::Display| PeerFailure::Broken(error.to_string());
        let connected = fsm::start(connection.clone(), request, Default::default())
            .next()
            .await
            .map_err(|e| broken(&e))?;
        let ConnectedNext::StartRoot(root) = connected.next().await.map_err(|e| broken(&e))? else {
            return Err(PeerFailure::Broken("unexpected answer".into()));
        };
        let (content, size) = match root.next().next().await {
            Ok(header) => header,
            Err(AtBlobHeaderNextError::NotFound { .. }) => return Err(PeerFailure::Missing),
            // A peer without the blob resets the stream.
            Err(AtBlobHeaderNextError::Read { .. }) if connection.close_reason().is_none() => {
                return Err(PeerFailure::Missing);
            }
            Err(error) => return Err(broken(&error)),
        };
        // Before anything is read or kept: the ledger's size bounds what a peer may send.
        if size != self.size {
            return Err(PeerFailure::WrongSize(size));
        }
        let (_end, bytes) = content
            .concatenate_into_vec()
            .await
            .map_err(|error| match error {
                DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
                    PeerFailure::WrongData
                }
                DecodeError::ChunkNotFound { .. }
                | DecodeError::ParentNotFound { .. }
                | DecodeError::LeafNotFound { .. } => PeerFailure::Missing,
                error => broken(&error),
            })?;
        if bytes.len() as u64 != end - start {
            return Err(PeerFailure::WrongData);
        }
        Ok(bytes)
    }

    async fn keep(&self, piece: u64, bytes: Vec<u8>) -> Result<(), PeerFailure> {
        let part = self.part.clone();
        let written = tokio::task::spawn_blocking(move || part.write_piece(piece, &bytes)).await;
        written
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| {
                let text = error.to_string();
                PeerFailure::Local(
                    text,
                    matches!(ImageError::from(error), ImageError::DiskFull),
                )
            })
    }
}
