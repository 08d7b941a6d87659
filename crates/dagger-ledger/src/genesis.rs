//! The genesis document: the one file from which a network starts and against which everything is verified.
//! Parameters that the ledger's rules read live here too; consensus has its own.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{Digest, Key};
use crate::json;

/// Members at most; one operator is one seat.
pub const OPERATORS_MAX: usize = 200;

/// A genesis document as people read it. `chain_id` is not part of the document: it is the digest of its exact bytes.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Name of the network, a DNS label.
    pub network: String,
    /// Ledger time at the start, ms since the Unix epoch.
    pub time_ms: u64,
    /// The ledger's parameters; those left out have their defaults.
    #[serde(default)]
    pub parameters: Parameters,
    /// The first operators, in the order of their seats.
    pub operators: Vec<GenesisOperator>,
    /// BLAKE3 (`derive_key("dagger genesis v1")`) of the document's exact bytes.
    #[serde(skip)]
    pub chain_id: Digest,
}

/// One operator of the genesis document.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisOperator {
    /// Unique name, a DNS label.
    pub name: String,
    /// Cold key that signs the operator's transactions.
    pub operator_key: Key,
    /// Key that signs events and checkpoints.
    pub consensus_key: Key,
    /// Transport identity of the member's node; it also signs attestations.
    pub node_key: Key,
    /// Votes of the seat.
    pub weight: u64,
    /// Where the node can be dialled, if it is known beforehand. Not interpreted by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What the ledger's rules read. Times in ms; all of them run on the ledger's active time, which stands still while nothing commits.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// How long a machine may run its VMs after the last proven sign of life.
    pub lease_ms: u64,
    /// How much longer the ledger waits before it gives those VMs to another machine.
    pub margin_ms: u64,
    /// How often a machine's node sends a heartbeat to each member.
    pub heartbeat_ms: u64,
    /// How long a member waits for a heartbeat before it attests that a machine is lost.
    pub hear_timeout_ms: u64,
    /// A machine must accept a placement within this time, or the next candidate gets it.
    pub accept_ms: u64,
    /// A machine must have an accepted VM running within this time.
    pub start_ms: u64,
    /// A machine must report a VM stopped within this time after it was asked to.
    pub stop_ms: u64,
    /// How often a VM that fits nowhere is tried again.
    pub retry_ms: u64,
    /// One commit moves active time forward by at most this much.
    pub gap_cap_ms: u64,
    /// `valid_until_ms` may lie at most this far ahead of ledger time.
    pub horizon_ms: u64,
    /// Machines that one VM is offered to in a row before it is declared failed.
    pub placement_attempts_max: u32,
    /// VMs re-placed per commit at most.
    pub failover_chunk_max: u32,
    /// The brake goes on when more than this share of machines (percent) lapses within `brake_window_ms`.
    pub brake_percent: u32,
    /// See `brake_percent`.
    pub brake_window_ms: u64,
    /// VMs re-placed per second of active time while the brake is on. 0 stops re-placement.
    pub brake_vms_per_s: u32,
    /// Operators that must attest a verified copy of an image before VMs may use it. 0: at once.
    pub image_replicas_min: u32,
    /// History entries kept per VM.
    pub history_max: u32,
    /// A proposal closes after this time.
    pub proposal_ms: u64,
    /// How long a VM that stopped of itself waits before its first start; doubled with every further one.
    pub restart_ms: u64,
    /// The longest such wait; a VM that ran this long begins with the shortest again.
    pub restart_max_ms: u64,
    /// A machine whose lease lapses again and again, each time within this time of its last change of state, gets no new VMs for a while after it
    /// returns: one lease after the second lapse, doubled with every further one, at most this time.
    pub calm_ms: u64,
    /// An epoch ends at the first checkpoint after this much commit time, however little happened: it bounds what a node reads back
    /// when it starts.
    pub epoch_ms: u64,
    /// An epoch ends at the first checkpoint after this many transactions.
    pub epoch_transactions: u64,
    /// An operator's consensus key changes at most once within this time: each change ends an epoch.
    pub rotate_ms: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            margin_ms: 10_000,
            heartbeat_ms: 1_500,
            hear_timeout_ms: 4_500,
            accept_ms: 10_000,
            start_ms: 600_000,
            stop_ms: 60_000,
            retry_ms: 5_000,
            gap_cap_ms: 5_000,
            horizon_ms: 600_000,
            placement_attempts_max: 3,
            failover_chunk_max: 1_000,
            brake_percent: 30,
            brake_window_ms: 120_000,
            brake_vms_per_s: 10,
            image_replicas_min: 0,
            history_max: 16,
            proposal_ms: 7 * 24 * 3_600_000,
            restart_ms: 1_000,
            restart_max_ms: 300_000,
            calm_ms: 600_000,
            epoch_ms: 6 * 3_600_000,
            epoch_transactions: 200_000,
            rotate_ms: 60_000,
        }
    }
}

impl Parameters {
    /// The bounds every set of parameters keeps, at genesis and after a vote.
    pub fn check(&self) -> Result<(), Code> {
        const DAY_MS: u64 = 24 * 3_600_000;
        let times = [
            self.lease_ms,
            self.margin_ms,
            self.heartbeat_ms,
            self.hear_timeout_ms,
            self.accept_ms,
            self.start_ms,
            self.stop_ms,
            self.retry_ms,
            self.gap_cap_ms,
            self.brake_window_ms,
            self.restart_ms,
            self.restart_max_ms,
            self.calm_ms,
        ];
        if times.iter().any(|t| *t == 0 || *t > DAY_MS) {
            return Err(Code::OutOfRange);
        }
        if !(1_000..=DAY_MS).contains(&self.horizon_ms)
            || !(1_000..=366 * DAY_MS).contains(&self.proposal_ms)
            || !(1_000..=366 * DAY_MS).contains(&self.epoch_ms)
            || self.rotate_ms > 366 * DAY_MS
            || !(1..=1 << 40).contains(&self.epoch_transactions)
        {
            return Err(Code::OutOfRange);
        }
        // One commit must never be able to end a lease that the commit before still saw renewed.
        if self.gap_cap_ms >= self.lease_ms || self.heartbeat_ms >= self.lease_ms {
            return Err(Code::OutOfRange);
        }
        if !(1..=100).contains(&self.placement_attempts_max)
            || !(1..=1_000_000).contains(&self.failover_chunk_max)
            || self.brake_percent > 100
            || self.brake_vms_per_s > 1_000_000
            || self.image_replicas_min as usize > OPERATORS_MAX
            || !(1..=64).contains(&self.history_max)
        {
            return Err(Code::OutOfRange);
        }
        Ok(())
    }
}

/// Why a genesis document cannot start a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not the strict JSON document it must be.
    #[error("the genesis file is not valid: {code} at {at}; correct that place")]
    Json {
        /// What is wrong.
        code: Code,
        /// Where: a field name or a byte offset.
        at: String,
    },
    /// A value breaks a rule.
    #[error("the genesis file has a bad {field}: {code}")]
    Value {
        /// Which field.
        field: &'static str,
        /// Which rule.
        code: Code,
    },
}

impl Genesis {
    /// Reads and checks a genesis document; computes its chain id from the exact bytes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, GenesisError> {
        let mut genesis: Genesis = json::from_slice(bytes).map_err(|e| GenesisError::Json {
            code: e.code,
            at: e.at,
        })?;
        genesis.chain_id = chain_id(bytes);
        genesis.check()?;
        Ok(genesis)
    }

    /// A readable document. Its `chain_id` is that of these bytes, see [`chain_id`].
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a genesis document always serialises");
        text.push('\n');
        text
    }

    fn check(&self) -> Result<(), GenesisError> {
        let bad = |field, code| GenesisError::Value { field, code };
        crate::names::check_label(&self.network).map_err(|c| bad("network", c))?;
        if self.time_ms > json::INTEGER_MAX {
            return Err(bad("time_ms", Code::OutOfRange));
        }
        self.parameters.check().map_err(|c| bad("parameters", c))?;
        if self.operators.is_empty() || self.operators.len() > OPERATORS_MAX {
            return Err(bad("operators", Code::TooMany));
        }
        let mut names = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeSet::new();
        let mut total: u64 = 0;
        for operator in &self.operators {
            crate::names::check_label(&operator.name).map_err(|c| bad("operators.name", c))?;
            if !names.insert(operator.name.as_str()) {
                return Err(bad("operators.name", Code::NameTaken));
            }
            for key in [
                operator.operator_key,
                operator.consensus_key,
                operator.node_key,
            ] {
                crate::names::check_key(&key).map_err(|c| bad("operators.*_key", c))?;
                if !keys.insert(key) {
                    return Err(bad("operators.*_key", Code::KeyInUse));
                }
            }
            total = total
                .checked_add(operator.weight)
                .ok_or_else(|| bad("operators.weight", Code::OutOfRange))?;
            if operator.weight == 0 || total > u64::from(u32::MAX) {
                return Err(bad("operators.weight", Code::OutOfRange));
            }
            if operator.address.as_ref().is_some_and(|a| a.len() > 512) {
                return Err(bad("operators.address", Code::BadText));
            }
        }
        Ok(())
    }
}

/// The chain id of a genesis document: BLAKE3 (`derive_key("dagger genesis v1")`) of its exact bytes.
pub fn chain_id(bytes: &[u8]) -> Digest {
    Digest(blake3::derive_key("dagger genesis v1", bytes))
}
