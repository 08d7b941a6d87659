//! What an instance is asked to be: pure data, and the checks that need no I/O.
//!
//! Nothing here touches the file system or a process.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::VmmError;

/// Most vCPUs one instance may ask for.
pub const VCPUS_MAX: u32 = 64;
/// Least memory an instance may ask for, MiB.
pub const MEMORY_MIB_MIN: u64 = 64;
/// Most memory an instance may ask for, MiB.
pub const MEMORY_MIB_MAX: u64 = 4 * 1024 * 1024;
/// Largest disk an instance may ask for, MiB (64 TiB).
pub const DISK_MIB_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes of customer's user-data a seed carries.
pub const USER_DATA_BYTES_MAX: usize = 512 * 1024;
/// Most authorised ssh keys a seed carries.
pub const SSH_KEYS_MAX: usize = 64;

/// Names one incarnation of a VM on this host: the VM's id on the ledger and the lease epoch that fences older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// Id of the VM on the ledger.
    pub vm: u64,
    /// The counter that fences older claims to the same VM.
    pub lease_epoch: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.vm, self.lease_epoch)
    }
}

impl FromStr for InstanceId {
    type Err = ();

    /// Reads exactly the form that `Display` writes (no signs, no leading zeros).
    fn from_str(text: &str) -> Result<Self, ()> {
        let (vm, epoch) = text.split_once('-').ok_or(())?;
        let id = Self {
            vm: vm.parse().map_err(|_| ())?,
            lease_epoch: epoch.parse().map_err(|_| ())?,
        };
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(())
        }
    }
}

/// Which hypervisor back end the customer or operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM where it truly works on this host, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Which back end an instance runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// The machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// PCIe machine that every operating system knows.
    #[default]
    Q35,
    /// Minimal machine of virtio-mmio devices, direct kernel boot only.
    Microvm,
}

/// Format of a disk image. Always declared, never probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Bytes of the disk as they are.
    Raw,
    /// QEMU copy-on-write, version 2 or 3, without backing or data file.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name of the format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Firmware of a disk boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF (Debian package `ovmf`).
    Uefi,
}

/// What an instance boots from. Paths are on this host and stay immutable while the instance exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootSource {
    /// Kernel and initial RAM disk are loaded by QEMU; the instance's own disk is blank.
    Direct {
        /// Linux kernel (bzImage).
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// Firmware boots an overlay over this image.
    Disk {
        /// The image.
        base: PathBuf,
        /// Its declared format.
        format: DiskFormat,
        /// Firmware to boot it with.
        firmware: Firmware,
    },
}

/// What the guest learns from its NoCloud seed disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// DNS label.
    pub hostname: String,
    /// cloud-init's instance id: a new one makes the guest run its first-boot steps again.
    pub instance_id: String,
    /// OpenSSH public keys (one line each) that may log in.
    pub ssh_authorized_keys: Vec<String>,
    /// OpenSSH private key (PEM) that the guest's ssh server shall show. Made anew per lease epoch.
    pub ssh_host_key_pem: String,
    /// The customer's user-data, passed to the guest as it is.
    pub user_data: Option<String>,
}

// The private key must not end up in a log by way of `{:?}`.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("hostname", &self.hostname)
            .field("instance_id", &self.instance_id)
            .field("ssh_authorized_keys", &self.ssh_authorized_keys.len())
            .field("user_data_bytes", &self.user_data.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}

/// Everything the host needs to run one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Which instance.
    pub id: InstanceId,
    /// The VM's name (unique per account).
    pub name: String,
    /// The account that owns it.
    pub account: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB. Never smaller than the image's own size.
    pub disk_mib: u64,
    /// What it boots.
    pub boot: BootSource,
    /// What the guest is told.
    pub seed: Seed,
    /// Asked accelerator.
    #[serde(default)]
    pub accel: AccelChoice,
    /// Machine type.
    #[serde(default)]
    pub profile: Profile,
}

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

impl InstanceSpec {
    /// Refuses what no host could run or what could leave the box of its seed or command line.
    ///
    /// # Errors
    /// [`VmmError::InvalidSpec`] with the field and the reason.
    pub fn check(&self) -> Result<(), VmmError> {
        let refuse =
            |field: &'static str, reason: String| Err(VmmError::InvalidSpec { field, reason });
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return refuse(
                "vcpus",
                format!("{} is not within 1..={VCPUS_MAX}", self.vcpus),
            );
        }
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&self.memory_mib) {
            return refuse(
                "memory_mib",
                format!(
                    "{} is not within {MEMORY_MIB_MIN}..={MEMORY_MIB_MAX}",
                    self.memory_mib
                ),
            );
        }
        if self.disk_mib > DISK_MIB_MAX {
            return refuse(
                "disk_mib",
                format!("{} is above {DISK_MIB_MAX}", self.disk_mib),
            );
        }
        if !is_dns_label(&self.seed.hostname) {
            return refuse(
                "hostname",
                format!("{:?} is not a DNS label", self.seed.hostname),
            );
        }
        if self.seed.instance_id.is_empty()
            || self.seed.instance_id.len() > 128
            || !self
                .seed
                .instance_id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        {
            return refuse(
                "instance_id",
                "wants 1 to 128 of A-Z a-z 0-9 - _ . :".into(),
            );
        }
        if self.seed.ssh_authorized_keys.len() > SSH_KEYS_MAX {
            return refuse("ssh_keys", format!("more than {SSH_KEYS_MAX} keys"));
        }
        for (index, key) in self.seed.ssh_authorized_keys.iter().enumerate() {
            if let Err(error) = ssh_key::PublicKey::from_openssh(key) {
                return refuse(
                    "ssh_keys",
                    format!("key {index} is not an OpenSSH public key: {error}"),
                );
            }
        }
        match ssh_key::PrivateKey::from_openssh(&self.seed.ssh_host_key_pem) {
            Ok(key) if key.algorithm() == ssh_key::Algorithm::Ed25519 && !key.is_encrypted() => {}
            _ => {
                return refuse(
                    "ssh_host_key",
                    "is not a plain OpenSSH ed25519 private key".into(),
                );
            }
        }
        if self
            .seed
            .user_data
            .as_ref()
            .is_some_and(|d| d.len() > USER_DATA_BYTES_MAX)
        {
            return refuse(
                "user_data",
                format!("is longer than {USER_DATA_BYTES_MAX} bytes"),
            );
        }
        match &self.boot {
            BootSource::Direct { cmdline, .. }
                if cmdline.len() > 2048 || cmdline.chars().any(char::is_control) =>
            {
                refuse(
                    "cmdline",
                    "is longer than 2048 bytes or holds control characters".into(),
                )
            }
            BootSource::Disk { .. } if self.profile == Profile::Microvm => refuse(
                "profile",
                "microvm boots a kernel directly; a disk image wants q35".into(),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
pub(crate) mod tests;
