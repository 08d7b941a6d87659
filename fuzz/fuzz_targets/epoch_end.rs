//! The end of an epoch has one form, and only that of a committee that a quorum of the epoch named verifies.
#![no_main]

use borsh::BorshDeserialize;
use dagger_fuzz::{CHAIN, committee, epoch_end};
use libfuzzer_sys::fuzz_target;
use shadowgraph::EpochEnd;

fuzz_target!(|input: &[u8]| {
    let Ok(end) = EpochEnd::try_from_slice(input) else {
        return;
    };
    assert_eq!(borsh::to_vec(&end).expect("it encodes"), input);
    if end.verify(&CHAIN, &committee()).is_ok() {
        assert_eq!(end.next, epoch_end().next, "signed by nobody");
    }
});
