//! A message has one form: what decodes encodes to the same bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use shadowgraph::Message;

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(message.encode(), input);
    }
});
