//! What operators do to themselves, their machines and the network, as commands: on four real nodes.

use super::support::{Home, found, json, refused, wait};
use serde_json::Value;
use std::path::Path;

/// A command signed with a key file.
fn signed<'a>(home: &'a Home, key: &'a Path, words: &[&'a str]) -> Vec<String> {
    let api = home.api();
    let common = ["--api", &api, "--key", key.to_str().unwrap()];
    common
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect()
}

fn done(home: &Home, key: &Path, words: &[&str]) -> Value {
    let words = signed(home, key, words);
    json(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn code(home: &Home, key: &Path, words: &[&str]) -> String {
    let words = signed(home, key, words);
    refused(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn operators_change_parameters_keys_and_machines() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha", "bravo", "charlie", "delta"]);
    let _nodes: Vec<_> = homes.iter().map(Home::start).collect();
    homes.iter().for_each(|home| drop(home.ready()));
    let key = |home: &Home| home.data.join("keys/operator.json");
    let (alpha, old_key) = (&homes[0], key(&homes[0]));

    // A parameter by its name; the others stay.
    let parameters = || json(&["--api", &alpha.api(), "operator", "parameters"]);
    let before = parameters();
    let unknown = ["operator", "propose-parameters", "lease=9000"];
    assert_eq!(code(alpha, &old_key, &unknown), "E_USAGE");
    let longer = ["operator", "propose-parameters", "retry_ms=6000"];
    done(alpha, &old_key, &longer);
    for home in &homes[1..3] {
        done(home, &key(home), &["operator", "vote", "0"]);
    }
    let after = wait("the vote to be in force", || {
        Some(parameters()).filter(|p| p["retry_ms"] == 6_000)
    });
    let mut expected = before;
    expected["retry_ms"] = 6_000.into();
    assert_eq!(after, expected);

    // The version of the rules: only a higher one, and one that the programs know unless it is insisted on.
    let present = dagger_ledger::NEWEST_PROTOCOL_VERSION.to_string();
    let next = (dagger_ledger::NEWEST_PROTOCOL_VERSION + 1).to_string();
    let propose = ["operator", "propose-version", &present];
    assert_eq!(code(alpha, &old_key, &propose), "out_of_range");
    let propose = ["operator", "propose-version", &next];
    assert_eq!(code(alpha, &old_key, &propose), "E_USAGE");
    let insisted = ["operator", "propose-version", &next, "--even-unknown"];
    done(alpha, &old_key, &insisted);
    let newest = &json(&["--api", &alpha.api(), "operator", "proposals"])[0];
    assert_eq!(newest["text"], format!("rules of version {next}"));
    assert_eq!(newest["approvals"], serde_json::json!(["alpha"]));

    // A machine: what is not named stays.
    let file = root.path().join("other-node.json");
    let file = file.to_str().unwrap();
    let node_key = alpha.status().unwrap()["node_key"].clone();
    let add = format!(
        "machine add big --node-key {} --vcpus 4 --memory 4G --disk 10G --label region=eu --label rack=a",
        node_key.as_str().unwrap()
    );
    done(alpha, &old_key, &add.split(' ').collect::<Vec<_>>());
    let update =
        "machine update big --memory 8G --cpu-overcommit 1.5 --label rack=b --no-label region";
    done(alpha, &old_key, &update.split(' ').collect::<Vec<_>>());
    done(alpha, &old_key, &["machine", "key", "big", file]);
    let machine = &json(&["--api", &alpha.api(), "machine", "list"])[0];
    assert_eq!(machine["capacity"]["memory_mib"], 8_192);
    assert_eq!(machine["capacity"]["vcpus"], 4);
    assert_eq!(machine["cpu_permille"], 1_500);
    assert_eq!(machine["labels"], serde_json::json!({"rack": "b"}));
    let made: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(machine["node_key"], made["public"]);

    // Accounts: one that has a sponsor is not taken from it.
    let sponsor = ["operator", "sponsor", "shop", &"ab".repeat(32)];
    assert_eq!(code(alpha, &old_key, &sponsor), "bad_key");
    let public = made["public"].as_str().unwrap();
    let sponsor = ["operator", "sponsor", "shop", public];
    assert_eq!(code(alpha, &old_key, &sponsor), "key_in_use");
    let customer = dagger_client::keys::SecretKey::generate();
    let public = hex::encode(customer.public());
    done(alpha, &old_key, &["operator", "sponsor", "shop", &public]);
    let adopt = ["operator", "adopt", "shop"];
    assert_eq!(code(&homes[1], &key(&homes[1]), &adopt), "unauthorised");
    let quota = "operator quota shop --vms 1 --vcpus 1 --memory 1G --disk 1G";
    done(alpha, &old_key, &quota.split(' ').collect::<Vec<_>>());

    // The operator's own key: the file is made, signs from now on, and the old one does not.
    let new_key = root.path().join("new-operator.json");
    let keys = [
        "operator",
        "keys",
        "--operator-key",
        new_key.to_str().unwrap(),
    ];
    done(alpha, &old_key, &keys);
    let drain = ["machine", "drain", "big"];
    assert_eq!(code(alpha, &old_key, &drain), "unknown_signer");
    done(alpha, &new_key, &drain);
}
