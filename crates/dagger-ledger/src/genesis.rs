//! The genesis document: the one file from which a network starts and against which everything is verified.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{Digest, Key};
use crate::json;
use crate::parameters::Parameters;

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
