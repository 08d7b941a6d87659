//! Ways into a VM by its name, wherever it runs: a TCP port of the guest, its serial console, its log.
//!
//! The side that asks ([`reach`]) finds the machine on the ledger and dials its node by public key. The
//! machine that hosts ([`TunnelProtocol`]) alone decides: the token must be signed by the key of the
//! account that owns the VM, be valid now and grant this, and the VM must be placed on this machine
//! under the lease epoch that stands. Whoever may not is told one word, whatever the reason.
//!
//! One more may ask, for one line: the node of an operator that the ledger drew to decide a dispute about a VM reads the greeting of
//! its ssh server, which is all that a probe proves.
//!
//! Everything is keyed to the VM and its lease epoch: after a failover the same call reaches the new
//! machine, and what still runs on the old one is cut off.

mod frame;
mod gate;
mod guests;
mod log;
mod open;
mod serve;

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tunnel_tests;

use tokio::io::{AsyncRead, AsyncWrite};

pub use frame::Want;
pub use gate::{Guests, Hosted};
pub use guests::NodeGuests;
pub(crate) use open::probe;
pub use open::{TunnelError, Ways, open, reach};
pub use serve::TunnelProtocol;

/// Protocol name in the handshake between nodes.
pub const ALPN: &[u8] = b"dagger/tunnel/1";

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
