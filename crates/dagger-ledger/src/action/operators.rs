//! What operators ask for about themselves and decide together.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::ids::Key;
use crate::parameters::ParametersChange;

/// Fields of the action `propose`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propose {
    /// What would change.
    pub change: ProposedChange,
}

/// What operators decide together. In JSON `{"kind": {...}}`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposedChange {
    /// A new operator, with a seat from the next epoch on.
    OperatorAdd(OperatorAdd),
    /// An operator loses its say at once and its seat with the next epoch; its machines drain.
    OperatorRemove(OperatorName),
    /// Some of the ledger's parameters; the rest stay as they are when it is accepted.
    Parameters(Box<ParametersChange>),
    /// The most that the accounts an operator sponsors may have together.
    Allocation(OperatorAllocation),
    /// An operator that lost its seat by a proof may have one again, under another consensus key.
    OperatorReseat(OperatorName),
    /// Rules of another version, from the next epoch on.
    ProtocolVersion(ProtocolVersion),
    /// As `operator_remove`, even if the seats that are left bear no faulty member any more where the present ones do.
    OperatorRemoveAnyway(OperatorName),
}

/// Fields of the change `operator_add`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorAdd {
    /// Unique name, a DNS label.
    pub name: String,
    /// Cold key that signs the operator's transactions.
    pub operator_key: Key,
    /// Key that signs events and checkpoints.
    pub consensus_key: Key,
    /// Transport identity of the member's node.
    pub node_key: Key,
    /// Votes of the seat.
    pub weight: u64,
    /// Where the node can be dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// An operator, by name.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorName {
    /// Name of the operator.
    pub operator: String,
}

/// Fields of the change `allocation`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorAllocation {
    /// Name of the operator.
    pub operator: String,
    /// The most; without it nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Quota>,
}

/// Fields of the change `protocol_version`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolVersion {
    /// The version.
    pub version: u32,
}

/// The most that may be held at a time.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// VMs.
    pub vms: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB.
    pub disk_mib: u64,
}

/// Fields of the action `vote`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// Number of the proposal.
    pub proposal: u64,
    /// For or against.
    pub approve: bool,
}

/// Fields of the action `operator_keys`. At least one key.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorKeys {
    /// Cold key that signs the operator's transactions from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_key: Option<Key>,
    /// Key that signs events and checkpoints from the next epoch on; at most one change within
    /// [`Parameters::rotate_ms`](crate::Parameters::rotate_ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus_key: Option<Key>,
    /// Transport identity of the member's node from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_key: Option<Key>,
    /// Where the member's node can be dialled from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Fields of the action `operator_leave`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorLeave {}

/// Fields of the action `machine_key`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineKey {
    /// Name of the machine.
    pub machine: String,
    /// Transport identity of its node from now on; signs its reports.
    pub node_key: Key,
}

/// Fields of the action `equivocation`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivocation {
    /// The consensus layer's proof (docs/protocol.md 8.1) in its borsh form, lower-case hex.
    pub proof: String,
}
