//! A message on its way. It is read and verified once, however many receive it and however often: equal bytes mean the same
//! to everybody. Knows nothing of who sends or receives it.

use std::cell::OnceCell;

use bytes::Bytes;
use shadowgraph::{Message, MessageError, UnverifiedEvent, VerifiedEvent};

use crate::verifier::Verifier;

/// Bytes on the network, with what they turn out to be.
pub struct Packet {
    bytes: Bytes,
    digest: [u8; 32],
    message: OnceCell<Result<Message, MessageError>>,
    decoded: OnceCell<Vec<UnverifiedEvent>>,
    verified: OnceCell<Vec<VerifiedEvent>>,
}

impl Packet {
    /// Unread bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            digest: *blake3::hash(&bytes).as_bytes(),
            bytes,
            message: OnceCell::new(),
            decoded: OnceCell::new(),
            verified: OnceCell::new(),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their digest.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What they say.
    pub fn message(&self) -> &Result<Message, MessageError> {
        self.message
            .get_or_init(|| Message::decode(self.bytes.clone()))
    }

    fn wire_events(&self) -> &[Bytes] {
        match self.message() {
            Ok(Message::Events(events)) => events,
            _ => &[],
        }
    }

    /// The well-formed events in it.
    pub fn decoded(&self) -> &[UnverifiedEvent] {
        self.decoded.get_or_init(|| {
            let wire = self.wire_events().iter().cloned();
            wire.filter_map(|bytes| UnverifiedEvent::decode(bytes).ok())
                .collect()
        })
    }

    /// The valid events in it.
    pub fn verified(&self, verifier: &mut Verifier) -> &[VerifiedEvent] {
        self.verified
            .get_or_init(|| verifier.verify(self.wire_events()))
    }
}
