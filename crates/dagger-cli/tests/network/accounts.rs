//! An account's keys: another one may do what it was allowed and nothing else, and a rotated one means nothing any more.

use super::guests::Network;
use super::support::{code, json, text};

#[test]
fn keys_are_delegated_revoked_and_rotated() {
    let root = tempfile::tempdir().unwrap();
    let network = Network::start(root.path(), &["alpha"]);
    network.create("web");
    let (api, directory) = (network.homes[0].api(), root.path().join("client"));
    let directory = directory.to_str().unwrap();
    let new = ["--config-dir", directory, "account", "new", "helper"];
    let helper = json(&new);
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (public, helper) = (word(&helper["public_key"]), word(&helper["key_file"]));
    let owner = network.key();
    let refused = |key: &str, command: &str| {
        let command = format!("--output json {command}");
        let output = network.run(key, &command);
        assert!(!output.status.success(), "{command}");
        code(&text(&output.stderr))
    };

    assert_eq!(refused(&helper, "vm stop web"), "unknown_signer");
    let delegate = format!("account delegate {public} --allow vm_stop --vm web --valid-for 1h");
    network.signed(&owner, &delegate);
    network.signed(&helper, "vm stop web --wait");
    assert_eq!(network.vm("web")["phase"], "stopped");
    assert_eq!(refused(&helper, "vm start web"), "unauthorised");
    assert_eq!(refused(&helper, &delegate), "unauthorised");
    let account = json(&["--api", &api, "account", "show", "shop"]);
    assert_eq!(account["delegations"][0]["key"], public.as_str());
    assert_eq!(account["delegations"][0]["vms"][0], "web");
    network.signed(&owner, &format!("account revoke {public}"));
    assert_eq!(refused(&helper, "vm stop web"), "unknown_signer");

    let rotate = ["--config-dir", directory, "--api", &api, "--key", &owner];
    let rotated = json(&[&rotate[..], &["account", "rotate"]].concat());
    assert_eq!(refused(&owner, "vm start web"), "unknown_signer");
    network.signed(&word(&rotated["key_file"]), "vm start web --wait");
}
