//! A VM and why it is where it is.

use super::{Reason, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    /// Number on the ledger.
    pub id: u64,
    /// Name, unique within the account.
    pub name: String,
    /// Name of the account that owns it.
    pub account: String,
    /// `account/name` of its image.
    pub image: String,
    /// Digest of the image's manifest, hex.
    pub image_digest: String,
    /// What it was given.
    pub resources: Resources,
    /// What happens when its machine is lost: `none` or `recreate`.
    pub failover: String,
    /// What an isolated machine does with it: `stop` or `keep`.
    pub on_isolation: String,
    /// What happens when it stops of itself: `never`, `on_failure` or `always` start it again.
    pub restart: String,
    /// Starts in a row after it stopped of itself.
    pub restarts: u32,
    /// The owner's labels.
    pub labels: BTreeMap<String, String>,
    /// `pending`, `placed`, `accepted`, `starting`, `running`, `stopping`, `stopped`, `moving`, `failed`,
    /// `lost`, `deleting` or `restarting`.
    pub phase: String,
    /// Ledger time since which it is in that phase.
    pub phase_since_ms: u64,
    /// Why it is in that phase; the machine's own words where it gave some.
    pub reason: Reason,
    /// Name of the machine that hosts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Name of that machine's operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Counts the placements; a claim with a lower number is void.
    pub lease_epoch: u64,
    /// The guest's SSH host key in OpenSSH form, as its host signed it onto the ledger for this lease epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<String>,
    /// `kvm` or `tcg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// Why that accelerator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator_reason: Option<String>,
    /// Where its host got the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_source: Option<String>,
    /// Address of the guest, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// TCP ports of the guest that its machine opens to everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedView>,
    /// Ledger time of its creation.
    pub created_ms: u64,
    /// Commit of its creation.
    pub created_commit: u64,
    /// What happened to it, oldest first; bounded, so old entries may be gone.
    pub history: Vec<VmEvent>,
    /// Its owner's latest dispute about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispute: Option<DisputeView>,
}

/// A port of the guest that its owner wants to be open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedView {
    /// Port of the guest.
    pub guest_port: u16,
    /// Port of the machine that was asked for; without one the machine chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// Address and port where it is open now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Reason>,
}

/// An owner's claim that a VM cannot be reached although its machine reports it as running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisputeView {
    /// `open`, `upheld`, `dismissed`, `undecided` or `moot`.
    pub status: String,
    /// What the owner says.
    pub claim: String,
    /// The machine that it is about.
    pub machine: String,
    /// Ledger time at which it was opened.
    pub opened_ms: u64,
    /// Ledger time at which it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_ms: Option<u64>,
    /// While it is open: when it closes if commits go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// While it is open: operators that were drawn to probe the VM and have not.
    pub waits_for: Vec<String>,
    /// What others found.
    pub probes: Vec<ProbeView>,
}

/// What one operator found of a disputed VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeView {
    /// The operator.
    pub operator: String,
    /// The VM answered.
    pub reached: bool,
    /// What it saw, for people.
    pub detail: String,
    /// Ledger time of its report.
    pub time_ms: u64,
}

/// One thing that happened to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmEvent {
    /// Commit that recorded it.
    pub commit: u64,
    /// Ledger time of that commit.
    pub time_ms: u64,
    /// Phase afterwards.
    pub phase: String,
    /// Lease epoch afterwards.
    pub lease_epoch: u64,
    /// Machine afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Stable code of the cause.
    pub code: String,
    /// The cause in words.
    pub text: String,
}

/// Where placement would put a VM now, and why; beside it, where the VM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationView {
    /// Commit after which this holds.
    pub commit: u64,
    /// Name of the machine that hosts the VM, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Name of the machine that would be chosen now, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The choice in one sentence.
    pub summary: String,
    /// Every machine, best first; those out of the question last.
    pub candidates: Vec<CandidateView>,
}

/// One machine as placement saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// Name of the machine.
    pub machine: String,
    /// Name of its operator.
    pub operator: String,
    /// Whether it could host the VM.
    pub fits: bool,
    /// Its rank, or why it is out of the question: codes with their texts.
    pub reasons: Vec<Reason>,
}
