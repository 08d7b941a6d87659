//! User-data that nobody but a VM's machine can read: sealed by the customer, opened by the machine that the ledger chose.
//!
//! The body is sealed (HPKE, RFC 9180, base mode) to a key pair made for it; its secret half is wrapped, by HPKE again, to
//! each machine that may run the VM. The body travels as a blob, the wrapped keys stand on the ledger. A machine's key is
//! the X25519 form of its node key. What both sides of a wrapping must agree on, and no more, is bound to it: the network,
//! the body and the machine's name.

use dagger_ledger::{Digest, Key, UserData, WrappedKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal,
};

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

const BODY: &[u8] = b"dagger user-data body v1";
const WRAPPING: &[u8] = b"dagger user-data key v1";
/// An X25519 public key, in front of what is sealed with its help.
const ENCAPSULATED_BYTES: usize = 32;

/// Why user-data cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// A machine's node key is no key.
    #[error("the node key of machine {0} is not a valid key; leave that machine out")]
    BadMachineKey(String),
    /// The key was not wrapped to this machine.
    #[error("the user-data was not sealed to machine {0}; create the VM again")]
    NotForThisMachine(String),
    /// The bytes are not those that were sealed, or not for this network and machine.
    #[error(
        "the user-data cannot be opened: it was damaged, or sealed for another network or key; create the VM again"
    )]
    Damaged,
}

impl UserDataError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadMachineKey(_) => "E_MACHINE_KEY",
            Self::NotForThisMachine(_) => "user_data_not_for_machine",
            Self::Damaged => "user_data_damaged",
        }
    }
}

/// Sealed user-data: what goes on the ledger, and the body that travels beside it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// For the ledger.
    pub user_data: UserData,
    /// To be uploaded; `user_data.digest` is its address.
    pub body: Vec<u8>,
}

/// Seals `plaintext` to `machines` (name and node key) of the network `chain`.
///
/// # Errors
/// [`UserDataError::BadMachineKey`].
pub fn seal(
    chain: &Digest,
    plaintext: &[u8],
    machines: &[(String, Key)],
) -> Result<Sealed, UserDataError> {
    let (secret, public) = X25519HkdfSha256::gen_keypair();
    let body = seal_to(&public, BODY, &chain.0, plaintext).ok_or(UserDataError::Damaged)?;
    let digest = Digest(*blake3::hash(&body).as_bytes());
    let mut keys = Vec::with_capacity(machines.len());
    for (machine, node_key) in machines {
        let bad = || UserDataError::BadMachineKey(machine.clone());
        let to = machine_public(node_key).ok_or_else(bad)?;
        let bound = bound_to(chain, &digest, machine);
        let wrapped = seal_to(&to, WRAPPING, &bound, &secret.to_bytes()).ok_or_else(bad)?;
        keys.push(WrappedKey {
            machine: machine.clone(),
            wrapped: hex::encode(wrapped),
        });
    }
    let size_bytes = body.len() as u64;
    Ok(Sealed {
        user_data: UserData {
            digest,
            size_bytes,
            keys,
        },
        body,
    })
}

/// Opens `body` on `machine`, whose node key has the seed `node_seed`.
///
/// # Errors
/// [`UserDataError::NotForThisMachine`], [`UserDataError::Damaged`].
pub fn open(
    chain: &Digest,
    user_data: &UserData,
    body: &[u8],
    machine: &str,
    node_seed: &[u8; 32],
) -> Result<Vec<u8>, UserDataError> {
    let digest = Digest(*blake3::hash(body).as_bytes());
    if digest != user_data.digest {
        return Err(UserDataError::Damaged);
    }
    let key = user_data.keys.iter().find(|key| key.machine == machine);
    let key = key.ok_or_else(|| UserDataError::NotForThisMachine(machine.to_owned()))?;
    let opened = || {
        let node_key = machine_private(node_seed)?;
        let wrapped = hex::decode(&key.wrapped).ok()?;
        let bound = bound_to(chain, &digest, machine);
        let secret = open_with(&node_key, WRAPPING, &bound, &wrapped)?;
        let secret = PrivateKey::from_bytes(&secret).ok()?;
        open_with(&secret, BODY, &chain.0, body)
    };
    opened().ok_or(UserDataError::Damaged)
}

/// A wrapped key is good for one body, one machine and one network.
fn bound_to(chain: &Digest, body: &Digest, machine: &str) -> Vec<u8> {
    [&chain.0[..], &body.0, machine.as_bytes()].concat()
}

fn seal_to(to: &PublicKey, info: &[u8], bound: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    let sealed = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        to,
        info,
        plaintext,
        bound,
    );
    let (encapsulated, ciphertext) = sealed.ok()?;
    Some([&encapsulated.to_bytes()[..], &ciphertext].concat())
}

fn open_with(key: &PrivateKey, info: &[u8], bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        key,
        &encapsulated,
        info,
        ciphertext,
        bound,
    )
    .ok()
}

fn machine_public(node_key: &Key) -> Option<PublicKey> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&node_key.0).ok()?;
    PublicKey::from_bytes(key.to_montgomery().as_bytes()).ok()
}

fn machine_private(node_seed: &[u8; 32]) -> Option<PrivateKey> {
    let key = ed25519_dalek::SigningKey::from_bytes(node_seed);
    PrivateKey::from_bytes(&key.to_scalar_bytes()).ok()
}

#[cfg(test)]
#[path = "user_data_tests.rs"]
mod tests;
