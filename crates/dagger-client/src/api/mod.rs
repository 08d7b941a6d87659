//! The documents of the HTTP API, as a node writes them and a client reads them.
//!
//! Keys and digests are lower-case hex, times are milliseconds since the Unix epoch in fields that end
//! in `_ms`, sizes name their unit. Only data lives here: no conversion from the ledger's records (the
//! node does that) and no rendering (the command line does that).

mod network;
mod node;
mod transaction;
mod vm;

pub use network::*;
pub use node::*;
pub use transaction::*;
pub use vm::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every response that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Reason,
}

impl ErrorBody {
    /// An error with a stable `code` and a `text` that says what to do.
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            error: Reason {
                code: code.into(),
                text: text.into(),
            },
        }
    }
}

/// A stable code for programs and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable and never reused for another meaning: `name_taken` and the like from the ledger, `E_...`
    /// from a node or a client.
    pub code: String,
    /// What happened and what to do about it.
    pub text: String,
}

/// A blob that a node has stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobStored {
    /// BLAKE3 digest of the bytes, hex.
    pub digest: String,
    /// How many bytes.
    pub size_bytes: u64,
}

/// A blob that a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobHeld {
    /// BLAKE3 digest of the bytes, hex.
    pub digest: String,
}
