//! The forms that names, keys and texts must have. Pure checks; each returns the code of the rule that is broken.

use crate::code::Code;
use crate::ids::Key;

/// Longest DNS label.
pub const LABEL_BYTES_MAX: usize = 63;

/// A DNS label: 1 to 63 of `a-z`, `0-9`, `-`; no `-` at either end.
pub fn check_label(name: &str) -> Result<(), Code> {
    let bytes = name.as_bytes();
    let inside = bytes
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    let edges = bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-');
    if bytes.is_empty() || bytes.len() > LABEL_BYTES_MAX || !inside || !edges {
        Err(Code::BadName)
    } else {
        Ok(())
    }
}

/// A text for people: at most `max` bytes, no control characters and none that change the writing direction.
pub fn check_text(text: &str, max: usize) -> Result<(), Code> {
    let steers = |c: char| matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if text.len() > max || text.chars().any(|c| c.is_control() || steers(c)) {
        Err(Code::BadText)
    } else {
        Ok(())
    }
}

/// One line of an OpenSSH public key: printable ASCII with a known shape. The guest's sshd is the judge of the rest.
pub fn check_ssh_key(line: &str) -> Result<(), Code> {
    let printable = line.bytes().all(|b| (0x20..0x7f).contains(&b));
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or("");
    let body = words.next().unwrap_or("");
    let known =
        kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    if line.len() > 1_024 || !printable || !known || body.is_empty() {
        Err(Code::BadText)
    } else {
        Ok(())
    }
}

/// A key that may be given a role: canonical, a point of the curve, and not of small order (for such a key anybody can sign).
pub fn check_key(key: &Key) -> Result<(), Code> {
    if SMALL_ORDER.contains(&key.0) || !is_canonical(&key.0) {
        return Err(Code::BadKey);
    }
    ed25519_zebra::VerificationKey::try_from(key.0)
        .map(|_| ())
        .map_err(|_| Code::BadKey)
}

/// y < p = 2^255 - 19, and not the sign bit on x = 0 (those are in the small-order list).
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    let high = y[31] == 0x7f && y[1..31].iter().all(|b| *b == 0xff);
    !(high && y[0] >= 0xed)
}

/// The canonical encodings of the eight points of small order, and the two with the sign bit on x = 0.
const SMALL_ORDER: [[u8; 32]; 10] = {
    let zero = [0u8; 32];
    let mut zero_signed = [0u8; 32];
    zero_signed[31] = 0x80;
    let mut one = [0u8; 32];
    one[0] = 1;
    let mut one_signed = one;
    one_signed[31] = 0x80;
    let mut minus_one = [0xffu8; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let minus_one_signed = {
        let mut m = minus_one;
        m[31] = 0xff;
        m
    };
    let order8: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ];
    let mut order8_signed = order8;
    order8_signed[31] |= 0x80;
    let order8_other: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ];
    let mut order8_other_signed = order8_other;
    order8_other_signed[31] |= 0x80;
    [
        zero,
        zero_signed,
        one,
        one_signed,
        minus_one,
        minus_one_signed,
        order8,
        order8_signed,
        order8_other,
        order8_other_signed,
    ]
};
