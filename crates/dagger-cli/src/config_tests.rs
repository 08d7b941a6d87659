use super::*;

#[test]
fn survives_its_file_and_resolves_relative_paths() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        ClientConfig::load(directory.path()).unwrap(),
        ClientConfig::default()
    );
    let config = ClientConfig {
        api: vec!["http://127.0.0.1:1".to_owned()],
        key: Some("keys/demo.json".into()),
        ..Default::default()
    };
    config.save(directory.path()).unwrap();
    let loaded = ClientConfig::load(directory.path()).unwrap();
    assert_eq!(loaded.key, Some(directory.path().join("keys/demo.json")));
    assert_eq!(loaded.api, config.api);
}

#[test]
fn an_unknown_setting_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE_NAME), "apis = []\n").unwrap();
    let failure = ClientConfig::load(directory.path()).unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_str()),
        (Exit::Usage, "E_CONFIG_INVALID")
    );
}
