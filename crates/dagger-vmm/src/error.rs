//! Errors of the host's operations: each has a stable code and a text that says what to do.

use std::io;
use std::path::PathBuf;

use crate::spec::InstanceId;

/// Why an operation on an instance failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// The specification asks for something no host can give.
    #[error("the VM's {field} {reason}; correct it and create the VM again")]
    InvalidSpec {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// QEMU is not installed.
    #[error(
        "{program} is not installed on this host; install it (Debian: apt-get install {package})"
    )]
    QemuMissing {
        /// The program looked for.
        program: String,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// No such instance here.
    #[error("instance {0} is not on this host; list the instances and use one of them")]
    NotFound(InstanceId),
    /// An instance of this id exists with another specification.
    #[error(
        "instance {0} exists already with another specification; remove it first or raise the lease epoch"
    )]
    Exists(InstanceId),
    /// The instance runs, and this wants it stopped.
    #[error("instance {0} is running; stop it first")]
    Running(InstanceId),
    /// The instance does not run, and this wants it up.
    #[error("instance {0} is not running; start it first")]
    NotRunning(InstanceId),
    /// The lease deadline handed over is already past.
    #[error("the lease of instance {0} has run out already; wait until the ledger renews it")]
    LeaseExpired(InstanceId),
    /// The disk image cannot be used.
    #[error("image {} is refused: {reason}; publish it again as raw, or as qcow2 without backing or data file", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the instance needs is missing.
    #[error("{what} {} is missing: {source}; fetch the image again", path.display())]
    ImageMissing {
        /// Kernel, initrd, or disk image.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The host's disk is full.
    #[error("the disk that holds {} is full; free space or move the node's data directory", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The shim did not come up.
    #[error("the shim of instance {id} did not start: {reason}; see {}", log.display())]
    ShimFailed {
        /// Which instance.
        id: InstanceId,
        /// What is known.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The shim holds its lock but does not answer.
    #[error(
        "the shim of instance {id} does not answer ({reason}); it may be frozen: look at its process, or remove the instance"
    )]
    ShimSilent {
        /// Which instance.
        id: InstanceId,
        /// What is known.
        reason: String,
    },
    /// The guest's port cannot be reached.
    #[error(
        "port {port} of instance {id} cannot be reached: {reason}; is a server listening in the guest?"
    )]
    Dial {
        /// Which instance.
        id: InstanceId,
        /// Port in the guest.
        port: u16,
        /// What is known.
        reason: String,
    },
    /// The file system refused.
    #[error("{doing} {} failed: {source}; check the permissions and the disk of the node's data directory", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

impl VmmError {
    /// Stable code for machines: appears in the API and on the ledger.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSpec { .. } => "E_VM_SPEC_INVALID",
            Self::QemuMissing { .. } => "E_QEMU_MISSING",
            Self::NotFound(_) => "E_INSTANCE_NOT_FOUND",
            Self::Exists(_) => "E_INSTANCE_EXISTS",
            Self::Running(_) => "E_INSTANCE_RUNNING",
            Self::NotRunning(_) => "E_INSTANCE_NOT_RUNNING",
            Self::LeaseExpired(_) => "E_LEASE_EXPIRED",
            Self::BadImage { .. } => "E_IMAGE_REFUSED",
            Self::ImageMissing { .. } => "E_IMAGE_MISSING",
            Self::DiskFull { .. } => "E_DISK_FULL",
            Self::ShimFailed { .. } => "E_SHIM_FAILED",
            Self::ShimSilent { .. } => "E_SHIM_SILENT",
            Self::Dial { .. } => "E_GUEST_UNREACHABLE",
            Self::Io { .. } => "E_HOST_IO",
        }
    }

    /// Wraps an I/O error, telling a full disk from other failures.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded
        {
            return Self::DiskFull { path };
        }
        Self::Io {
            doing,
            path,
            source,
        }
    }
}
