//! The guest's ssh host key: made by the host, anew per lease epoch.

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// Makes an ed25519 ssh host key from 32 secret bytes.
///
/// Returns the private key in OpenSSH's PEM form and the public key as one line (`ssh-ed25519 AAAA...`).
///
/// # Panics
/// Never: both encodings of a fresh ed25519 key are infallible.
pub fn new_ssh_host_key(seed32: [u8; 32]) -> (String, String) {
    let pair = Ed25519Keypair::from_seed(&seed32);
    let key =
        PrivateKey::new(KeypairData::Ed25519(pair), "").expect("an ed25519 pair is a valid key");
    let private = key.to_openssh(LineEnding::LF).expect("a plain key encodes");
    let public = key.public_key().to_openssh().expect("a public key encodes");
    (private.to_string(), public)
}
