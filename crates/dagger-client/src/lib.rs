//! The client's side of DAGGER: API types, key files, transaction builder, access tokens, sealed user-data, HTTP client.
//!
//! What must not live here: anything that needs a running node, a terminal, or (outside the `http`
//! feature) an async runtime. The daemon depends on this crate for its API types, never the reverse.

pub mod api;
pub mod keys;
pub mod proof;
pub mod size;
pub mod token;
pub mod transaction;
pub mod user_data;

#[cfg(feature = "http")]
pub mod http;
