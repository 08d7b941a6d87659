//! How units carry payloads: inside, or by their digests with the payloads beside them.

use crate::Digest;
use crate::payloads::Payloads;
use aleph_bft::Data;
use bytes::Bytes;

/// What stands in a unit for its payload.
pub trait Carry: Data {
    /// For a new unit of one's own.
    fn carry(payload: Bytes, payloads: &Payloads) -> Self;

    /// What is sent before a message with such a unit.
    fn beside(&self, payloads: &Payloads) -> Option<Bytes>;

    /// Whether the payload is here, so that the unit can be taken.
    fn is_here(&self, payloads: &Payloads) -> bool;

    /// The payload, when its unit is ordered.
    fn ordered(self, payloads: &Payloads) -> Bytes;
}

/// The payload itself, as the library's documentation has it.
impl Carry for Bytes {
    fn carry(payload: Bytes, _: &Payloads) -> Self {
        payload
    }

    fn beside(&self, _: &Payloads) -> Option<Bytes> {
        None
    }

    fn is_here(&self, _: &Payloads) -> bool {
        true
    }

    fn ordered(self, _: &Payloads) -> Bytes {
        self
    }
}

/// Its digest, which spares the library four copies of every payload and hashing them inside units.
impl Carry for Digest {
    fn carry(payload: Bytes, payloads: &Payloads) -> Self {
        payloads.insert(payload)
    }

    fn beside(&self, payloads: &Payloads) -> Option<Bytes> {
        payloads.get(self)
    }

    fn is_here(&self, payloads: &Payloads) -> bool {
        payloads.has(self)
    }

    fn ordered(self, payloads: &Payloads) -> Bytes {
        let payload = payloads.order(&self);
        payload.expect("a unit without its payload is not taken, and none is ordered twice")
    }
}
