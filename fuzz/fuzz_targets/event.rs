//! An event is read as it was written or not at all: whatever decodes is exactly what sealing the same content gives.
#![no_main]

use bytes::Bytes;
use dagger_fuzz::{CHAIN, committee, key};
use libfuzzer_sys::fuzz_target;
use shadowgraph::{EventDraft, UnverifiedEvent, VerifiedEvent, verify_events};

const SIGNATURE_BYTES: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Ok(event) = UnverifiedEvent::decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    assert_eq!(event.bytes(), input);
    // Verification never panics, whatever the members, rounds and signatures are.
    let _ = verify_events(vec![event.clone()], &CHAIN, &committee());
    // The log's way in reads the same; it opens the event, so that it can be sealed again.
    let Ok(read) = VerifiedEvent::from_own_log(event.bytes().clone()) else {
        return;
    };
    assert_eq!(read.reference(), event.reference());
    let transactions: Vec<Bytes> = read.transactions().collect();
    assert_eq!(transactions.len(), read.transaction_count() as usize);
    let header = read.bytes();
    let chain_id = shadowgraph::ChainId(header[1..33].try_into().expect("a header is longer"));
    let draft = EventDraft {
        chain_id,
        epoch: read.epoch(),
        round: read.round(),
        creator: read.creator(),
        timestamp_ms: read.timestamp_ms(),
        parents: read.parents().to_vec(),
        checkpoint_votes: read.checkpoint_votes().to_vec(),
        transactions,
    };
    let sealed = draft.seal(&key(0));
    assert_eq!(
        sealed.reference(),
        read.reference(),
        "one content, one digest"
    );
    let signed = input.len() - SIGNATURE_BYTES;
    assert_eq!(
        sealed.bytes()[..signed],
        input[..signed],
        "one content, one form"
    );
});
