use super::*;
use crate::dag_text::{CHAIN, Maker};

fn twins(maker: &Maker) -> (VerifiedEvent, VerifiedEvent) {
    let seat = MemberIndex(2);
    let mut draft = maker.draft(seat, Round(1), vec![maker.genesis(seat)]);
    let one = maker.sign(&draft);
    draft.transactions = vec![bytes::Bytes::from(vec![7; 100_000])];
    (one, maker.sign(&draft))
}

#[test]
fn twins_are_proof_in_either_order_and_without_their_payload() {
    let maker = Maker::new(&[1; 4]);
    let (one, other) = twins(&maker);
    let proof = EquivocationProof::new(&one, &other);
    assert_eq!(proof, EquivocationProof::new(&other, &one));
    assert_eq!(
        proof.verify(&CHAIN, &maker.committee),
        Ok((MemberIndex(2), Round(1)))
    );
    assert!(borsh::to_vec(&proof).unwrap().len() < 1_000);
}

#[test]
fn what_is_no_proof_is_refused() {
    let maker = Maker::new(&[1; 4]);
    let (one, other) = twins(&maker);
    let proof = EquivocationProof::new(&one, &other);
    let twice = EquivocationProof {
        first: proof.first.clone(),
        second: proof.first.clone(),
    };
    assert_eq!(
        twice.verify(&CHAIN, &maker.committee),
        Err(ProofError::Order)
    );
    let swapped = EquivocationProof {
        first: proof.second.clone(),
        second: proof.first.clone(),
    };
    assert_eq!(
        swapped.verify(&CHAIN, &maker.committee),
        Err(ProofError::Order)
    );
    assert_eq!(
        proof.verify(&ChainId([0; 32]), &maker.committee),
        Err(ProofError::Slot)
    );
    let later = maker.sign(&maker.draft(MemberIndex(2), Round(2), vec![*one.reference()]));
    let rounds = EquivocationProof::new(&one, &later);
    assert_eq!(
        rounds.verify(&CHAIN, &maker.committee),
        Err(ProofError::Slot)
    );
    let mut unsigned = proof.clone();
    unsigned.second.signature = unsigned.first.signature;
    assert_eq!(
        unsigned.verify(&CHAIN, &maker.committee),
        Err(ProofError::BadSignature)
    );
    let mut torn = proof;
    torn.first.header.pop();
    assert_eq!(
        torn.verify(&CHAIN, &maker.committee),
        Err(ProofError::Malformed)
    );
}
