//! Catching up by state: how a node that is far behind, or new, gets to the present epoch.
//!
//! It asks peers how the epochs since its own ended. Each end names the next committee and is signed by a quorum of the
//! one before, so the chain proves itself from the genesis file on. Then it fetches the ledger as it stood where the last
//! of them ended, in chunks, from all peers that have it, and believes it only if its root is the certified one.
//!
//! The same protocol gives single events by name to a node whose log was damaged (`heal`).
//!
//! What must not live here: events that a sound node lacks (the replica fetches those), and when a snapshot is needed (it says so).

mod download;
mod fetch;
mod install;
mod serve;
mod wire;

#[cfg(test)]
mod catchup_tests;
#[cfg(test)]
mod download_tests;

pub(crate) use download::Peer;
pub(crate) use fetch::{connect, connect_to, fetch};
pub(crate) use install::Catchup;
pub(crate) use serve::CatchupProtocol;
pub(crate) use wire::{Answer, EVENTS_MAX, Request};

/// Names the protocol in the QUIC handshake.
pub const ALPN: &[u8] = b"dagger/catchup/1";
