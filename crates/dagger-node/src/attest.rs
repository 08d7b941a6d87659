//! Heartbeats and attestation.
