//! What a transaction can ask for: the kinds of action with their fields, as they stand in the signed JSON.
//! Which key may ask for what is decided at execution; the forms of values are checked in `action_check.rs`.

mod operators;

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Key, MachineId, VmId};
use crate::manifest::ImageManifest;

pub use operators::*;

/// Labels: DNS labels to short texts.
pub type Labels = BTreeMap<String, String>;

/// One kind of action. In JSON `{"kind": {fields}}`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "one action a transaction, and that is behind an Arc"
)]
pub enum Action {
    /// Operator: sponsors a customer's account.
    AccountCreate(AccountCreate),
    /// Operator: adds one of its machines.
    MachineAdd(MachineAdd),
    /// Operator: no new VMs on the machine; those that may move are moved one by one.
    MachineDrain(MachineName),
    /// Operator: ends a drain.
    MachineUndrain(MachineName),
    /// Operator: takes an empty machine out.
    MachineRemove(MachineName),
    /// Operator: another capacity or other labels for one of its machines.
    MachineUpdate(MachineUpdate),
    /// Operator: proposes a change that needs a quorum of operators' votes; its own vote is in it.
    Propose(Propose),
    /// Operator: votes on an open proposal.
    Vote(Vote),
    /// Operator: other keys for itself; the old ones mean nothing any more.
    OperatorKeys(OperatorKeys),
    /// Operator: gives up its seat with the next epoch and its say at once; its machines drain.
    OperatorLeave(OperatorLeave),
    /// Operator: another node key for one of its machines.
    MachineKey(MachineKey),
    /// Anybody: proof that a member signed two events of one round; it loses its seat with the next epoch.
    Equivocation(Equivocation),
    /// Operator: the most that an account it sponsors may have.
    AccountQuota(AccountQuota),
    /// Account: another key for the account.
    AccountRotate(AccountRotate),
    /// Account: lets another key do some of what the account may do, for a time.
    KeyDelegate(KeyDelegate),
    /// Account: takes a delegated key back.
    KeyRevoke(KeyRevoke),
    /// Node of a member or machine: its operator holds a verified copy of an image.
    ImageAttest(ImageAttest),
    /// Account: publishes an image under its name.
    ImagePublish(ImagePublish),
    /// Account: which other accounts may make VMs from a private image.
    ImageShare(ImageShare),
    /// Account: no new VMs from the image.
    ImageRetire(ImageName),
    /// Account: a new VM.
    VmCreate(VmCreate),
    /// Account: removes a VM and its disk.
    VmDelete(VmName),
    /// Account: stops a VM; it keeps its place and disk.
    VmStop(VmName),
    /// Account: starts a stopped VM.
    VmStart(VmName),
    /// Account: restarts a running VM.
    VmReboot(VmName),
    /// Account: another name for a VM.
    VmRename(VmRename),
    /// Account: another size for a stopped VM, on its machine.
    VmResize(VmResize),
    /// Account: another placement for a VM; it moves if its machine is not within it.
    VmPlace(VmPlace),
    /// Operator: sponsors an account whose sponsor is gone.
    AccountAdopt(AccountName),
    /// Account: claims that a VM cannot be reached although its machine reports it as running; rivals probe it.
    VmDispute(VmDispute),
    /// Node of a member that was drawn: whether it reached a disputed VM.
    VmProbe(VmProbe),
    /// Node of the machine: what happened to a VM there.
    VmReport(VmReport),
    /// Node of a member: changes of what it hears.
    Attest(Attest),
}

impl Action {
    /// The kind as it stands in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::AccountCreate(_) => "account_create",
            Action::MachineAdd(_) => "machine_add",
            Action::MachineDrain(_) => "machine_drain",
            Action::MachineUndrain(_) => "machine_undrain",
            Action::MachineRemove(_) => "machine_remove",
            Action::MachineUpdate(_) => "machine_update",
            Action::Propose(_) => "propose",
            Action::Vote(_) => "vote",
            Action::OperatorKeys(_) => "operator_keys",
            Action::OperatorLeave(_) => "operator_leave",
            Action::MachineKey(_) => "machine_key",
            Action::Equivocation(_) => "equivocation",
            Action::AccountQuota(_) => "account_quota",
            Action::AccountRotate(_) => "account_rotate",
            Action::KeyDelegate(_) => "key_delegate",
            Action::KeyRevoke(_) => "key_revoke",
            Action::ImageAttest(_) => "image_attest",
            Action::ImagePublish(_) => "image_publish",
            Action::ImageShare(_) => "image_share",
            Action::ImageRetire(_) => "image_retire",
            Action::VmCreate(_) => "vm_create",
            Action::VmDelete(_) => "vm_delete",
            Action::VmStop(_) => "vm_stop",
            Action::VmStart(_) => "vm_start",
            Action::VmReboot(_) => "vm_reboot",
            Action::VmRename(_) => "vm_rename",
            Action::VmResize(_) => "vm_resize",
            Action::VmPlace(_) => "vm_place",
            Action::AccountAdopt(_) => "account_adopt",
            Action::VmDispute(_) => "vm_dispute",
            Action::VmProbe(_) => "vm_probe",
            Action::VmReport(_) => "vm_report",
            Action::Attest(_) => "attest",
        }
    }
}

/// See [`Action::AccountCreate`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountCreate {
    /// Unique name, a DNS label.
    pub account: String,
    /// The account's key.
    pub key: Key,
}

/// An account, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountName {
    /// Name of the account.
    pub account: String,
}

/// See [`Action::MachineAdd`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineAdd {
    /// Unique name, a DNS label.
    pub machine: String,
    /// Transport identity of the machine's node; signs its reports.
    pub node_key: Key,
    /// Architecture of the guests.
    pub arch: Arch,
    /// Processors it offers: no VM there has more virtual CPUs.
    pub vcpus: u32,
    /// Memory it offers, MiB.
    pub memory_mib: u64,
    /// Disk it offers, MiB.
    pub disk_mib: u64,
    /// Virtual CPUs that VMs may hold together for each thousand of `vcpus`. Memory and disk are never overcommitted.
    #[serde(default = "no_overcommit", skip_serializing_if = "is_no_overcommit")]
    pub cpu_permille: u32,
    /// `region` and whatever else customers may want to choose by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

/// See [`Action::MachineUpdate`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineUpdate {
    /// Name of the machine.
    pub machine: String,
    /// Processors it offers from now on; with `cpu_permille` never less than its VMs hold.
    pub vcpus: u32,
    /// Memory it offers, MiB.
    pub memory_mib: u64,
    /// Disk it offers, MiB.
    pub disk_mib: u64,
    /// Virtual CPUs that VMs may hold together for each thousand of `vcpus` from now on.
    #[serde(default = "no_overcommit", skip_serializing_if = "is_no_overcommit")]
    pub cpu_permille: u32,
    /// All labels it has from now on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

/// `cpu_permille` of a machine that promises no more virtual CPUs than it has processors.
pub const NO_OVERCOMMIT: u32 = 1_000;

fn no_overcommit() -> u32 {
    NO_OVERCOMMIT
}

fn is_no_overcommit(permille: &u32) -> bool {
    *permille == NO_OVERCOMMIT
}

/// See [`Action::AccountQuota`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountQuota {
    /// Name of the account.
    pub account: String,
    /// The most; without it only the operator's allocation limits the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// See [`Action::AccountRotate`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRotate {
    /// The new key.
    pub key: Key,
}

/// See [`Action::KeyDelegate`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDelegate {
    /// The key.
    pub key: Key,
    /// Kinds of action that it may sign; of an account's, and never those on keys.
    pub actions: Vec<String>,
    /// VMs that it may act on, by name; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// Ledger time until which it may.
    pub until_ms: u64,
}

/// See [`Action::KeyRevoke`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRevoke {
    /// The key.
    pub key: Key,
}

/// See [`Action::ImageAttest`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageAttest {
    /// Full name, `account/name`.
    pub image: String,
    /// Digest of the manifest whose blobs were verified.
    pub digest: Digest,
}

/// A machine, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineName {
    /// Name of the machine.
    pub machine: String,
}

/// See [`Action::ImagePublish`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePublish {
    /// Name within the account, a DNS label.
    pub image: String,
    /// What it is made of.
    pub manifest: ImageManifest,
    /// Only this account, and those it shares the image with, may make VMs from it. Its name and digests stand on the ledger all the same,
    /// and machines hand its blobs to whoever names their digests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// See [`Action::ImageShare`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShare {
    /// Name within the account.
    pub image: String,
    /// Accounts that may use it from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Accounts that may no longer; VMs they made stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// An image of the signing account, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageName {
    /// Name within the account.
    pub image: String,
}

/// See [`Action::VmCreate`].
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
}

/// A VM of the signing account, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmName {
    /// Name within the account.
    pub vm: String,
}

/// See [`Action::VmRename`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRename {
    /// Present name.
    pub vm: String,
    /// New name.
    pub name: String,
}

/// See [`Action::VmResize`].
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

/// See [`Action::VmPlace`].
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

/// See [`Action::VmDispute`].
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

/// See [`Action::VmProbe`].
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

/// See [`Action::VmReport`].
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

/// See [`Report::Accepted`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The guest's OpenSSH public host key, made anew for this lease epoch.
    pub ssh_host_key: String,
}

/// See [`Report::Starting`].
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

/// See [`Report::Running`].
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// An address the guest can be reached at, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
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

/// See [`Action::Attest`]. Machines that are named in neither list stay as they were.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attest {
    /// Machines it hears from now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hears: Vec<MachineId>,
    /// Machines it no longer hears from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<MachineId>,
}
