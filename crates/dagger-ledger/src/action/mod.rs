//! What a transaction can ask for: the kinds of action with their fields, as they stand in the signed JSON.
//! Which key may ask for what is decided at execution; the forms of values are checked in `action_check.rs`.

mod operators;
mod vms;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Key, MachineId};
use crate::manifest::ImageManifest;

pub use operators::*;
pub use vms::*;

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

/// Fields of the action `account_create`.
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

/// Fields of the action `machine_add`.
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

/// Fields of the action `machine_update`.
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

/// Fields of the action `account_quota`.
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

/// Fields of the action `account_rotate`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRotate {
    /// The new key.
    pub key: Key,
}

/// Fields of the action `key_delegate`.
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

/// Fields of the action `key_revoke`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRevoke {
    /// The key.
    pub key: Key,
}

/// Fields of the action `image_attest`.
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

/// Fields of the action `image_publish`.
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

/// Fields of the action `image_share`.
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

/// Fields of the action `attest`. Machines that are named in neither list stay as they were.
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
