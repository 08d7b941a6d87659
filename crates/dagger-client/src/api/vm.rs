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
    /// The owner's labels.
    pub labels: BTreeMap<String, String>,
    /// `placed`, `accepted`, `starting`, `running`, `stopped`, `failed`, `lost`, `deleting` or `pending`.
    pub phase: String,
    /// Why it is in that phase, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
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
    /// Ledger time of its creation.
    pub created_ms: u64,
    /// What happened to it, oldest first; bounded, so old entries may be gone.
    pub history: Vec<VmEvent>,
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

/// Why a VM is where it is, or where it would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationView {
    /// Name of the machine chosen, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The choice in one sentence.
    pub summary: String,
    /// Every machine that was looked at, best first.
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
    /// Its rank, or why not.
    pub reason: Reason,
}
