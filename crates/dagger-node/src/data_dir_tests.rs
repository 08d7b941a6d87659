//! A data directory refuses a second node, another network and a newer format, and keeps what it holds.

use std::fs;

use crate::{
    config::NodeConfig,
    data_dir::DataDir,
    keys::{Key, KeyKind},
};

#[test]
fn a_second_instance_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path(), &[1; 32]).unwrap();
    let error = DataDir::open(dir.path(), &[1; 32]).unwrap_err();
    assert_eq!(error.code(), "E_DATA_DIR_LOCKED");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(first);
    DataDir::open(dir.path(), &[1; 32]).unwrap();
}

#[test]
fn another_network_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), &[1; 32]).unwrap());
    let before = fs::read(dir.path().join("format.json")).unwrap();
    assert_eq!(
        DataDir::open(dir.path(), &[2; 32]).unwrap_err().code(),
        "E_WRONG_NETWORK"
    );
    assert_eq!(fs::read(dir.path().join("format.json")).unwrap(), before);
}

#[test]
fn a_newer_format_is_refused_whatever_else_the_mark_says() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), &[1; 32]).unwrap());
    fs::write(
        dir.path().join("format.json"),
        r#"{"format":3,"network":"unknown today"}"#,
    )
    .unwrap();
    assert_eq!(
        DataDir::open(dir.path(), &[1; 32]).unwrap_err().code(),
        "E_NEWER_FORMAT"
    );
}

#[test]
fn an_older_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), &[1; 32]).unwrap());
    let mark = format!(r#"{{"format":1,"chain_id":"{}"}}"#, "01".repeat(32));
    fs::write(dir.path().join("format.json"), &mark).unwrap();
    assert_eq!(
        DataDir::open(dir.path(), &[1; 32]).unwrap_err().code(),
        "E_OLDER_FORMAT"
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("format.json")).unwrap(),
        mark
    );
}

#[test]
fn a_configuration_survives_its_file_and_unknown_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(dir.path());
    config.name = "alpha".into();
    config.api = None;
    config.save().unwrap();
    let again = NodeConfig::load(dir.path()).unwrap();
    assert_eq!(again.name, "alpha");
    for ports in ["[0, 9]", "[9, 8]"] {
        let publish = format!("[publish]\nports = {ports}\n");
        fs::write(dir.path().join("node.toml"), publish).unwrap();
        let error = NodeConfig::load(dir.path()).unwrap_err();
        assert_eq!(error.code(), "E_CONFIG_INVALID", "{ports}");
    }
    fs::write(dir.path().join("node.toml"), "listne = \"127.0.0.1:1\"\n").unwrap();
    let error = NodeConfig::load(dir.path()).unwrap_err();
    assert_eq!(error.code(), "E_CONFIG_INVALID");
    assert!(error.to_string().contains("listne"), "{error}");
}

#[test]
fn a_key_file_keeps_its_kind_its_mode_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys/node.json");
    let key = Key::generate(KeyKind::Node);
    key.save_new(&path).unwrap();
    assert_eq!(
        Key::load(&path, KeyKind::Node).unwrap().public(),
        key.public()
    );
    assert_eq!(
        Key::load(&path, KeyKind::Consensus).err().unwrap().code(),
        "E_CONFIG_INVALID"
    );
    assert_eq!(
        Key::generate(KeyKind::Node)
            .save_new(&path)
            .unwrap_err()
            .code(),
        "E_IO"
    );
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Key::load(&path, KeyKind::Node).err().unwrap();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
