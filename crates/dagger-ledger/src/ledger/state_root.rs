//! Which records the state consists of, under which keys, and how the root follows from them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash;
use crate::ids::Digest;
use crate::ledger::Ledger;
use crate::proof::StateProof;

/// Key of a record in the state tree. Names, not ids: whoever verifies a claim knows the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKey {
    /// Chain id, name of the network and parameters.
    Network,
    /// Commit, times and outcomes root.
    Clock,
    /// The committee's seats.
    Members,
    /// Remembered transactions.
    Replay,
    /// The mass-failover brake.
    Brake,
    /// How many ids of each kind were given out.
    Counters,
    /// An operator, by name.
    Operator(String),
    /// A machine, by name.
    Machine(String),
    /// An account, by name.
    Account(String),
    /// An image, by full name.
    Image(String),
    /// A VM, by account and name.
    Vm(String, String),
    /// A proposal, by number.
    Proposal(u64),
    /// The present epoch and the seats of the one before.
    Epoch,
}

impl StateKey {
    /// Its hash; the first 20 bits say which bucket it is in.
    pub fn hash(&self) -> [u8; 32] {
        hash::keyed(hash::STATE_KEY, &hash::encode(self))
    }
}

/// Text that names no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no record: write operator/NAME, machine/NAME, account/NAME, image/ACCOUNT/NAME, vm/ACCOUNT/NAME, proposal/NUMBER, epoch, members, network, clock, replay, brake or counters"
)]
pub struct BadStateKey(pub String);

impl FromStr for StateKey {
    type Err = BadStateKey;

    fn from_str(text: &str) -> Result<Self, BadStateKey> {
        let bad = || BadStateKey(text.to_string());
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let key = match kind {
            "network" => StateKey::Network,
            "clock" => StateKey::Clock,
            "members" => StateKey::Members,
            "replay" => StateKey::Replay,
            "brake" => StateKey::Brake,
            "counters" => StateKey::Counters,
            "epoch" => StateKey::Epoch,
            "operator" => StateKey::Operator(name.to_string()),
            "machine" => StateKey::Machine(name.to_string()),
            "account" => StateKey::Account(name.to_string()),
            "image" => StateKey::Image(name.to_string()),
            "vm" => {
                let (account, name) = name.split_once('/').ok_or_else(bad)?;
                StateKey::Vm(account.to_string(), name.to_string())
            }
            "proposal" => StateKey::Proposal(name.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        };
        // One text for each key: neither `vm/a/b/` nor `epoch/x`.
        if key.to_string() == text {
            Ok(key)
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateKey::Network => f.write_str("network"),
            StateKey::Clock => f.write_str("clock"),
            StateKey::Members => f.write_str("members"),
            StateKey::Replay => f.write_str("replay"),
            StateKey::Brake => f.write_str("brake"),
            StateKey::Counters => f.write_str("counters"),
            StateKey::Epoch => f.write_str("epoch"),
            StateKey::Operator(name) => write!(f, "operator/{name}"),
            StateKey::Machine(name) => write!(f, "machine/{name}"),
            StateKey::Account(name) => write!(f, "account/{name}"),
            StateKey::Image(name) => write!(f, "image/{name}"),
            StateKey::Vm(account, name) => write!(f, "vm/{account}/{name}"),
            StateKey::Proposal(id) => write!(f, "proposal/{id}"),
        }
    }
}

/// Hash of a VM's key, without building the key: this one is on the hot path.
pub(super) fn vm_key(account: &str, name: &str) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(9 + account.len() + name.len());
    bytes.push(10);
    for part in [account, name] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    hash::keyed(hash::STATE_KEY, &bytes)
}

/// Hash of a record.
pub(crate) fn record_hash<T: BorshSerialize>(record: &T) -> [u8; 32] {
    hash::keyed(hash::STATE_RECORD, &hash::encode(record))
}

impl Ledger {
    /// Root over the whole state. Hashes what changed since it was last asked for.
    pub fn state_root(&mut self) -> [u8; 32] {
        self.hash_singletons();
        for key in std::mem::take(&mut self.dirty.removed) {
            self.tree.set(key, None);
        }
        for id in std::mem::take(&mut self.dirty.operators) {
            let operator = &self.operators[id.index()];
            let key = StateKey::Operator(operator.name.clone()).hash();
            self.tree.set(key, Some(record_hash(operator)));
        }
        for id in std::mem::take(&mut self.dirty.machines) {
            if let Some(machine) = &self.machines[id.index()] {
                let key = StateKey::Machine(machine.name.clone()).hash();
                self.tree.set(key, Some(record_hash(machine)));
            }
        }
        for id in std::mem::take(&mut self.dirty.accounts) {
            let account = &self.accounts[id.index()];
            let key = StateKey::Account(account.name.clone()).hash();
            self.tree.set(key, Some(record_hash(account)));
        }
        for id in std::mem::take(&mut self.dirty.images) {
            let image = &self.images[id.index()];
            let key = StateKey::Image(image.name.clone()).hash();
            self.tree.set(key, Some(record_hash(image)));
        }
        for id in std::mem::take(&mut self.dirty.proposals) {
            let record = self.proposals.get(&id).map(record_hash);
            self.tree.set(StateKey::Proposal(id).hash(), record);
        }
        let mut buffer = Vec::with_capacity(1_024);
        for id in self.dirty.take_vms() {
            if let Some(vm) = &self.vms[id.index()] {
                buffer.clear();
                borsh::to_writer(&mut buffer, vm.as_ref()).expect("borsh writes to memory");
                let key = vm_key(&self.accounts[vm.account.index()].name, &vm.spec.name);
                self.tree
                    .set(key, Some(hash::keyed(hash::STATE_RECORD, &buffer)));
            }
        }
        self.tree.commit()
    }

    /// Proves a record, or its absence, under the root that [`Ledger::state_root`] last gave. `None` if the record has changed since: ask
    /// again after the next checkpoint.
    pub fn prove(&self, key: &StateKey) -> Option<StateProof> {
        let record = self.record_bytes(key);
        let hash = key.hash();
        let (bucket, siblings) = self.tree.path(&hash);
        let held = bucket
            .iter()
            .find(|(other, _)| *other == hash)
            .map(|(_, record)| *record);
        let current = record
            .as_ref()
            .map(|bytes| hash::keyed(hash::STATE_RECORD, bytes));
        if held != current {
            return None;
        }
        let bucket = bucket
            .into_iter()
            .map(|(key, record)| (Digest(key), Digest(record)));
        let siblings = siblings.into_iter().map(Digest);
        let (bucket, siblings) = (bucket.collect(), siblings.collect());
        Some(StateProof {
            key: key.clone(),
            record,
            bucket,
            siblings,
        })
    }

    fn record_bytes(&self, key: &StateKey) -> Option<Vec<u8>> {
        match key {
            StateKey::Network => Some(hash::encode(&self.network_record())),
            StateKey::Proposal(id) => self.proposals.get(id).map(hash::encode),
            StateKey::Clock => Some(hash::encode(&self.clock)),
            StateKey::Members => Some(hash::encode(&self.members)),
            StateKey::Epoch => Some(hash::encode(&self.epoch)),
            StateKey::Replay => Some(hash::encode(&self.replay.summary())),
            StateKey::Brake => Some(hash::encode(&self.brake)),
            StateKey::Counters => Some(hash::encode(&self.counters())),
            StateKey::Operator(name) => {
                // Removed ones, too: their names are never given again.
                self.operators
                    .iter()
                    .find(|o| o.name == *name)
                    .map(hash::encode)
            }
            StateKey::Machine(name) => self.machine_by_name(name).map(hash::encode),
            StateKey::Account(name) => self.account_by_name(name).map(hash::encode),
            StateKey::Image(name) => self.image_by_name(name).map(hash::encode),
            StateKey::Vm(account, name) => {
                let account = self.account_by_name(account)?.id;
                self.vm_by_name(account, name).map(hash::encode)
            }
        }
    }

    fn hash_singletons(&mut self) {
        if std::mem::take(&mut self.dirty.parameters) {
            let record = record_hash(&self.network_record());
            self.tree.set(StateKey::Network.hash(), Some(record));
        }
        let counters = self.counters();
        let singletons = [
            (StateKey::Clock, record_hash(&self.clock)),
            (StateKey::Members, record_hash(&self.members)),
            (StateKey::Epoch, record_hash(&self.epoch)),
            (StateKey::Replay, record_hash(&self.replay.summary())),
            (StateKey::Brake, record_hash(&self.brake)),
            (StateKey::Counters, record_hash(&counters)),
        ];
        for (key, record) in singletons {
            self.tree.set(key.hash(), Some(record));
        }
    }

    fn network_record(
        &self,
    ) -> (
        Digest,
        &str,
        &crate::parameters::Parameters,
        &BTreeMap<u64, u32>,
    ) {
        (
            self.chain_id,
            &self.network,
            &self.parameters,
            &self.protocol_versions,
        )
    }

    /// Proposals, operators, machines, accounts, images and VMs ever made.
    fn counters(&self) -> [u64; 6] {
        [
            self.proposal_ids,
            self.operators.len() as u64,
            self.machines.len() as u64,
            self.accounts.len() as u64,
            self.images.len() as u64,
            self.vms.len() as u64,
        ]
    }

    /// The root computed from nothing, to be compared with [`Ledger::state_root`]. Linear in the state.
    pub fn recompute_state_root(&self) -> [u8; 32] {
        let mut copy = Ledger {
            tree: Default::default(),
            dirty: Default::default(),
            ..self.clone()
        };
        copy.mark_everything();
        copy.state_root()
    }
}
