//! The client's side of DAGGER: API types, key files, transaction builder, access tokens, HTTP client.
//!
//! What must not live here: anything that needs a running node, a terminal, or (outside the `http`
//! feature) an async runtime. The daemon depends on this crate for its API types, never the reverse.

pub mod api;
pub mod keys;
pub mod proof;
pub mod token;
pub mod transaction;

#[cfg(feature = "http")]
pub mod http;
