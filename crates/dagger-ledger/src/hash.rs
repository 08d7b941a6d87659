//! The hash functions of the state: every kind of input has its own 32-byte key, so that none can stand for another.

use borsh::BorshSerialize;

/// Hash of an inner node of the state tree: over left and right.
pub(crate) const STATE_NODE: &[u8; 32] = b"dagger state node v1\0\0\0\0\0\0\0\0\0\0\0\0";
/// Hash of a bucket: over its sorted (key hash, record hash) pairs.
pub(crate) const STATE_BUCKET: &[u8; 32] = b"dagger state bucket v1\0\0\0\0\0\0\0\0\0\0";
/// Hash of a record's key.
pub(crate) const STATE_KEY: &[u8; 32] = b"dagger state key v1\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Hash of a record.
pub(crate) const STATE_RECORD: &[u8; 32] = b"dagger state record v1\0\0\0\0\0\0\0\0\0\0";
/// Chain of executed digests of one expiry slot.
pub(crate) const REPLAY: &[u8; 32] = b"dagger replay memory v1\0\0\0\0\0\0\0\0\0";
/// Hash of one outcome.
pub(crate) const OUTCOME: &[u8; 32] = b"dagger outcome v1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Inner node of the tree over a commit's outcomes.
pub(crate) const OUTCOME_NODE: &[u8; 32] = b"dagger outcome node v1\0\0\0\0\0\0\0\0\0\0";
/// Link of the chain of outcome roots.
pub(crate) const OUTCOME_LINK: &[u8; 32] = b"dagger outcome link v1\0\0\0\0\0\0\0\0\0\0";

/// Keyed BLAKE3.
pub(crate) fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, bytes).as_bytes()
}

/// Keyed BLAKE3 over two digests.
pub(crate) fn pair(key: &[u8; 32], left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut bytes = [0u8; 64];
    bytes[..32].copy_from_slice(left);
    bytes[32..].copy_from_slice(right);
    keyed(key, &bytes)
}

/// The borsh form; writing to memory cannot fail.
pub(crate) fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("borsh writes to memory")
}
