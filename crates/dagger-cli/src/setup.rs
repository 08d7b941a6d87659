//! What a network starts from: keys, the founders' cards, the genesis file.

use crate::args;
use crate::failure::{Done, Exit, Failure};
use dagger_client::keys::{self, KeyFileError, KeyKind, SecretKey};
use dagger_ledger::{Digest, Genesis, GenesisOperator, Key, OperatorAdd, Parameters};
use dagger_node::config::Durability;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;

/// The public half of an operator, for the genesis file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    pub name: String,
    pub operator_key: String,
    pub consensus_key: String,
    pub node_key: String,
    #[serde(default = "one")]
    pub weight: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

fn one() -> u64 {
    1
}

impl Card {
    pub fn load(path: &Path) -> Done<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::file(path.display(), &error))?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                Exit::Failure,
                "E_CARD_INVALID",
                format!("{} is not a founder's card: {error}", path.display()),
            )
            .hint("`dagger node init --data DIR --name NAME` makes DIR/card.json")
        })
    }

    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a card is plain JSON");
        text.push('\n');
        text
    }

    fn operator(&self) -> Done<GenesisOperator> {
        let key = |text: &str| -> Done<Key> {
            text.parse().map_err(|_| {
                let text = format!(
                    "the card of {} holds a key that is not 64 lower-case hex digits",
                    self.name
                );
                Failure::new(Exit::Failure, "E_CARD_INVALID", text)
            })
        };
        Ok(GenesisOperator {
            name: self.name.clone(),
            operator_key: key(&self.operator_key)?,
            consensus_key: key(&self.consensus_key)?,
            node_key: key(&self.node_key)?,
            weight: self.weight,
            address: self.address.clone(),
        })
    }
}

impl Card {
    /// What operators vote on when they admit whoever made the card.
    pub fn operator_add(&self) -> Done<OperatorAdd> {
        let operator = self.operator()?;
        Ok(OperatorAdd {
            name: operator.name,
            operator_key: operator.operator_key,
            consensus_key: operator.consensus_key,
            node_key: operator.node_key,
            weight: operator.weight,
            address: operator.address,
        })
    }
}

/// Makes the three keys of an operator's node in `<data>/keys`, or reads those that are there.
pub fn make_keys(data: &Path, name: &str, address: Option<SocketAddr>) -> Done<Card> {
    dagger_ledger::check_label(name)
        .map_err(|code| Failure::new(Exit::Usage, code.as_str(), code.text()))?;
    let directory = data.join("keys");
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure::file(directory.display(), &error))?;
    let public = |kind: KeyKind| -> Done<String> {
        let path = directory.join(format!("{kind}.json"));
        let key = match keys::read(&path, kind) {
            Err(KeyFileError::Missing(_)) => {
                let key = SecretKey::generate();
                keys::write(&path, kind, &key)?;
                key
            }
            other => other?,
        };
        Ok(hex::encode(key.public()))
    };
    Ok(Card {
        name: name.to_owned(),
        operator_key: public(KeyKind::Operator)?,
        consensus_key: public(KeyKind::Consensus)?,
        node_key: public(KeyKind::Node)?,
        weight: 1,
        address: address.map(|address| address.to_string()),
    })
}

/// The ledger's parameters for a lease and a margin; what hangs on the lease is scaled with it.
pub fn parameters(lease_ms: Option<u64>, margin_ms: Option<u64>) -> Parameters {
    let mut parameters = Parameters::default();
    if let Some(lease_ms) = lease_ms {
        parameters.lease_ms = lease_ms;
        parameters.heartbeat_ms = (lease_ms / 20).max(1);
        parameters.hear_timeout_ms = parameters.heartbeat_ms * 3;
        parameters.gap_cap_ms = parameters.gap_cap_ms.min(lease_ms / 2).max(1);
    }
    if let Some(margin_ms) = margin_ms {
        parameters.margin_ms = margin_ms;
    }
    parameters
}

/// The text of a genesis file. Its chain id is that of these exact bytes.
pub fn genesis(
    network: &str,
    time_ms: u64,
    parameters: Parameters,
    cards: &[Card],
) -> Done<String> {
    let operators = cards.iter().map(Card::operator).collect::<Done<_>>()?;
    let network = network.to_owned();
    let text = Genesis {
        network,
        time_ms,
        parameters,
        operators,
        chain_id: Digest::default(),
    }
    .to_json();
    let checked = Genesis::from_json(text.as_bytes());
    match checked {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            "E_GENESIS_INVALID",
            error.to_string(),
        )),
    }
}

/// Writes a file that must not exist yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Done {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Failure,
            "E_FILE_EXISTS",
            format!("{} exists already", path.display()),
        )
        .hint("choose another name, or move it away"),
        _ => Failure::file(path.display(), &error),
    })
}

/// Writes a file, or leaves it when it says the same already.
pub fn write_new_or_same(path: &Path, text: &str) -> Done {
    match std::fs::read_to_string(path) {
        Ok(found) if found == text => Ok(()),
        _ => write_new(path, text.as_bytes()),
    }
}

impl From<args::Durability> for Durability {
    fn from(durability: args::Durability) -> Self {
        match durability {
            args::Durability::Fsync => Durability::Fsync,
            args::Durability::Os => Durability::Os,
        }
    }
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
