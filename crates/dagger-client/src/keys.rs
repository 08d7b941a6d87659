//! Secret keys and the files that hold them.
//!
//! A key file is JSON, `{"kind","public","secret"}`, readable by its owner alone. Other kinds of key
//! (the daemon's) use the same form.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An ed25519 secret key. Its `Debug` form shows the public half only.
#[derive(Clone)]
pub struct SecretKey(ed25519_zebra::SigningKey);

impl SecretKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        fill_random(&mut seed);
        Self::from_bytes(seed)
    }

    /// The key with this seed.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(ed25519_zebra::SigningKey::from(seed))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verification_key().into()
    }

    /// Signs `message` as it stands; the caller has prefixed it with its domain.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The key in the form that the ledger's library signs with.
    pub fn signing(&self) -> &ed25519_zebra::SigningKey {
        &self.0
    }

    /// The seed itself. For key files and for libraries that must sign by themselves.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", hex::encode(self.public()))
    }
}

/// Fills `buffer` from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give; nothing could go on safely.
pub(crate) fn fill_random(buffer: &mut [u8]) {
    use rand::TryRng as _;
    rand::rngs::SysRng
        .try_fill_bytes(buffer)
        .expect("the operating system gives randomness");
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// A customer's.
    Account,
    /// An operator's: signs the operator's transactions, is kept offline.
    Operator,
    /// A node's: its identity on the network; signs its reports.
    Node,
    /// A member's: signs events and checkpoints.
    Consensus,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Account => "account",
            KeyKind::Operator => "operator",
            KeyKind::Node => "node",
            KeyKind::Consensus => "consensus",
        })
    }
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no key file {0}")]
    Missing(PathBuf),
    /// There is one already; a key is never overwritten.
    #[error(
        "{0} exists already; a key file is never overwritten: choose another name or move it away"
    )]
    Exists(PathBuf),
    /// The file system said no.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error("key file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key file.
    #[error("{path} is not a key file ({why})")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key for something else.
    #[error("{path} holds {found} key, not {wanted} key", found = article(*.found), wanted = article(*.wanted))]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: KeyKind,
        /// What was asked for.
        wanted: KeyKind,
    },
}

impl KeyFileError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            KeyFileError::Missing(_) => "E_KEY_MISSING",
            KeyFileError::Exists(_) => "E_KEY_EXISTS",
            KeyFileError::Io { .. } => "E_KEY_IO",
            KeyFileError::Exposed { .. } => "E_KEY_EXPOSED",
            KeyFileError::Malformed { .. } => "E_KEY_MALFORMED",
            KeyFileError::Kind { .. } => "E_KEY_KIND",
        }
    }
}

fn article(kind: KeyKind) -> String {
    match kind {
        KeyKind::Account | KeyKind::Operator => format!("an {kind}"),
        KeyKind::Node | KeyKind::Consensus => format!("a {kind}"),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kind: KeyKind,
    public: String,
    secret: String,
}

/// Writes a key file that only its owner can read. Whole or not at all, and never over another file.
///
/// # Errors
/// [`KeyFileError::Exists`] when `path` does, [`KeyFileError::Io`] when the file system refuses.
pub fn write(path: &Path, kind: KeyKind, key: &SecretKey) -> Result<(), KeyFileError> {
    let io_error = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = KeyFile {
        kind,
        public: hex::encode(key.public()),
        secret: hex::encode(key.expose()),
    };
    let mut text = serde_json::to_string_pretty(&file).expect("a key file is plain JSON");
    text.push('\n');
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A temporary file of that crate has mode 0600 from the start.
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(io_error)?;
    temporary.write_all(text.as_bytes()).map_err(io_error)?;
    temporary.as_file().sync_all().map_err(io_error)?;
    temporary
        .persist_noclobber(path)
        .map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
            _ => io_error(error.error),
        })?;
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error)
}

/// Reads the key of `kind` from a key file.
///
/// # Errors
/// See [`KeyFileError`]; among others when the file can be read by other users.
pub fn read(path: &Path, kind: KeyKind) -> Result<SecretKey, KeyFileError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => KeyFileError::Io {
            path: path.to_owned(),
            source,
        },
    };
    check_mode(path, &std::fs::metadata(path).map_err(io_error)?)?;
    let text = std::fs::read_to_string(path).map_err(io_error)?;
    let malformed = |why: &str| KeyFileError::Malformed {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let file: KeyFile =
        serde_json::from_str(&text).map_err(|error| malformed(&error.to_string()))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(&file.secret, &mut seed)
        .map_err(|_| malformed("the secret is not 64 hex characters"))?;
    let key = SecretKey::from_bytes(seed);
    if file.public != hex::encode(key.public()) {
        return Err(malformed("the public key does not belong to the secret"));
    }
    if file.kind != kind {
        return Err(KeyFileError::Kind {
            path: path.to_owned(),
            found: file.kind,
            wanted: kind,
        });
    }
    Ok(key)
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
