//! Builds and signs transactions.
