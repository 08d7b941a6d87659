//! Operators, machines, accounts and images, as a user wants to see them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorView {
    /// Number on the ledger.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Key that signs the operator's transactions, hex.
    pub operator_key: String,
    /// Its seat in the committee, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<u16>,
    /// Votes of the seat.
    pub weight: u64,
    /// How many machines it has.
    pub machines: u32,
    /// How many accounts it sponsors.
    pub accounts: u32,
    /// How many VMs its machines host.
    pub vms: u32,
}

/// A proposal that operators vote on, or voted on lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProposalView {
    /// Its number, by which it is voted on.
    pub id: u64,
    /// Name of the operator that proposed it.
    pub proposer: String,
    /// What would change, for people.
    pub text: String,
    /// What would change, as it stands in the transaction.
    #[schema(value_type = Object)]
    pub change: serde_json::Value,
    /// `open`, `accepted`, `rejected`, `expired` or `void`.
    pub status: String,
    /// Names of the operators for it.
    pub approvals: Vec<String>,
    /// Names of the operators against it.
    pub rejections: Vec<String>,
    /// Weight of the seats for it.
    pub approved_weight: u64,
    /// Weight that accepts it.
    pub quorum_weight: u64,
    /// Ledger time after which it expires, ms since the Unix epoch.
    pub closes_ms: u64,
}

/// Amounts of what a machine has or a VM takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in MiB.
    pub disk_mib: u64,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineView {
    /// Number on the ledger.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Name of its operator.
    pub operator: String,
    /// Public key of its node, hex.
    pub node_key: String,
    /// Processor architecture.
    pub arch: String,
    /// `joining` (too few rivals have heard it yet), `ready`, `draining` (nothing new is placed there) or
    /// `lost` (its lease lapsed).
    pub state: String,
    /// What it has to offer.
    pub capacity: Resources,
    /// Virtual processors that VMs may hold there together for each thousand of its own.
    pub cpu_permille: u32,
    /// What its VMs take of that.
    pub used: Resources,
    /// Labels such as region and zone.
    pub labels: BTreeMap<String, String>,
    /// How many VMs are placed there.
    pub vms: u32,
    /// Operators, other than its own, that attest to hearing it.
    pub heard_by: Vec<String>,
    /// Ledger time since which it is in that state.
    pub state_since_ms: u64,
    /// How often its lease has lapsed.
    pub lapses: u32,
    /// Disputes about VMs there that rivals upheld.
    pub disputes_upheld: u32,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// Number on the ledger.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Its public key, hex.
    pub key: String,
    /// Name of the operator that sponsors it.
    pub sponsor: String,
    /// How many VMs it has.
    pub vms: u32,
    /// How many images it has published.
    pub images: u32,
    /// Keys that may act for it; those that have run out are not all taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegations: Vec<DelegationView>,
}

/// A key that may act for an account, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DelegationView {
    /// The key, hex.
    pub key: String,
    /// Kinds of action that it may sign.
    pub actions: Vec<String>,
    /// VMs that it may act on, by name; none: all.
    pub vms: Vec<String>,
    /// Ledger time until which it may.
    pub until_ms: u64,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Number on the ledger.
    pub id: u32,
    /// `account/name`.
    pub name: String,
    /// Digest of the manifest, hex.
    pub digest: String,
    /// Processor architecture.
    pub arch: String,
    /// `direct` (kernel and initrd) or `disk`.
    pub boot: String,
    /// Bytes of all its blobs.
    pub size_bytes: u64,
    /// Whether no new VM may be made from it.
    pub retired: bool,
    /// Whether only its account, and those it is shared with, may make VMs from it.
    pub private: bool,
    /// Accounts that may although it is private.
    pub shared_with: Vec<String>,
    /// Operators that attest to a verified copy.
    pub replicas: Vec<String>,
    /// The manifest as published.
    #[schema(value_type = Object)]
    pub manifest: serde_json::Value,
}
