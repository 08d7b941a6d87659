//! Transactions: the signed JSON document, its wire form, and the check that turns bytes from anybody into a
//! [`CheckedTransaction`]. Checks need no ledger, so they run in parallel, outside of execution.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::code::Code;
use crate::ids::{Digest, Key};
use crate::json;

/// Largest body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest salt.
pub const SALT_CHARS_MAX: usize = 64;

const SIGNATURE_CONTEXT: &[u8] = b"dagger transaction v1\0";

/// The document that is signed, exactly as its bytes stand.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The network it is for.
    pub chain: Digest,
    /// Who asks.
    pub signer: Key,
    /// Makes two otherwise equal transactions different. 1 to 64 printable ASCII characters.
    pub salt: String,
    /// Ledger time after which it is void, ms since the Unix epoch.
    pub valid_until_ms: u64,
    /// What is asked.
    pub action: Action,
}

impl Transaction {
    /// Compact JSON and its signature.
    pub fn sign(&self, key: &ed25519_zebra::SigningKey) -> SignedTransaction {
        let body = serde_json::to_vec(self).expect("a transaction always serialises");
        SignedTransaction::sign(body, key)
    }

    /// Parses a body strictly, with every check that needs neither key nor ledger.
    pub fn parse(body: &[u8]) -> Result<Self, (Code, String)> {
        if body.len() > BODY_BYTES_MAX {
            return Err((Code::TooLarge, format!("{} bytes", body.len())));
        }
        let transaction: Transaction = json::from_slice(body).map_err(|e| (e.code, e.at))?;
        let salt = transaction.salt.as_bytes();
        if salt.is_empty()
            || salt.len() > SALT_CHARS_MAX
            || salt.iter().any(|b| !(0x21..0x7f).contains(b))
        {
            return Err((Code::BadText, "salt".to_string()));
        }
        transaction
            .action
            .check()
            .map_err(|(code, at)| (code, at.to_string()))?;
        Ok(transaction)
    }
}

/// A body with its signature, as it travels. The wire form is the 64 bytes of the signature followed by the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// ed25519 over `"dagger transaction v1\0" ++ body`.
    pub signature: [u8; 64],
    /// The exact JSON bytes.
    pub body: Box<[u8]>,
}

impl SignedTransaction {
    /// Signs a body as it stands.
    pub fn sign(body: impl Into<Box<[u8]>>, key: &ed25519_zebra::SigningKey) -> Self {
        let body = body.into();
        let signature = key.sign(&message(&body)).to_bytes();
        Self { signature, body }
    }

    /// The wire form.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(64 + self.body.len());
        wire.extend_from_slice(&self.signature);
        wire.extend_from_slice(&self.body);
        wire
    }

    /// Splits a wire form. Fails with `malformed` or `too_large`; says nothing about the content.
    pub fn from_wire(wire: &[u8]) -> Result<Self, Code> {
        let (signature, body) = split(wire)?;
        Ok(Self {
            signature,
            body: body.into(),
        })
    }

    /// Digest of the body; the signature is not part of it.
    pub fn digest(&self) -> Digest {
        digest_of_body(&self.body)
    }
}

fn split(wire: &[u8]) -> Result<([u8; 64], &[u8]), Code> {
    let (signature, body) = wire.split_first_chunk::<64>().ok_or(Code::Malformed)?;
    if body.len() > BODY_BYTES_MAX {
        Err(Code::TooLarge)
    } else {
        Ok((*signature, body))
    }
}

/// BLAKE3 (`derive_key("dagger transaction v1")`) of a transaction's body.
pub fn digest_of_body(body: &[u8]) -> Digest {
    Digest(blake3::derive_key("dagger transaction v1", body))
}

fn message(body: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, body].concat()
}

/// A transaction whose form, chain and signature have been judged. Every node comes to the same verdict from the same
/// bytes, whichever path it takes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckedTransaction {
    pub(crate) digest: Digest,
    pub(crate) verdict: Result<Arc<Transaction>, (Code, Arc<str>)>,
}

impl CheckedTransaction {
    /// Judges one wire form. Never fails: a bad transaction gets its outcome at execution like any other.
    pub fn check(chain: &Digest, wire: &[u8]) -> Self {
        let (mut checked, claim) = Self::before_signature(chain, wire);
        if claim.is_some_and(|claim| claim.verify().is_err()) {
            checked.refuse_signature();
        }
        checked
    }

    /// Judges many wire forms; signatures in one batch, one by one only if the batch fails. Same verdicts as [`Self::check`]: ZIP-215
    /// makes the batch equation and the single equation agree on every input. Costs least with 64 to 256 at a time.
    pub fn check_batch(chain: &Digest, wires: &[impl AsRef<[u8]>]) -> Vec<Self> {
        let (mut checked, claims): (Vec<_>, Vec<_>) = wires
            .iter()
            .map(|wire| Self::before_signature(chain, wire.as_ref()))
            .unzip();
        let verdicts = crate::signature::verify_batch(claims.iter().flatten());
        let signed = checked
            .iter_mut()
            .zip(&claims)
            .filter(|(_, claim)| claim.is_some());
        for ((one, _), good) in signed.zip(verdicts) {
            if !good {
                one.refuse_signature();
            }
        }
        checked
    }

    /// A transaction whose signature the caller has checked already, e.g. the one it just made. Benches use it too.
    pub fn from_verified_body(chain: &Digest, body: &[u8]) -> Self {
        Self::parse(chain, body).0
    }

    fn before_signature(chain: &Digest, wire: &[u8]) -> (Self, Option<crate::signature::Claim>) {
        let (signature, body) = match split(wire) {
            Ok(parts) => parts,
            Err(code) => {
                let digest = digest_of_body(wire.get(64..).unwrap_or(wire));
                return (
                    Self {
                        digest,
                        verdict: Err((code, "".into())),
                    },
                    None,
                );
            }
        };
        let (checked, signer) = Self::parse(chain, body);
        let claim = signer.map(|key| {
            crate::signature::Claim::new(&key, &signature, &message(body), &checked.digest)
        });
        (checked, claim)
    }

    fn parse(chain: &Digest, body: &[u8]) -> (Self, Option<Key>) {
        let digest = digest_of_body(body);
        match Transaction::parse(body) {
            Err((code, at)) => (
                Self {
                    digest,
                    verdict: Err((code, at.into())),
                },
                None,
            ),
            Ok(transaction) if transaction.chain != *chain => (
                Self {
                    digest,
                    verdict: Err((Code::WrongChain, "".into())),
                },
                None,
            ),
            Ok(transaction) => {
                let signer = transaction.signer;
                (
                    Self {
                        digest,
                        verdict: Ok(Arc::new(transaction)),
                    },
                    Some(signer),
                )
            }
        }
    }

    fn refuse_signature(&mut self) {
        self.verdict = Err((Code::BadSignature, "".into()));
    }

    /// Digest of the body.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The code it will get whatever the ledger's state, if it is bad.
    pub fn code(&self) -> Result<(), Code> {
        self.verdict.as_ref().map(|_| ()).map_err(|(code, _)| *code)
    }

    /// What in particular is wrong with it, for people; empty if nothing more is known than the code.
    pub fn detail(&self) -> &str {
        self.verdict.as_ref().err().map_or("", |(_, detail)| detail)
    }

    /// The document, if it is good.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.verdict.as_ref().ok().map(Arc::as_ref)
    }
}
