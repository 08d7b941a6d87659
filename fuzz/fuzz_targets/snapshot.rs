//! A ledger's snapshot comes from a stranger before its root can be compared: it is refused, or restored to a ledger that
//! writes the same snapshot.
#![no_main]

use dagger_ledger::Ledger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(ledger) = Ledger::restore(input) {
        let written = ledger.snapshot();
        let again = Ledger::restore(&written).expect("what is written can be read");
        assert_eq!(again.snapshot(), written);
    }
});
