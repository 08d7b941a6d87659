//! Headers of the event log: zeros, bad, or exactly what writing the same record gives.
#![no_main]

use dagger_fuzz::record::{self, HeaderRead, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use libfuzzer_sys::fuzz_target;
/// The checksum that a header carries in its last four bytes is made right, or nothing would ever get past it.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let (content, _) = bytes.split_at(bytes.len() - 4);
    [content, &crc32c::crc32c(content).to_le_bytes()].concat()
}

fuzz_target!(|input: &[u8]| {
    if let Some(header) = input.get(..SEGMENT_HEADER_BYTES) {
        for header in [header.to_vec(), with_checksum(header)] {
            let checked = record::check_segment_header("log".as_ref(), &header, &[7; 32], 1);
            if let Ok(form) = checked {
                assert_eq!(header, record::encode_segment_header(&[7; 32], 1, form));
            }
        }
    }
    let Some((header, body)) = input.split_at_checked(RECORD_HEADER_BYTES) else {
        return;
    };
    for header in [header.to_vec(), with_checksum(header)] {
        let HeaderRead::Good(read) = record::decode_record_header(&header) else {
            continue;
        };
        if read.body_bytes as usize == body.len() && read.body_crc == crc32c::crc32c(body) {
            let mut written = Vec::new();
            record::encode_record(&mut written, &read.key, body);
            assert_eq!(written, [&header, body].concat());
        }
    }
});
