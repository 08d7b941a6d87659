use super::*;
use crate::keys::SecretKey;

const CHAIN: Digest = Digest([7; 32]);
const SECRET: &[u8] = b"#cloud-config\npassword: correct horse battery staple\n";

fn machines() -> Vec<(String, Key)> {
    let key = |seed| Key(SecretKey::from_bytes([seed; 32]).public());
    vec![("m-1".into(), key(1)), ("m-2".into(), key(2))]
}

#[test]
fn every_machine_named_opens_it_and_no_other() {
    let sealed = seal(&CHAIN, SECRET, &machines()).unwrap();
    let (data, body) = (&sealed.user_data, &sealed.body);
    assert_eq!(data.size_bytes, body.len() as u64);
    assert_eq!(open(&CHAIN, data, body, "m-1", &[1; 32]).unwrap(), SECRET);
    assert_eq!(open(&CHAIN, data, body, "m-2", &[2; 32]).unwrap(), SECRET);
    assert_eq!(
        open(&CHAIN, data, body, "m-3", &[1; 32]),
        Err(UserDataError::NotForThisMachine("m-3".into()))
    );
    // Another machine's key, or a name that is not its own, opens nothing.
    for (machine, seed) in [("m-1", 2), ("m-2", 1), ("m-1", 3)] {
        assert_eq!(
            open(&CHAIN, data, body, machine, &[seed; 32]),
            Err(UserDataError::Damaged)
        );
    }
}

#[test]
fn nothing_of_it_stands_in_the_clear_and_two_sealings_differ() {
    let first = seal(&CHAIN, SECRET, &machines()).unwrap();
    let second = seal(&CHAIN, SECRET, &machines()).unwrap();
    assert!(
        !first
            .body
            .windows(12)
            .any(|w| SECRET.windows(12).any(|s| s == w))
    );
    assert_ne!(first.user_data.digest, second.user_data.digest);
    let keys = |sealed: &Sealed| sealed.user_data.keys.clone();
    assert_ne!(keys(&first)[0].wrapped, keys(&second)[0].wrapped);
    assert!(keys(&first).iter().all(|key| key.wrapped.len() <= 512));
}

#[test]
fn what_was_tampered_with_stays_closed() {
    let sealed = seal(&CHAIN, SECRET, &machines()).unwrap();
    let damaged = Err(UserDataError::Damaged);
    let mut body = sealed.body.clone();
    *body.last_mut().unwrap() ^= 1;
    assert_eq!(
        open(&CHAIN, &sealed.user_data, &body, "m-1", &[1; 32]),
        damaged
    );
    // Also when whoever did it names the digest of his own bytes.
    let mut data = sealed.user_data.clone();
    data.digest = Digest(*blake3::hash(&body).as_bytes());
    assert_eq!(open(&CHAIN, &data, &body, "m-1", &[1; 32]), damaged);
    let other = Digest([8; 32]);
    assert_eq!(
        open(&other, &sealed.user_data, &sealed.body, "m-1", &[1; 32]),
        damaged
    );
    for wrapped in ["", "00", "zz", &"00".repeat(80)] {
        let mut data = sealed.user_data.clone();
        data.keys[0].wrapped = wrapped.into();
        assert_eq!(open(&CHAIN, &data, &sealed.body, "m-1", &[1; 32]), damaged);
    }
}

#[test]
fn a_key_that_is_none_is_named() {
    // No point of the curve has the coordinate 2.
    let mut key = [0; 32];
    key[0] = 2;
    let machines = [("broken".to_owned(), Key(key))];
    assert_eq!(
        seal(&CHAIN, SECRET, &machines).unwrap_err(),
        UserDataError::BadMachineKey("broken".into())
    );
}
