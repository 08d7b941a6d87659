//! What host and shim say to each other over the shim's socket: one JSON document a line, one answer a request.

use serde::{Deserialize, Serialize};

use crate::status::{InstanceStatus, StopMode};

/// Longest line either side takes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Host to shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How do you do?
    Status,
    /// Move the watchdog's deadline on (CLOCK_BOOTTIME ms).
    Renew {
        /// The new deadline; an earlier one than the present has no effect.
        deadline_boottime_ms: u64,
    },
    /// Stop QEMU. A hard stop is answered when it is done.
    Stop(StopMode),
    /// Connect to this TCP port of the guest; the connection comes with the answer, as a descriptor.
    Dial {
        /// Port in the guest.
        guest_port: u16,
    },
    /// Has the guest taken a connection to this TCP port, or is it still being offered?
    Taken {
        /// Port in the guest.
        guest_port: u16,
    },
    /// From here on the connection is the guest's serial line, both ways.
    Console,
}

/// Shim to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done, or under way.
    Done,
    /// The state of things.
    Status(Box<InstanceStatus>),
    /// The connection comes with this line.
    Dialled,
    /// Whether the guest has taken a connection.
    Taken(bool),
    /// It cannot be done.
    Error {
        /// Why.
        text: String,
    },
}

/// A message as a line.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message).expect("messages are plain data");
    bytes.push(b'\n');
    bytes
}
