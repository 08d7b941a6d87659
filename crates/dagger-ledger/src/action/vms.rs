//! What a customer asks of virtual machines, how they are to be placed, and what their hosts report of them.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::Labels;
use crate::ids::{Digest, VmId};

/// Fields of the action `vm_create`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// Name within the account, a DNS label.
    pub name: String,
    /// `account/name`, or `name` of an own image.
    pub image: String,
    /// Digest of the image's manifest: what the customer signed is what boots.
    pub image_digest: Digest,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB.
    pub disk_mib: u64,
    /// OpenSSH public keys that may log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Commitment to sealed user-data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// What happens when its machine is lost.
    #[serde(default)]
    pub failover: Failover,
    /// What its machine does when it no longer sees the lease renewed.
    #[serde(default)]
    pub on_isolation: OnIsolation,
    /// What happens when it stops of itself.
    #[serde(default, skip_serializing_if = "Restart::is_never")]
    pub restart: Restart,
    /// VMs of the account with the same word are spread over operators among themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// TCP ports of the guest that its machine opens to everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
}

/// A TCP port of a guest that its machine opens to everybody.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Port of the guest.
    pub guest_port: u16,
    /// Port of the machine; without one the machine chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

/// A VM of the signing account, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmName {
    /// Name within the account.
    pub vm: String,
}

/// Fields of the action `vm_rename`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRename {
    /// Present name.
    pub vm: String,
    /// New name.
    pub name: String,
}

/// Fields of the action `vm_resize`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmResize {
    /// Name of the VM.
    pub vm: String,
    /// New number of virtual CPUs.
    pub vcpus: u32,
    /// New memory, MiB.
    pub memory_mib: u64,
    /// New disk, MiB; a disk never shrinks.
    pub disk_mib: u64,
}

/// Fields of the action `vm_place`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmPlace {
    /// Name of the VM.
    pub vm: String,
    /// Where it may run from now on; all of it, not only what changes.
    #[serde(default)]
    pub placement: Placement,
}

/// Fields of the action `vm_dispute`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDispute {
    /// Name of the VM.
    pub vm: String,
    /// What is wrong with it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim: String,
}

/// Fields of the action `vm_probe`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmProbe {
    /// The VM.
    pub vm: VmId,
    /// The lease epoch that was disputed.
    pub lease_epoch: u64,
    /// It answered.
    pub reached: bool,
    /// What was seen, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// User-data never stands in the clear on the ledger: only its digest does, and its key wrapped to the machines named.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct UserData {
    /// BLAKE3 digest of the sealed body, which travels as a blob.
    pub digest: Digest,
    /// Size of the sealed body.
    pub size_bytes: u64,
    /// The content key, wrapped to each candidate machine; placement keeps to these machines.
    pub keys: Vec<WrappedKey>,
}

/// A content key wrapped to one machine's node key.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// Name of the machine.
    pub machine: String,
    /// The wrapped key, hex.
    pub wrapped: String,
}

/// Architecture of a guest.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }
}

/// What happens to a VM whose machine is lost.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Failover {
    /// It waits for its machine; the disk is kept.
    #[default]
    None,
    /// It starts anew from its image on another machine.
    Recreate,
}

/// What a machine does with a VM when it no longer sees its lease renewed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OnIsolation {
    /// Stops it before another machine may start it.
    #[default]
    Stop,
    /// Lets it run; only with `failover = none`.
    Keep,
}

/// What happens when a VM stops of itself: its guest powers off, or it breaks.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// It stays off.
    #[default]
    Never,
    /// It starts again if it broke.
    OnFailure,
    /// It starts again, also after its guest powered off.
    Always,
}

impl Restart {
    /// True for the default.
    pub fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

/// Where a VM may run. Empty lists allow everything.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Only these machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
    /// Only these operators' machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// Only machines with one of these `region` labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Never these machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_machines: Vec<String>,
    /// Never these operators' machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_operators: Vec<String>,
    /// Never machines with one of these `region` labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_regions: Vec<String>,
}

impl Placement {
    /// True when it restricts nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn lists(&self) -> [&Vec<String>; 6] {
        [
            &self.machines,
            &self.operators,
            &self.regions,
            &self.deny_machines,
            &self.deny_operators,
            &self.deny_regions,
        ]
    }
}

/// Fields of the action `vm_report`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmReport {
    /// The VM.
    pub vm: VmId,
    /// The lease epoch that the machine acts under.
    pub lease_epoch: u64,
    /// What happened.
    pub report: Report,
}

/// What a machine says about a VM. In JSON `{"accepted": {...}}` and so on.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It takes the placement. A machine starts a VM only once this report has been executed.
    Accepted(Accepted),
    /// Its hypervisor runs; the guest is not up yet.
    Starting(Starting),
    /// The guest is up.
    Running(Running),
    /// It does not run any more. While the VM is being deleted or moved: and its disk is released.
    Stopped(Ended),
    /// It could not be started, or broke.
    Failed(Ended),
}

/// Fields of the report `accepted`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The guest's OpenSSH public host key, made anew for this lease epoch.
    pub ssh_host_key: String,
}

/// Fields of the report `starting`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Starting {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub reason: String,
    /// Where the image came from.
    pub image_source: String,
}

/// Fields of the report `running`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// An address the guest can be reached at, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What became of the ports that it is to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// What became of a port that is to be published: where it is open, or why it is not.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Port of the guest.
    pub guest_port: u16,
    /// Address and port of the machine that lead there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Ended>,
}

/// Why a VM stopped or failed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Short stable code of the machine's.
    pub code: String,
    /// For people.
    pub text: String,
}
