//! A proof of equivocation has one form, verifies without panic, and stays true of the two headers it names.
#![no_main]

use borsh::BorshDeserialize;
use dagger_fuzz::{CHAIN, committee};
use libfuzzer_sys::fuzz_target;
use shadowgraph::EquivocationProof;

fuzz_target!(|input: &[u8]| {
    let Ok(proof) = EquivocationProof::try_from_slice(input) else {
        return;
    };
    assert_eq!(borsh::to_vec(&proof).expect("it encodes"), input);
    if proof.verify(&CHAIN, &committee()).is_ok() {
        assert!(proof.first.digest() < proof.second.digest());
        let swapped = EquivocationProof {
            first: proof.second,
            second: proof.first,
        };
        assert!(
            swapped.verify(&CHAIN, &committee()).is_err(),
            "two forms of one proof"
        );
    }
});
