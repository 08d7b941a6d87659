//! A certificate has one form, and none that was not signed by three of four verifies.
#![no_main]

use borsh::BorshDeserialize;
use dagger_fuzz::{CHAIN, checkpoint, committee};
use libfuzzer_sys::fuzz_target;
use shadowgraph::CheckpointCertificate;

fuzz_target!(|input: &[u8]| {
    let Ok(certificate) = CheckpointCertificate::try_from_slice(input) else {
        return;
    };
    assert_eq!(borsh::to_vec(&certificate).expect("it encodes"), input);
    if certificate.verify(&CHAIN, &committee()).is_ok() {
        assert_eq!(certificate.checkpoint, checkpoint(), "signed by nobody");
        assert!(certificate.signatures.len() >= 3);
    }
});
