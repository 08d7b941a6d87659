//! Metering: what a VM held is counted exactly, for who asked for it and for who hosted it, and anybody can verify the count.

use super::guests::Network;
use super::support::{json, refused, wait};

#[test]
fn what_was_held_is_metered_and_proven() {
    let root = tempfile::tempdir().unwrap();
    let network = Network::start(root.path(), &["alpha"]);
    let api = network.homes[0].api();
    let genesis = network.homes[0].data.join("genesis.json");
    let genesis = genesis.to_str().unwrap();
    let usage = |words: &[&str]| {
        let mut command = vec!["--api", &api];
        command.extend(words);
        command.extend(["--genesis", genesis]);
        json(&command)
    };
    network.create("web");
    let running = usage(&["account", "usage", "shop"]);
    assert_eq!(running["holds"]["vcpus"], 1);
    assert_eq!(running["holds"]["memory_mib"], 64);
    network.signed(&network.key(), "vm delete web --wait");
    // A proof is of a certified checkpoint, which comes some moments after the deletion.
    let of_account = wait("a checkpoint at which nothing is held", || {
        let report = usage(&["account", "usage", "shop"]);
        (report["holds"]["vcpus"] == 0).then_some(report)
    });
    let amount = |report: &serde_json::Value, name: &str| -> u128 {
        report["held"][name].as_str().unwrap().parse().unwrap()
    };
    let vcpu_ms = amount(&of_account, "vcpu_ms");
    assert!(vcpu_ms > 0 && vcpu_ms >= amount(&running, "vcpu_ms"));
    assert_eq!(amount(&of_account, "memory_mib_ms"), 64 * vcpu_ms);
    assert_eq!(amount(&of_account, "disk_mib_ms"), 16 * vcpu_ms);
    let file = root.path().join("usage.json");
    let file = file.to_str().unwrap();
    let of_operator = usage(&["operator", "usage", "alpha", "--file", file]);
    for name in ["vcpu_ms", "memory_mib_ms", "disk_mib_ms"] {
        assert_eq!(amount(&of_operator, name), amount(&of_account, name));
    }
    let proven = json(&["ledger", "verify", file, "--genesis", genesis]);
    assert_eq!(proven["record"]["record"]["name"], "alpha");
    let unknown = ["--api", &api, "account", "usage", "nobody"];
    assert_eq!(refused(&unknown), "unknown_account");
    let other = root.path().join("other.json");
    let document = std::fs::read_to_string(genesis).unwrap();
    std::fs::write(&other, document.replace("\"test\"", "\"other\"")).unwrap();
    let other = other.to_str().unwrap();
    let elsewhere = [
        "--api",
        &api,
        "account",
        "usage",
        "shop",
        "--genesis",
        other,
    ];
    assert_eq!(refused(&elsewhere), "E_NOT_PROVEN");
    let data = network.homes[0].data.clone();
    let data = data.to_str().unwrap();
    let replay = ["ledger", "replay", "--data", data];
    assert_eq!(refused(&replay), "E_DATA_DIR_LOCKED");
    drop(network);
    let replayed = json(&replay);
    assert!(replayed["checkpoint"].as_u64() >= of_account["checkpoint"].as_u64());
    assert!(replayed["compared"].as_u64() > Some(0));
}
