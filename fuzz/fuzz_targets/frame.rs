//! A frame of the node's transport has one form.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/dagger-node/src/transport/frame.rs"]
#[allow(dead_code)]
mod frame;

fuzz_target!(|input: &[u8]| {
    let Some((field, body)) = input.split_first_chunk::<4>() else {
        return;
    };
    let Ok(length) = frame::frame_length(*field) else {
        return;
    };
    if length != body.len() {
        return;
    }
    if let Ok(frame) = frame::Frame::decode(Bytes::copy_from_slice(body)) {
        let encoded = frame.encode();
        assert_eq!([&encoded.head[..], &encoded.body[..]].concat(), input);
    }
});
