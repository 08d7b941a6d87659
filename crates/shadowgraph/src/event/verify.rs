//! The rules of an event that need no graph, and its signatures, in batches. docs/protocol.md 2.5 to 2.9.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use thiserror::Error;

use super::{EventRef, UnverifiedEvent, VerifiedEvent};
use crate::committee::{Committee, MemberSet};
use crate::ids::{ChainId, Epoch, MemberIndex, Round};
use crate::keys::{Domain, PublicKey, Signature};

/// Why a well-formed event may not enter a graph. Every one is the creator's or the sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Of another network.
    #[error("the event is of another chain")]
    WrongChain,
    /// Of another epoch.
    #[error("the event is of epoch {0}, the committee of epoch {1}")]
    WrongEpoch(Epoch, Epoch),
    /// The creator or a parent's creator holds no seat.
    #[error("there is no member {0}")]
    UnknownMember(MemberIndex),
    /// Round 0 holds only the virtual genesis events.
    #[error("an event of round 0")]
    RoundZero,
    /// A parent is not of a lower round.
    #[error("a parent of round {0} in an event of round {1}")]
    ParentRound(Round, Round),
    /// The creator's own last event is not among the parents, or a parent of round 0 is not that genesis event.
    #[error("the own parent is missing or is not the genesis event it claims to be")]
    OwnParent,
    /// The parents of the round before are of less than quorum weight.
    #[error("parents of the round before have weight {0}, a quorum is {1}")]
    ParentWeight(u64, u64),
    /// A vote is for a checkpoint of another epoch.
    #[error("a vote for a checkpoint of another epoch")]
    VoteEpoch,
    /// The event's signature or one of its votes does not verify.
    #[error("a signature of member {0} does not verify")]
    BadSignature(MemberIndex),
}

/// Verifies many events at once. A batch with bad signatures is bisected: about log2 of the batch per bad one.
#[must_use]
pub fn verify_events(
    events: Vec<UnverifiedEvent>,
    chain_id: &ChainId,
    committee: &Committee,
) -> Vec<Result<VerifiedEvent, VerifyError>> {
    let checked: Vec<Result<(), VerifyError>> = events
        .iter()
        .map(|event| check_form(event, chain_id, committee))
        .collect();
    let mut bad = vec![false; events.len()];
    // The usual case by far: one event with one signature.
    if let ([event], [Ok(())]) = (&events[..], &checked[..])
        && event.0.checkpoint_votes.is_empty()
    {
        bad[0] = !own_signature_verifies(event, committee);
    } else {
        mark_bad(&events, &checked, chain_id, committee, &mut bad);
    }
    let verdict = |((event, checked), bad): ((UnverifiedEvent, Result<(), VerifyError>), bool)| {
        checked?;
        if bad {
            return Err(VerifyError::BadSignature(event.0.reference.creator));
        }
        Ok(VerifiedEvent::trusted(event))
    };
    events
        .into_iter()
        .zip(checked)
        .zip(bad)
        .map(verdict)
        .collect()
}

/// The event's own signature alone, with the key that the committee has decoded already.
fn own_signature_verifies(event: &UnverifiedEvent, committee: &Committee) -> bool {
    let event = &*event.0;
    let message = Domain::Event.signed_bytes(&[&event.reference.digest.0]);
    let key = committee.key(event.reference.creator);
    key.is_some_and(|key| key.verify(&message, &event.signature))
}

/// Marks those of the well-formed events that carry a bad signature, of theirs or of a vote.
fn mark_bad(
    events: &[UnverifiedEvent],
    checked: &[Result<(), VerifyError>],
    chain_id: &ChainId,
    committee: &Committee,
    bad: &mut [bool],
) {
    let mut items = Vec::new();
    for (position, event) in events.iter().enumerate() {
        if checked[position].is_ok() {
            let key = committee
                .member(event.0.reference.creator)
                .expect("checked")
                .key;
            items.extend(signed_items(event, chain_id, key, position));
        }
    }
    find_bad(&items, bad);
}

fn check_form(
    event: &UnverifiedEvent,
    chain_id: &ChainId,
    committee: &Committee,
) -> Result<(), VerifyError> {
    let event = &*event.0;
    let (round, creator) = (event.reference.round, event.reference.creator);
    if event.chain_id != *chain_id {
        return Err(VerifyError::WrongChain);
    }
    if event.epoch != committee.epoch() {
        return Err(VerifyError::WrongEpoch(event.epoch, committee.epoch()));
    }
    if committee.member(creator).is_none() {
        return Err(VerifyError::UnknownMember(creator));
    }
    if round == Round(0) {
        return Err(VerifyError::RoundZero);
    }
    // docs/protocol.md 2.6: the own parent; the only parents of round 0 are own genesis events.
    let mut own_parent = false;
    let mut previous_round = MemberSet::default();
    for parent in &event.parents {
        if committee.member(parent.creator).is_none() {
            return Err(VerifyError::UnknownMember(parent.creator));
        }
        if parent.round >= round {
            return Err(VerifyError::ParentRound(parent.round, round));
        }
        let own = parent.creator == creator;
        if parent.round == Round(0)
            && (!own || *parent != EventRef::genesis(chain_id, event.epoch, creator))
        {
            return Err(VerifyError::OwnParent);
        }
        own_parent |= own;
        if parent.round.next() == round {
            previous_round.insert(committee, parent.creator);
        }
    }
    if !own_parent {
        return Err(VerifyError::OwnParent);
    }
    // docs/protocol.md 2.7: round r - 1 in quorum weight, from round 2 on.
    if round > Round(1) && previous_round.weight() < committee.quorum_weight() {
        return Err(VerifyError::ParentWeight(
            previous_round.weight(),
            committee.quorum_weight(),
        ));
    }
    if event
        .checkpoint_votes
        .iter()
        .any(|vote| vote.checkpoint.epoch != event.epoch)
    {
        return Err(VerifyError::VoteEpoch);
    }
    Ok(())
}

/// One signature to check, and the event that stands or falls with it.
struct Item {
    position: usize,
    item: ed25519_zebra::batch::Item,
    /// What the batch's coefficients are drawn from: everything the equation depends on.
    transcript: [u8; 32],
}

fn signed_items(
    event: &UnverifiedEvent,
    chain_id: &ChainId,
    key: PublicKey,
    position: usize,
) -> Vec<Item> {
    let event = &*event.0;
    let own = (
        Domain::Event.signed_bytes(&[&event.reference.digest.0]),
        event.signature,
    );
    let votes = event.checkpoint_votes.iter();
    let votes = votes.map(|vote| (vote.checkpoint.signed_bytes(chain_id), vote.signature));
    std::iter::once(own)
        .chain(votes)
        .map(|(message, signature)| item(key, &message, signature, position))
        .collect()
}

fn item(key: PublicKey, message: &[u8], signature: Signature, position: usize) -> Item {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0).update(&signature.0).update(message);
    let key = ed25519_zebra::VerificationKeyBytes::from(key.0);
    let signature = ed25519_zebra::Signature::from(signature.0);
    let item = ed25519_zebra::batch::Item::from((key, signature, message));
    Item {
        position,
        item,
        transcript: *hasher.finalize().as_bytes(),
    }
}

/// Marks every position with a bad signature, halving until the bad ones stand alone.
fn find_bad(items: &[Item], bad: &mut [bool]) {
    let mut open = vec![items];
    while let Some(part) = open.pop() {
        match part {
            [] => {}
            [one] => bad[one.position] |= one.item.clone().verify_single().is_err(),
            _ if batch_verifies(part) => {}
            _ => {
                let (left, right) = part.split_at(part.len() / 2);
                open.push(left);
                open.push(right);
            }
        }
    }
}

fn batch_verifies(items: &[Item]) -> bool {
    let mut transcript = blake3::Hasher::new_derive_key("dagger signature batch v1");
    let mut batch = ed25519_zebra::batch::Verifier::new();
    for item in items {
        transcript.update(&item.transcript);
        batch.queue(item.item.clone());
    }
    batch
        .verify(Coefficients(transcript.finalize_xof()))
        .is_ok()
}

/// The batch equation's random coefficients, drawn from a hash of the whole batch: whoever could choose signatures
/// to fit them could find collisions. Needs no source of randomness and replays.
struct Coefficients(blake3::OutputReader);

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(destination);
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
