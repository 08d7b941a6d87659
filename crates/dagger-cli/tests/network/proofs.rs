//! Receipts and proofs of records: made by one node, verified offline with nothing but the genesis file, refused when touched.

use super::support::{Home, found, json, refused, run};
use dagger_client::keys::SecretKey;
use std::path::Path;

/// Opens an account; returns the digest of the transaction.
fn open_account(home: &Home, name: &str) -> String {
    let operator = home.data.join("keys/operator.json");
    let key = hex::encode(SecretKey::generate().public());
    let status = json(&[
        "--api",
        &home.api(),
        "--key",
        operator.to_str().unwrap(),
        "operator",
        "sponsor",
        name,
        &key,
    ]);
    status["digest"].as_str().unwrap().to_owned()
}

fn verify(proof: &Path, genesis: &Path) -> serde_json::Value {
    let (proof, genesis) = (proof.to_str().unwrap(), genesis.to_str().unwrap());
    json(&["ledger", "verify", proof, "--genesis", genesis])
}

fn verify_refused(proof: &Path, genesis: &Path) -> String {
    let (proof, genesis) = (proof.to_str().unwrap(), genesis.to_str().unwrap());
    refused(&["ledger", "verify", proof, "--genesis", genesis])
}

#[test]
fn what_one_node_proves_anybody_verifies_offline() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha", "bravo", "charlie", "delta"]);
    let nodes: Vec<_> = homes.iter().map(Home::start).collect();
    homes.iter().for_each(|home| drop(home.ready()));
    let digest = open_account(&homes[0], "shop");
    let api = homes[1].api();
    let genesis = homes[2].data.join("genesis.json");
    let file = |name: &str| root.path().join(name);

    let (receipt, there, absent) = (file("receipt"), file("there"), file("absent"));
    for (path, arguments) in [
        (&receipt, ["receipt", digest.as_str()]),
        (&there, ["prove", "account/shop"]),
        (&absent, ["prove", "account/nobody"]),
    ] {
        let out = path.to_str().unwrap();
        let [what, of] = arguments;
        let output = run(&["--api", &api, "ledger", what, of, "--file", out]);
        assert!(output.status.success(), "{output:?}");
    }
    // Nothing of the network is needed from here on.
    drop(nodes);
    let proven = verify(&receipt, &genesis);
    assert_eq!(proven["transaction"]["digest"], digest.as_str());
    assert_eq!(proven["transaction"]["code"], "ok");
    let proven = verify(&there, &genesis);
    assert_eq!(proven["record"]["record"]["name"], "shop");
    assert_eq!(verify(&absent, &genesis)["record"]["present"], false);

    let text = std::fs::read_to_string(&receipt).unwrap();
    let forged = file("forged");
    std::fs::write(
        &forged,
        text.replace("\"code\":\"ok\"", "\"code\":\"name_taken\""),
    )
    .unwrap();
    assert_eq!(verify_refused(&forged, &genesis), "E_NOT_PROVEN");
    std::fs::write(&forged, &text[..text.len() / 2]).unwrap();
    assert_eq!(verify_refused(&forged, &genesis), "E_BAD_PROOF");
    let other = file("other.json");
    let document = std::fs::read_to_string(&genesis).unwrap();
    std::fs::write(&other, document.replace("\"test\"", "\"other\"")).unwrap();
    assert_eq!(verify_refused(&receipt, &other), "E_NOT_PROVEN");
}
