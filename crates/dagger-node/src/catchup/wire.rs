//! Requests and answers: `length u32 | borsh`, one request and one answer on a stream.

use borsh::{BorshDeserialize, BorshSerialize};
use iroh::endpoint::{RecvStream, SendStream};
use shadowgraph::{EpochEnd, EventRef};

use crate::{error::NodeError, store::OpenSnapshot};

/// No request is longer.
const REQUEST_BYTES_MAX: usize = 4096;
/// No answer is longer: a chunk or a manifest, and a little.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of a snapshot in one chunk.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Nodes in one answer.
pub const PEERS_MAX: usize = 32;
/// Events in one request.
pub const EVENTS_MAX: usize = 64;
/// Bytes of events in one answer, unless a single one is longer.
pub const EVENTS_BYTES_MAX: usize = 4 << 20;
/// Ends in one answer.
pub const ENDS_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// How epochs ended, from this one on.
    Ends(u64),
    /// What the ledger at the start of this epoch consists of.
    Manifest(u64),
    /// A chunk of the ledger at the start of an epoch.
    Chunk {
        /// The epoch.
        epoch: u64,
        /// Which chunk.
        index: u32,
    },
    /// Which nodes the peer is connected to.
    Peers,
    /// Events by name.
    Events {
        /// The epoch they are of.
        epoch: u64,
        /// At most [`EVENTS_MAX`].
        wanted: Vec<EventRef>,
    },
}

/// The pieces of a ledger's snapshot. Equal states have equal bytes, so honest nodes give equal manifests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// The epoch that starts with it.
    pub epoch: u64,
    /// The commit after which it is the state.
    pub commit: u64,
    /// Bytes of the whole.
    pub bytes: u64,
    /// BLAKE3 of each chunk of [`CHUNK_BYTES`]; the last may be shorter.
    pub chunks: Vec<[u8; 32]>,
}

impl Manifest {
    /// Describes the snapshot that an epoch starts with; `None` if its file is damaged. Reads it once.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn of(epoch: u64, snapshot: &OpenSnapshot) -> Result<Option<Self>, NodeError> {
        let mut checksum = snapshot.checksum();
        let count = snapshot.body_bytes.div_ceil(CHUNK_BYTES);
        let mut manifest = Self {
            epoch,
            commit: snapshot.head.commit,
            bytes: snapshot.body_bytes,
            chunks: Vec::new(),
        };
        for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let chunk = snapshot.read_at(manifest.range(index))?;
            checksum.update(&chunk);
            manifest.chunks.push(*blake3::hash(&chunk).as_bytes());
        }
        Ok(checksum.matches().then_some(manifest))
    }

    /// Whether the numbers fit together and the whole is not absurd.
    pub fn is_sound(&self, bytes_max: u64) -> bool {
        self.bytes <= bytes_max && self.bytes.div_ceil(CHUNK_BYTES) == self.chunks.len() as u64
    }

    /// Where a chunk stands in the whole.
    pub fn range(&self, index: u32) -> std::ops::Range<u64> {
        let start = u64::from(index) * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.bytes)
    }
}

/// What is answered; `None` where the peer does not have it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Answer {
    /// To [`Request::Ends`]: in order, as many as fit.
    Ends(Vec<EpochEnd>),
    /// To [`Request::Manifest`], with the number of transactions that the peer counted (which nothing proves).
    Manifest(Option<(Manifest, u64)>),
    /// To [`Request::Chunk`].
    Chunk(Option<Vec<u8>>),
    /// To [`Request::Peers`]: node keys and `host:port` of each; at most [`PEERS_MAX`].
    Peers(Vec<([u8; 32], Vec<String>)>),
    /// To [`Request::Events`]: those that the peer holds, as many as fit.
    Events(Vec<Vec<u8>>),
}

/// Why a peer did not answer. Always a reason to try another one.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed.
    #[error("no connection: {0}")]
    Connection(String),
    /// Bytes that are no answer.
    #[error("the peer answered something else")]
    Malformed,
}

impl WireError {
    pub fn connection(error: impl std::fmt::Display) -> Self {
        Self::Connection(error.to_string())
    }
}

async fn read(stream: &mut RecvStream, bytes_max: usize) -> Result<Vec<u8>, WireError> {
    let mut field = [0u8; 4];
    stream
        .read_exact(&mut field)
        .await
        .map_err(WireError::connection)?;
    let length = u32::from_le_bytes(field) as usize;
    if length > bytes_max {
        return Err(WireError::Malformed);
    }
    // Space is set aside as bytes arrive, so a claimed length alone costs nothing.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    while bytes.len() < length {
        match stream.read_chunk(length - bytes.len()).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Err(WireError::Malformed),
            Err(error) => return Err(WireError::connection(error)),
        }
    }
    Ok(bytes)
}

async fn write(stream: &mut SendStream, value: &impl BorshSerialize) -> Result<(), WireError> {
    let body = borsh::to_vec(value).expect("plain data");
    let length = u32::try_from(body.len()).expect("answers are bounded");
    stream
        .write_all(&length.to_le_bytes())
        .await
        .map_err(WireError::connection)?;
    stream
        .write_all(&body)
        .await
        .map_err(WireError::connection)?;
    stream.finish().map_err(WireError::connection)
}

/// Asks on a stream of its own.
pub async fn ask(
    connection: &iroh::endpoint::Connection,
    request: &Request,
) -> Result<Answer, WireError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::connection)?;
    write(&mut send, request).await?;
    let bytes = read(&mut recv, ANSWER_BYTES_MAX).await?;
    borsh::from_slice(&bytes).map_err(|_| WireError::Malformed)
}

/// Reads a peer's request.
pub async fn read_request(stream: &mut RecvStream) -> Result<Request, WireError> {
    let bytes = read(stream, REQUEST_BYTES_MAX).await?;
    borsh::from_slice(&bytes).map_err(|_| WireError::Malformed)
}

/// Answers a peer's request.
pub async fn write_answer(stream: &mut SendStream, answer: &Answer) -> Result<(), WireError> {
    write(stream, answer).await
}
