//! Ed25519 keys and signatures under the ZIP-215 rules, and the domains of hashes and signatures.
//! The only file that touches the signature crate's key types.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::ids::Digest;

/// What a digest or a signature is about; two purposes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Event,
    Payload,
    Genesis,
    Commit,
    Checkpoint,
    Committee,
}

impl Domain {
    const fn name(self) -> &'static str {
        match self {
            Self::Event => "dagger event v1",
            Self::Payload => "dagger event payload v1",
            Self::Genesis => "dagger genesis event v1",
            Self::Commit => "dagger commit v1",
            Self::Checkpoint => "dagger checkpoint v1",
            Self::Committee => "dagger committee v1",
        }
    }

    /// A hasher of this domain.
    pub(crate) fn hasher(self) -> blake3::Hasher {
        blake3::Hasher::new_derive_key(self.name())
    }

    /// The digest of `parts`, one after the other.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Digest {
        let mut hasher = self.hasher();
        for part in parts {
            hasher.update(part);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The exact bytes that a signature of this domain is over.
    pub(crate) fn signed_bytes(self, parts: &[&[u8]]) -> Vec<u8> {
        let name = self.name().as_bytes();
        let length = name.len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(name);
        bytes.push(0);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// An ed25519 public key, as its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

/// An ed25519 signature, as its 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

/// The modulus 2^255 - 19 in little-endian bytes.
const FIELD_PRIME: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed;
    bytes[31] = 0x7f;
    bytes
};

impl PublicKey {
    /// Whether the bytes decode to a point of the curve, in their one canonical form, that is not of small order.
    ///
    /// Such keys alone may hold a seat: a small-order key accepts forged signatures.
    #[must_use]
    pub fn is_admissible(&self) -> bool {
        let mut y = self.0;
        y[31] &= 0x7f;
        let canonical = y.iter().rev().lt(FIELD_PRIME.iter().rev());
        let Ok(key) = ed25519_zebra::VerificationKey::try_from(self.0) else {
            return false;
        };
        // With R the identity and s = 0 the ZIP-215 equation reads [8][k]A = 0: true for every message
        // exactly when A has small order. (A non-canonical sign bit occurs only at x = 0: small order too.)
        let mut identity = [0; 64];
        identity[0] = 1;
        let forged = ed25519_zebra::Signature::from(identity);
        let small_order = key.verify(&forged, b"is it of small order?").is_ok();
        canonical && !small_order
    }

    /// Verifies one signature over `message` (already domain-separated) by the ZIP-215 rules.
    #[must_use]
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.decode()
            .is_some_and(|key| key.verify(message, signature))
    }

    /// The point that the bytes stand for, if they are one of the curve.
    pub(crate) fn decode(&self) -> Option<DecodedKey> {
        let key = ed25519_zebra::VerificationKey::try_from(self.0).ok()?;
        Some(DecodedKey(key))
    }
}

/// A public key as a point of the curve: finding it takes a tenth of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecodedKey(ed25519_zebra::VerificationKey);

impl DecodedKey {
    /// As [`PublicKey::verify`].
    #[must_use]
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_zebra::Signature::from(signature.0);
        self.0.verify(&signature, message).is_ok()
    }
}

/// A consensus key that signs events and checkpoint votes. Signing is deterministic.
#[derive(Clone)]
pub struct SigningKey {
    secret: ed25519_zebra::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        let secret = ed25519_zebra::SigningKey::from(seed);
        let public = PublicKey(secret.verification_key().into());
        Self { secret, public }
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs bytes that already carry their domain.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.secret.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {})", self.public)
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
