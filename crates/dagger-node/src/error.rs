//! Errors a node ends or refuses with: a stable code for programs, a text that tells people what to do.
//!
//! Errors of one operation stay with it (store, transport, images); here are only those that cross
//! the crate's border.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process holds the lock of the data directory.
    #[error("the data directory {} is in use by another node (pid {pid}); stop that one or give this one its own directory", .dir.display())]
    DataDirLocked {
        /// The directory.
        dir: PathBuf,
        /// Process that holds it, as it wrote it down ("unknown" if it did not).
        pid: String,
    },
    /// The data directory or a peer belongs to another network.
    #[error("{} holds data of network {found}, but genesis.json says {expected}; use the directory of that network or an empty one", .dir.display())]
    WrongNetwork {
        /// The directory.
        dir: PathBuf,
        /// Chain id the data was written under.
        found: String,
        /// Chain id of the genesis file.
        expected: String,
    },
    /// The data directory was written by a later version of this program.
    #[error("{} has format {found}, this program knows up to {known}; upgrade the program (nothing was touched)", .path.display())]
    NewerFormat {
        /// The file or directory.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format this program reads.
        known: u32,
    },
    /// The data directory was written by an earlier version of this program, before the first release.
    #[error("{} has format {found}, which this program no longer reads (it writes {known}); keep it for the program that wrote it and give this node an empty directory (nothing was touched)", .path.display())]
    OlderFormat {
        /// The directory.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Format this program reads and writes.
        known: u32,
    },
    /// An epoch is under rules that this program does not know.
    #[error(
        "epoch {epoch} is under protocol version {needed}, and this program knows up to {known}; install a newer program and start the node again: it goes on from where it stopped, nothing was lost"
    )]
    NewerProtocol {
        /// The epoch that this node does not enter.
        epoch: u64,
        /// Version of its rules.
        needed: u32,
        /// Newest version that this program knows.
        known: u32,
    },
    /// The logs that lead from the ledger on disk to the present epoch are gone.
    #[error(
        "the event logs from epoch {from} to {to} are not all there; a snapshot from a peer makes up for them"
    )]
    HistoryMissing {
        /// Epoch of the ledger on disk.
        from: u64,
        /// The present epoch.
        to: u64,
    },
    /// An address is taken.
    #[error(
        "{what} address {addr} is in use; stop the program that holds it or change `{key}` in node.toml"
    )]
    PortInUse {
        /// Which service.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Name of the setting.
        key: &'static str,
    },
    /// Another process signs with this node's consensus key or runs under its node key.
    #[error(
        "another node uses this node's key ({detail}); two nodes with one key would contradict each other: stop one, and never copy a data directory of a member"
    )]
    DuplicateKey {
        /// What was seen.
        detail: String,
    },
    /// This node's state differs from what a quorum certified.
    #[error("this node's state differs from the certified one ({detail}); evidence is in {}; do not restart it before looking at that", .evidence.display())]
    Diverged {
        /// Both roots.
        detail: String,
        /// File with the evidence.
        evidence: PathBuf,
    },
    /// No space (or quota) left.
    #[error("the disk of {} is full; the node stopped before anything was lost: free space and start it again", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged at byte {offset}: {detail}; start with an empty directory, as a member under a new consensus key", .path.display())]
    StoreDamaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What does not fit.
        detail: String,
    },
    /// The event log of an epoch that must be read back is damaged.
    #[error("{} is damaged at byte {offset}: {detail}; peers are asked for what is lost", .path.display())]
    LogDamaged {
        /// The epoch.
        epoch: u64,
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What does not fit.
        detail: String,
    },
    /// Events that this node has signed cannot be read, or it cannot be told that none is lost.
    #[error(
        "{} is damaged at byte {offset}, and what is lost there is, or may be, an event that this node signed: it could contradict itself, so its key must not sign again. Make another consensus key (keys/consensus-2.json), name it on the ledger (`dagger operator keys --consensus-key`), take the old key's file out of keys/ and start the node: the log is then healed from peers, and the next epoch seats the new key. Do not restore events/ from a backup",
        .path.display()
    )]
    OwnEventDamaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// The configuration or a key file cannot be used.
    #[error("{}: {detail}", .path.display())]
    ConfigInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// A system call failed in a way none of the other codes covers.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The network could not be set up.
    #[error("cannot set up the network: {0}")]
    Transport(String),
    /// A piece of the node ended that must not.
    #[error("{0}; this is a bug: please report it with the log")]
    Internal(String),
}

impl NodeError {
    /// Stable code, also the first word the log says about it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DataDirLocked { .. } => "E_DATA_DIR_LOCKED",
            Self::WrongNetwork { .. } => "E_WRONG_NETWORK",
            Self::NewerFormat { .. } => "E_NEWER_FORMAT",
            Self::OlderFormat { .. } => "E_OLDER_FORMAT",
            Self::NewerProtocol { .. } => "E_NEWER_PROTOCOL",
            Self::HistoryMissing { .. } => "E_HISTORY_MISSING",
            Self::PortInUse { .. } => "E_PORT_IN_USE",
            Self::DuplicateKey { .. } => "E_DUPLICATE_KEY",
            Self::Diverged { .. } => "E_DIVERGED",
            Self::DiskFull { .. } => "E_DISK_FULL",
            Self::StoreDamaged { .. } | Self::LogDamaged { .. } => "E_STORE_DAMAGED",
            Self::OwnEventDamaged { .. } => "E_OWN_EVENT_DAMAGED",
            Self::ConfigInvalid { .. } => "E_CONFIG_INVALID",
            Self::Io { .. } => "E_IO",
            Self::Transport(_) => "E_TRANSPORT",
            Self::Internal(_) => "E_INTERNAL",
        }
    }

    /// Says in which epoch's log damage was found.
    pub(crate) fn in_log(self, epoch: u64) -> Self {
        match self {
            Self::StoreDamaged {
                path,
                offset,
                detail,
            } => Self::LogDamaged {
                epoch,
                path,
                offset,
                detail,
            },
            other => other,
        }
    }

    /// Wraps an I/O error: a full disk gets its own code.
    pub fn io(what: impl fmt::Display, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return Self::DiskFull {
                path: path.to_owned(),
            };
        }
        Self::Io {
            what: format!("cannot {what} {}", path.display()),
            source,
        }
    }
}

/// Why a transaction was not taken. Nothing of it has entered the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct SubmitError {
    /// Stable code: one of the ledger's reject codes, or `E_POOL_FULL`, `E_TIMEOUT`, `E_STOPPING`.
    pub code: String,
    /// What to do about it.
    pub text: String,
}

impl SubmitError {
    /// A submit error of these parts.
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            text: text.into(),
        }
    }
}
