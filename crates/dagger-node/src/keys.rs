//! Key files: `keys/{operator,node,consensus}.json`, mode 0600, one key each.
//!
//! Must not live here: what the keys are used for.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use ed25519_zebra::SigningKey;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// What a key is for. A key is never used for two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Cold: signs an operator's transactions.
    Operator,
    /// Identity on the network; signs the machine's reports and the member's attestations.
    Node,
    /// Signs events and checkpoint votes.
    Consensus,
    /// A customer's account.
    Account,
}

impl KeyKind {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
            Self::Consensus => "consensus",
            Self::Account => "account",
        }
    }
}

/// A key with its kind, as a key file holds it.
#[derive(Clone)]
pub struct Key {
    /// What it is for.
    pub kind: KeyKind,
    /// The key.
    pub signing: SigningKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kind: KeyKind,
    public: String,
    secret: String,
}

impl Key {
    /// A fresh key from the system's randomness.
    pub fn generate(kind: KeyKind) -> Self {
        let mut seed = [0u8; 32];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut seed);
        Self {
            kind,
            signing: SigningKey::from(seed),
        }
    }

    /// Public half, 64 hex digits.
    pub fn public_hex(&self) -> String {
        hex::encode(self.signing.verification_key())
    }

    /// Public half.
    pub fn public(&self) -> [u8; 32] {
        self.signing.verification_key().into()
    }

    /// Writes the key to a new file that only its owner can read.
    ///
    /// # Errors
    /// `E_IO` if the file exists already: a key is never overwritten.
    pub fn save_new(&self, path: &Path) -> Result<(), NodeError> {
        let file = KeyFile {
            kind: self.kind,
            public: self.public_hex(),
            secret: hex::encode(self.signing.to_bytes()),
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| NodeError::io("create", dir, e))?;
        }
        let mut text = serde_json::to_string_pretty(&file).expect("a key file is plain data");
        text.push('\n');
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
            .map_err(|e| NodeError::io("write the new key file", path, e))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// `E_CONFIG_INVALID` if it is of another kind, its halves do not belong together, or others may read it.
    pub fn load(path: &Path, kind: KeyKind) -> Result<Self, NodeError> {
        let invalid = |detail: String| NodeError::ConfigInvalid {
            path: path.to_owned(),
            detail,
        };
        let text = fs::read_to_string(path)
            .map_err(|e| invalid(format!("cannot read the {} key: {e}", kind.name())))?;
        let mode = fs::metadata(path)
            .map_err(|e| NodeError::io("look at", path, e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(invalid(format!(
                "others may read this key (mode {:o}); run: chmod 600 {}",
                mode & 0o777,
                path.display()
            )));
        }
        let file: KeyFile =
            serde_json::from_str(&text).map_err(|e| invalid(format!("not a key file: {e}")))?;
        if file.kind != kind {
            return Err(invalid(format!(
                "this is a key of kind {}, not {}",
                file.kind.name(),
                kind.name()
            )));
        }
        let mut seed = [0u8; 32];
        hex::decode_to_slice(&file.secret, &mut seed)
            .map_err(|_| invalid("`secret` is not 64 hex digits".into()))?;
        let key = Self {
            kind,
            signing: SigningKey::from(seed),
        };
        if key.public_hex() != file.public {
            return Err(invalid("`public` does not belong to `secret`".into()));
        }
        Ok(key)
    }
}
