//! A batch of events gets the verdicts that each gets alone, whatever bytes of it are wrong.
#![no_main]

use bytes::Bytes;
use dagger_fuzz::{CHAIN, committee, rounds};
use libfuzzer_sys::fuzz_target;
use shadowgraph::{UnverifiedEvent, verify_events};
use std::sync::OnceLock;

// The input is a list of changes to a batch of valid events: which event, where (16 bits), and what to xor there.
fuzz_target!(|input: &[u8]| {
    static EVENTS: OnceLock<Vec<UnverifiedEvent>> = OnceLock::new();
    let events = EVENTS.get_or_init(|| rounds(2));
    let mut bytes: Vec<Vec<u8>> = events.iter().map(|event| event.bytes().to_vec()).collect();
    for change in input.chunks_exact(4) {
        let count = bytes.len();
        let event = &mut bytes[usize::from(change[0]) % count];
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % event.len();
        event[at] ^= change[3];
    }
    let batch: Vec<_> = bytes
        .into_iter()
        .filter_map(|bytes| UnverifiedEvent::decode(Bytes::from(bytes)).ok())
        .collect();
    let together = verify_events(batch.clone(), &CHAIN, &committee());
    for (event, verdict) in batch.into_iter().zip(together) {
        let untouched = events.iter().any(|valid| valid.bytes() == event.bytes());
        let alone = verify_events(vec![event], &CHAIN, &committee()).remove(0);
        assert_eq!(alone.is_ok(), verdict.is_ok());
        assert!(untouched || verdict.is_err(), "a changed event verifies");
    }
});
