//! Proofs from a node that nobody trusts: any bytes are read and verified without panic, in both of their forms.
#![no_main]

use borsh::BorshDeserialize;
use dagger_ledger::{Digest, OutcomeProof, StateProof};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let root = Digest([9; 32]);
    let states = [
        StateProof::try_from_slice(input).ok(),
        serde_json::from_slice(input).ok(),
    ];
    for proof in states.into_iter().flatten() {
        assert!(
            proof.verify(&root).is_err(),
            "a root out of the blue has a proof"
        );
    }
    let outcomes = [
        OutcomeProof::try_from_slice(input).ok(),
        serde_json::from_slice(input).ok(),
    ];
    for proof in outcomes.into_iter().flatten() {
        assert!(
            proof.verify(&root).is_err(),
            "a root out of the blue has a proof"
        );
    }
});
