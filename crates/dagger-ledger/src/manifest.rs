//! Image manifests: what an image is made of, by digest. The blobs themselves travel outside the ledger.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::action::Arch;
use crate::code::Code;
use crate::ids::Digest;
use crate::names::check_text;

/// Largest blob of an image: 1 TiB.
pub const BLOB_BYTES_MAX: u64 = 1 << 40;

/// What an image is made of.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// Architecture of the guest.
    pub arch: Arch,
    /// How it boots.
    pub boot: Boot,
}

/// How an image boots. In JSON `{"direct": {...}}` or `{"disk": {...}}`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// The hypervisor loads a kernel.
    Direct(DirectBoot),
    /// Firmware boots a disk.
    Disk(DiskBoot),
}

/// See [`Boot::Direct`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectBoot {
    /// The kernel.
    pub kernel: Blob,
    /// The initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Blob>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// See [`Boot::Disk`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskBoot {
    /// The disk.
    pub blob: Blob,
    /// Its format; never probed.
    pub format: DiskFormat,
    /// What boots it.
    pub firmware: Firmware,
}

/// A content-addressed file.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// BLAKE3 digest of the bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// Format of a disk blob.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format, without backing or data files.
    Qcow2,
}

/// Firmware that boots a disk.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF or the Arm equivalent.
    Uefi,
}

impl ImageManifest {
    /// The digest that a VM's creator signs: BLAKE3 (`derive_key("dagger image manifest v1")`) over the borsh form.
    pub fn digest(&self) -> Digest {
        Digest(blake3::derive_key(
            "dagger image manifest v1",
            &crate::hash::encode(self),
        ))
    }

    /// The blobs it names.
    pub fn blobs(&self) -> Vec<Blob> {
        match &self.boot {
            Boot::Direct(direct) => std::iter::once(direct.kernel)
                .chain(direct.initrd)
                .collect(),
            Boot::Disk(disk) => vec![disk.blob],
        }
    }

    pub(crate) fn check(&self) -> Result<(), Code> {
        if self
            .blobs()
            .iter()
            .any(|b| b.size_bytes == 0 || b.size_bytes > BLOB_BYTES_MAX)
        {
            return Err(Code::OutOfRange);
        }
        match &self.boot {
            Boot::Direct(direct) => check_text(&direct.cmdline, 2_048),
            Boot::Disk(_) => Ok(()),
        }
    }
}
