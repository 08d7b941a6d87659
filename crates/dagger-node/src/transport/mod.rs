//! Links to the other nodes: authenticated by node key, over the node's one iroh endpoint.
//!
//! Between two nodes there is one connection (two for a moment, when both dialled), and on it one
//! long-lived stream of frames per direction. A link never waits for a slow peer: what does not fit into
//! its queue is dropped, and the consensus' own exchange of frontiers heals that.
//!
//! What must not live here: what a consensus message means. A frame is bytes with a kind.

mod endpoint;
mod frame;
mod link;
mod links;
mod memory;
mod queue;
mod session;

#[cfg(test)]
mod transport_tests;

pub(crate) use endpoint::bind;
pub(crate) use frame::Frame;
pub use link::LinkView;
pub(crate) use link::{Link, PeerEntry};
pub(crate) use links::Directory;
pub use links::Links;
pub(crate) use memory::Hub;
pub(crate) use session::{ConsensusProtocol, Inbound, dial_all};

/// Names the consensus protocol in the QUIC handshake.
pub const ALPN: &[u8] = b"dagger/consensus/1";
/// Version of the frames; a peer with another one is refused.
pub const PROTOCOL_VERSION: u32 = 5;
