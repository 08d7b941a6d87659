//! Transactions of all kinds, good, mutated and made up, against a small ledger: its invariants hold, and what is refused changes
//! no record.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dagger_fuzz::execution::run(input));
