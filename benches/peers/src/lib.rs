//! Other consensus libraries under the load and the measurement of `dagger bench consensus`.
//!
//! A member is a process (in tests a task): it takes transactions into a [`pool`], has them ordered by a peer's library
//! ([`aleph`], [`simplex`]) over a plain TCP [`wire`], and records when its own come out ([`recorder`]).

pub mod aleph;
pub mod cluster;
pub mod compare;
pub mod dagger;
pub mod measured;
pub mod member;
pub mod payloads;
pub mod pool;
pub mod recorder;
pub mod schedule;
pub mod simplex;
pub mod table;
pub mod wire;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The BLAKE3 digest of a payload.
pub type Digest = [u8; 32];

/// A library under measurement, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// aleph-bft, which makes a unit every so often.
    Aleph {
        /// The time between two units of a member, in milliseconds.
        unit_delay_ms: u64,
        /// Whether units carry payloads themselves, and not only their digests.
        payload_inside: bool,
    },
    /// commonware-consensus, simplex.
    Simplex {
        /// The time between two payloads of a member, and the least between two blocks, in milliseconds.
        pace_ms: u64,
    },
}

/// Takes what a member orders, in order.
pub trait Ordered: Send + Sync + 'static {
    /// The next payload that was ordered: whole transactions of `creator`. `name` is a digest that covers it.
    fn ordered(&self, creator: u16, name: &Digest, payload: &Bytes);
}

/// What a member starts with.
pub struct Seat {
    /// Its number.
    pub seat: u16,
    /// Where all members listen, by their numbers.
    pub addresses: Vec<SocketAddr>,
    /// Where this one does.
    pub listener: TcpListener,
    /// A directory of its own in memory, for a library that has to write.
    pub memory_dir: PathBuf,
    /// Where its transactions come from.
    pub pool: Arc<pool::Pool>,
    /// Where they go.
    pub ordered: Arc<dyn Ordered>,
}

/// Starts a member in the running Tokio runtime; returns once it is connected to all others.
pub async fn start(peer: Peer, seat: Seat) -> anyhow::Result<Arc<wire::Wire>> {
    match peer {
        Peer::Aleph {
            unit_delay_ms,
            payload_inside,
        } => aleph::start(unit_delay_ms, payload_inside, seat).await,
        Peer::Simplex { pace_ms } => simplex::start(pace_ms, seat).await,
    }
}
