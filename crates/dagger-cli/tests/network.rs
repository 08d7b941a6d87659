//! Bad input to whole processes: nodes that must not start, nodes that must not go on, transactions
//! that must be refused. Each by its stable code, and with nothing lost. What one crate decides alone
//! is tested there.

#[path = "network/accounts.rs"]
mod accounts;
#[path = "network/connections.rs"]
mod connections;
#[path = "network/disputes.rs"]
mod disputes;
#[path = "network/groups.rs"]
mod groups;
#[path = "network/guests.rs"]
mod guests;
#[path = "network/kills.rs"]
mod kills;
#[path = "network/operators.rs"]
mod operators;
#[path = "network/proofs.rs"]
mod proofs;
#[path = "network/publish.rs"]
mod publish;
#[path = "network/support.rs"]
mod support;
#[path = "network/transactions.rs"]
mod transactions;
#[path = "network/usage.rs"]
mod usage;

use std::net::{TcpListener, UdpSocket};
use support::{found, run, text, untouched};

#[test]
fn a_second_node_on_one_data_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let _first = homes[0].start();
    homes[0].ready();
    assert_eq!(homes[0].start_refused(), "E_DATA_DIR_LOCKED");
    assert_eq!(homes[0].ready()["state"], "ready", "the first one goes on");
}

#[test]
fn a_taken_port_is_named() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let taken = TcpListener::bind(homes[0].address).unwrap();
    assert_eq!(homes[0].start_refused(), "E_PORT_IN_USE");
    drop(taken);
    let taken = UdpSocket::bind(homes[0].address).unwrap();
    assert_eq!(homes[0].start_refused(), "E_PORT_IN_USE");
    drop(taken);
    let _node = homes[0].start();
    homes[0].ready();
}

#[test]
fn data_of_another_network_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    {
        let _node = homes[0].start();
        homes[0].ready();
    }
    let genesis = homes[0].data.join("genesis.json");
    let right = std::fs::read(&genesis).unwrap();
    let other = String::from_utf8(right.clone())
        .unwrap()
        .replace("\"test\"", "\"other\"");
    std::fs::write(&genesis, other).unwrap();
    let before = untouched(&homes[0].data);
    assert_eq!(homes[0].start_refused(), "E_WRONG_NETWORK");
    assert!(
        untouched(&homes[0].data) == before,
        "the refusal wrote something"
    );
    std::fs::write(&genesis, right).unwrap();
    let _node = homes[0].start();
    homes[0].ready();
}

#[test]
fn data_of_a_newer_version_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    {
        let _node = homes[0].start();
        homes[0].ready();
    }
    let file = homes[0].data.join("format.json");
    let right = std::fs::read(&file).unwrap();
    let mut format: serde_json::Value = serde_json::from_slice(&right).unwrap();
    let version = format["format"]
        .as_u64()
        .expect("format.json holds its number");
    format["format"] = (version + 1).into();
    std::fs::write(&file, format.to_string()).unwrap();
    let before = untouched(&homes[0].data);
    assert_eq!(homes[0].start_refused(), "E_NEWER_FORMAT");
    assert!(
        untouched(&homes[0].data) == before,
        "the refusal wrote something"
    );
    std::fs::write(&file, right).unwrap();
    let _node = homes[0].start();
    homes[0].ready();
}

#[test]
fn of_two_nodes_with_one_key_one_stops() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha", "bravo", "charlie", "delta"]);
    let others: Vec<_> = homes[1..].iter().map(support::Home::start).collect();
    let mut first = homes[0].start();
    homes.iter().for_each(|home| drop(home.ready()));
    let mut twin = support::twin_of(&homes[0], root.path().join("twin")).start();
    let stopped = support::wait("one of the two to stop", || {
        let first_ended = first.child.try_wait().unwrap().is_some();
        let twin_ended = twin.child.try_wait().unwrap().is_some();
        (first_ended || twin_ended).then(|| if first_ended { first.log() } else { twin.log() })
    });
    assert_eq!(support::code(&stopped), "E_DUPLICATE_KEY");
    drop(others);
}

#[test]
fn without_a_hypervisor_a_node_is_a_member_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let _node = homes[0].start_with_path("/nonexistent");
    let status = homes[0].ready();
    let problems = status["problems"].as_array().unwrap();
    let codes: Vec<_> = problems.iter().map(|problem| &problem["code"]).collect();
    assert!(
        codes.iter().any(|code| *code == "E_QEMU_MISSING"),
        "{codes:?}"
    );
}

#[test]
fn a_node_examines_itself_and_an_absent_one_is_examined_from_outside() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let (api, data) = (homes[0].api(), homes[0].data.to_str().unwrap());
    let doctor = || {
        let mut arguments = vec!["--output", "json", "--api", &api];
        arguments.extend(["node", "doctor", "--data", data]);
        let output = run(&arguments);
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let verdicts = checks.iter().map(|check| {
            let word = |field: &str| check[field].as_str().unwrap().to_owned();
            (word("name"), word("verdict"))
        });
        let verdicts: std::collections::BTreeMap<_, _> = verdicts.collect();
        (output.status.code(), verdicts)
    };
    let (status, verdicts) = doctor();
    assert_eq!(status, Some(1));
    assert_eq!(verdicts["node"], "fail");
    assert_eq!(verdicts["ports"], "ok");
    let _node = homes[0].start_with_path("/nonexistent");
    homes[0].ready();
    let (status, verdicts) = doctor();
    assert_eq!(status, Some(1), "it cannot host: {verdicts:?}");
    assert_eq!(verdicts["qemu"], "fail");
    for well in ["state", "quorum", "clock", "ports", "open files"] {
        assert_eq!(verdicts[well], "ok", "{well}: {verdicts:?}");
    }
    assert_eq!(verdicts["durability"], "warn");
    let peers = run(&["--output", "json", "--api", &api, "node", "peers"]);
    assert_eq!(text(&peers.stdout).trim(), "[]");
}
