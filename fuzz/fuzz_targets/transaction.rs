//! A transaction that parses is one that serde_json reads alike, writes back, and parses again to the same.
#![no_main]

use dagger_ledger::{SignedTransaction, Transaction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(wire) = SignedTransaction::from_wire(input) {
        assert_eq!(wire.to_wire(), input);
    }
    let Ok(transaction) = Transaction::parse(input) else {
        return;
    };
    // serde_json knows no numbers in strings; where both read a document they read the same.
    if let Ok(lenient) = serde_json::from_slice::<Transaction>(input) {
        assert_eq!(lenient, transaction, "one document, two meanings");
    }
    let written = serde_json::to_vec(&transaction).expect("it serialises");
    assert_eq!(Transaction::parse(&written).as_ref(), Ok(&transaction));
});
