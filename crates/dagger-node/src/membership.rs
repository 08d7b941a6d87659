//! Who votes in the present epoch, and where this node stands in it.
//!
//! Must not live here: how an epoch comes about (ledger and consensus decide that).

use std::collections::BTreeMap;

use dagger_ledger::{Key, Ledger};
use shadowgraph::{Committee, MemberIndex};

use crate::{config::NodeConfig, consensus_keys::ConsensusKeys, transport::PeerEntry};

/// Who holds a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Name of the operator.
    pub name: String,
    /// Key of its node.
    pub node_key: Key,
    /// Where that node says it can be dialled.
    pub address: Option<String>,
}

/// The committee of an epoch with the operators behind it.
#[derive(Debug)]
pub(crate) struct Membership {
    pub committee: Committee,
    /// This node's seat.
    pub seat: Option<MemberIndex>,
    holders: Vec<Holder>,
}

impl Membership {
    /// The membership of `committee`, whose epoch `ledger` is in; `own` are this node's consensus keys.
    pub fn new(committee: Committee, ledger: &Ledger, own: &ConsensusKeys) -> Self {
        let holder = |seat: MemberIndex| match ledger.operator_of_member(seat.0) {
            Some(operator) => Holder {
                name: operator.name.clone(),
                node_key: operator.node_key,
                address: operator.address.clone(),
            },
            None => Holder {
                name: format!("member-{}", seat.0),
                node_key: Key([0; 32]),
                address: None,
            },
        };
        let holders = committee.members().map(|(seat, _)| holder(seat)).collect();
        let seat = own.seat(&committee);
        Self {
            committee,
            seat,
            holders,
        }
    }

    /// Who holds a seat; `None` for a seat that does not exist.
    pub fn holder(&self, seat: MemberIndex) -> Option<&Holder> {
        self.holders.get(seat.index())
    }

    /// Votes of this node.
    pub fn own_weight(&self) -> u64 {
        self.seat.map_or(0, |seat| self.committee.weight(seat))
    }

    /// The members, with the addresses of the ledger and of the configuration, and further peers of the configuration.
    /// This node itself is not among them.
    pub fn peers(&self, config: &NodeConfig, own_key: &Key) -> Vec<PeerEntry> {
        let mut configured: BTreeMap<Key, Vec<String>> = config
            .peer_keys()
            .map(|(key, addresses)| (key, addresses.iter().map(ToString::to_string).collect()))
            .collect();
        let mut entries = Vec::new();
        for (holder, (seat, _)) in self.holders.iter().zip(self.committee.members()) {
            let mut addresses = configured.remove(&holder.node_key).unwrap_or_default();
            addresses.extend(holder.address.clone());
            entries.push(PeerEntry {
                key: holder.node_key,
                name: holder.name.clone(),
                seat: Some(seat),
                addresses,
            });
        }
        for (key, addresses) in configured {
            let name = format!("node-{}", &key.to_hex()[..8]);
            entries.push(PeerEntry {
                key,
                name,
                seat: None,
                addresses,
            });
        }
        entries.retain(|e| e.key != *own_key);
        entries
    }
}
