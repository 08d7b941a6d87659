use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_key_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demo.json");
    let key = SecretKey::generate();
    write(&path, KeyKind::Account, &key).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        read(&path, KeyKind::Account).unwrap().expose(),
        key.expose()
    );
}

#[test]
fn a_key_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demo.json");
    write(&path, KeyKind::Account, &SecretKey::generate()).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(
        write(&path, KeyKind::Account, &SecretKey::generate())
            .unwrap_err()
            .code(),
        "E_KEY_EXISTS"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn a_useless_file_is_refused_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demo.json");
    assert_eq!(
        read(&path, KeyKind::Account).unwrap_err().code(),
        "E_KEY_MISSING"
    );
    write(&path, KeyKind::Account, &SecretKey::generate()).unwrap();
    assert_eq!(
        read(&path, KeyKind::Operator).unwrap_err().code(),
        "E_KEY_KIND"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        read(&path, KeyKind::Account).unwrap_err().code(),
        "E_KEY_EXPOSED"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, r#"{"kind":"account","public":"00","secret":"11"}"#).unwrap();
    assert_eq!(
        read(&path, KeyKind::Account).unwrap_err().code(),
        "E_KEY_MALFORMED"
    );
}

#[test]
fn a_secret_is_not_printed() {
    let key = SecretKey::from_bytes([9; 32]);
    assert!(!format!("{key:?}").contains(&hex::encode(key.expose())));
}
