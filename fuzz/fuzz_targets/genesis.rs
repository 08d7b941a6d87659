//! A genesis document is refused or is written and read back to the same.
#![no_main]

use dagger_ledger::Genesis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(genesis) = Genesis::from_json(input) else {
        return;
    };
    let again =
        Genesis::from_json(genesis.to_json().as_bytes()).expect("what is written can be read");
    assert_eq!(again.to_json(), genesis.to_json());
});
