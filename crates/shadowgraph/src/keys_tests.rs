use super::*;

fn key(hex_text: &str) -> PublicKey {
    PublicKey(hex::decode(hex_text).unwrap().try_into().unwrap())
}

#[test]
fn small_order_keys_are_refused() {
    for text in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        // The same points in forms that are not canonical.
        "0100000000000000000000000000000000000000000000000000000000000080",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        assert!(!key(text).is_admissible(), "{text}");
    }
}

#[test]
fn keys_that_are_not_canonical_are_refused() {
    // y = p + 3 .. p + 18: some decode to a point under ZIP-215, none is the canonical form.
    for low in 0xf0..=0xff_u8 {
        let mut bytes = FIELD_PRIME;
        bytes[0] = low;
        assert!(!PublicKey(bytes).is_admissible());
    }
}

#[test]
fn ordinary_keys_sign_and_verify() {
    let signer = SigningKey::from_bytes([7; 32]);
    assert!(signer.public().is_admissible());
    let message = Domain::Event.signed_bytes(&[b"hello"]);
    let signature = signer.sign(&message);
    assert!(signer.public().verify(&message, &signature));
    assert!(!signer.public().verify(b"other", &signature));
    assert_eq!(signature, signer.sign(&message));
}
