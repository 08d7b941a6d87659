//! Proof that a member signed two events of one round, as the consensus layer makes it (docs/protocol.md 8.1), and what it costs.
//!
//! The ledger reads of an event only what says whose it is: chain, epoch, round and creator at the front of its header. That is enough: under
//! the consensus key an honest member signs one event for those four, whatever else stands in it.

use borsh::BorshDeserialize;

use crate::action::Equivocation;
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{Digest, Key, OperatorId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, Refusal, refuse};
use crate::records::Unseated;
use crate::signature::Claim;

/// Name of the consensus layer's events in hashes and signatures (docs/protocol.md 1.4).
const EVENT: &str = "dagger event v1";
/// Versions of events that begin with a [`Slot`].
const EVENT_VERSIONS: std::ops::RangeInclusive<u8> = 1..=2;

/// Borsh form of a proof: two signed headers, the one with the lower digest first.
#[derive(BorshDeserialize)]
struct Proof {
    first: SignedHeader,
    second: SignedHeader,
}

#[derive(BorshDeserialize)]
struct SignedHeader {
    header: Vec<u8>,
    payload_digest: [u8; 32],
    signature: [u8; 64],
}

/// Whose event it is. docs/protocol.md 2.1: version, chain id, epoch, round, creator, then the rest.
#[derive(Clone, Copy, PartialEq, Eq, BorshDeserialize)]
struct Slot {
    version: u8,
    chain_id: [u8; 32],
    epoch: u64,
    round: u64,
    creator: u16,
}

impl SignedHeader {
    fn slot(&self) -> Option<Slot> {
        Slot::deserialize(&mut self.header.as_slice()).ok()
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(EVENT);
        hasher.update(&self.header);
        hasher.update(&self.payload_digest);
        *hasher.finalize().as_bytes()
    }

    fn is_signed_by(&self, key: &Key) -> bool {
        let digest = self.digest();
        let message = [EVENT.as_bytes(), &[0], &digest].concat();
        let claim = Claim::new(key, &self.signature, &message, &Digest(digest));
        claim.verify().is_ok()
    }
}

impl Ledger {
    /// Takes its seat from a member that signed twice. It stays an operator, with its machines and accounts: a second daemon started by mistake
    /// must not cost customers their VMs.
    pub(super) fn equivocation(&mut self, action: &Equivocation) -> Done {
        let bytes = hex::decode(&action.proof).map_err(|_| Code::BadText)?;
        let Ok(proof) = borsh::from_slice::<Proof>(&bytes) else {
            return refuse(Code::BadProof, "it does not decode");
        };
        let slot = match (proof.first.slot(), proof.second.slot()) {
            (Some(first), Some(second)) if first == second => first,
            _ => return refuse(Code::BadProof, "the events are not of one slot"),
        };
        if !EVENT_VERSIONS.contains(&slot.version) || slot.chain_id != self.chain_id.0 {
            return refuse(Code::BadProof, "the events are of another chain or version");
        }
        if proof.first.digest() >= proof.second.digest() {
            return refuse(
                Code::BadProof,
                "it holds one event twice, or in the wrong order",
            );
        }
        let (id, key) = self.seat_in(slot)?;
        // Before the costly part: whoever sends a proof again and again pays for nothing but a look-up.
        if !self.operators[id.index()].is_seated() {
            return Err(Code::AlreadyDone.into());
        }
        if !proof.first.is_signed_by(&key) || !proof.second.is_signed_by(&key) {
            return refuse(Code::BadProof, "a signature does not verify");
        }
        // More than f that are proven faulty: what the graph agreed on need not be true any more. That is for people to look at.
        if self.weight_going() + self.seat_weight(id) > self.fault_weight() {
            return Err(Code::TooManyLeave.into());
        }
        self.operators[id.index()].unseated = Some(Unseated {
            consensus_key: key,
            epoch: slot.epoch,
            round: slot.round,
        });
        self.changes.push(Change::Equivocation {
            operator: id,
            epoch: slot.epoch,
            round: slot.round,
        });
        self.operator_changed(id);
        Ok(Some(Subject::Operator(id)))
    }

    /// Who had that seat under which key, in this epoch or the one before.
    fn seat_in(&self, slot: Slot) -> Result<(OperatorId, Key), Refusal> {
        let at = usize::from(slot.creator);
        let seat = if slot.epoch == self.epoch.number {
            self.members.get(at).map(|s| (s.operator, s.consensus_key))
        } else if slot.epoch.checked_add(1) == Some(self.epoch.number) {
            let former = self.epoch.former.get(at);
            former.map(|s| (s.operator, s.consensus_key))
        } else {
            return refuse(
                Code::BadProof,
                "the events are of too old or an unknown epoch",
            );
        };
        match seat {
            Some(seat) => Ok(seat),
            None => refuse(Code::BadProof, "there is no such seat"),
        }
    }
}
