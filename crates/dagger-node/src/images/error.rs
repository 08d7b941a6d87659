//! Why an image blob could not be had or kept, with stable codes. No behaviour lives here.

use std::io;

/// A failure of the image store. `code()` is stable; the text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// Bytes did not hash to the digest that was asked for.
    #[error(
        "the data does not match the image digest: {0}; publish the image again from a good copy"
    )]
    DigestMismatch(String),
    /// The blob has another size than the ledger says.
    #[error(
        "the blob's size differs from the one in the image manifest: {0}; publish the image again"
    )]
    SizeMismatch(String),
    /// No node that could be asked has the blob.
    #[error("no reachable node holds the blob: {0}; upload it again with `dagger image add`")]
    Unavailable(String),
    /// Nodes have it, but the transfer did not finish. Worth trying again; what arrived is kept.
    #[error("the transfer of the blob was interrupted: {0}; it resumes where it stopped")]
    Interrupted(String),
    /// The image cache is full of blobs that are in use or were uploaded here.
    #[error(
        "the image store is full ({used} of {max} bytes, none of it evictable); remove images or raise its limit"
    )]
    StoreFull {
        /// Bytes held now.
        used: u64,
        /// The configured bound in bytes.
        max: u64,
    },
    /// The file system has no room.
    #[error("the disk of the image store is full; free space and try again")]
    DiskFull,
    /// Any other local failure.
    #[error("the image store failed: {0}")]
    Io(String),
}

impl ImageError {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            ImageError::DigestMismatch(_) => "image_digest_mismatch",
            ImageError::SizeMismatch(_) => "image_size_mismatch",
            ImageError::Unavailable(_) => "image_unavailable",
            ImageError::Interrupted(_) => "image_transfer_interrupted",
            ImageError::StoreFull { .. } => "image_store_full",
            ImageError::DiskFull => "disk_full",
            ImageError::Io(_) => "image_store_failed",
        }
    }

    /// Whether the same call may succeed later without anybody changing the image.
    pub fn is_transient(&self) -> bool {
        !matches!(self, ImageError::SizeMismatch(_))
    }
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull,
            _ => ImageError::Io(error.to_string()),
        }
    }
}
