//! The seeds in `corpus/` are what the targets start from. They are made here, and must still be read as what they are.
//! `BLESS=1 cargo test --manifest-path fuzz/Cargo.toml` writes them anew.

use super::*;
use crate::execution::{Step, run, step};
use dagger_ledger::{Genesis, GenesisOperator, Key, Ledger, StateKey, Transaction};
use shadowgraph::*;
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The seed is checked in with exactly these bytes.
fn seed(target: &str, name: &str, bytes: &[u8]) {
    let path = seeds(target).join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(seeds(target)).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let found = std::fs::read(&path).unwrap_or_default();
    assert!(
        found == bytes,
        "{} is not what it should be: set BLESS=1 to write it",
        path.display()
    );
}

fn verified(event: UnverifiedEvent) -> VerifiedEvent {
    verify_events(vec![event], &CHAIN, &committee())
        .remove(0)
        .unwrap()
}

#[test]
fn events() {
    for (number, event) in rounds(2).into_iter().enumerate().skip(3).take(2) {
        seed("event", &format!("event-{number}"), event.bytes());
    }
    seed(
        "event",
        "no-transactions",
        event(1, 1, vec![genesis(1)], &[]).bytes(),
    );
    seed("verify", "one-bit", &[1, 40, 0, 1]);
    seed(
        "verify",
        "two-signatures",
        &[0, 255, 255, 1, 5, 255, 255, 2],
    );
}

#[test]
fn messages() {
    let events = rounds(1);
    let references = events.iter().map(|event| *event.reference()).collect();
    let highest = vec![Round(3); 4];
    let frontier = |exchange| {
        Message::Frontier(Frontier {
            epoch: Epoch(0),
            exchange,
            floor: Round(0),
            commit: CommitIndex(1),
            time_ms: 5,
            highest: highest.clone(),
        })
    };
    let after = After {
        from: Round(1),
        to: Round(9),
        after: vec![Round(0); 4],
    };
    let wake = Wake {
        epoch: Epoch(0),
        round: Round(2),
    };
    let ask = |wanted| {
        Message::Request(Request {
            epoch: Epoch(0),
            wanted,
        })
    };
    let all = [
        (
            "events",
            Message::Events(
                events
                    .iter()
                    .take(2)
                    .map(|event| event.bytes().clone())
                    .collect(),
            ),
        ),
        ("no-events", Message::Events(Vec::new())),
        ("request", ask(SyncRequest::Events(references))),
        ("after", ask(SyncRequest::After(after))),
        ("ask", frontier(Exchange::Ask(3))),
        ("answer", frontier(Exchange::Answer(3))),
        ("wake", Message::Wake(wake)),
        ("epoch-end", Message::EpochEnd(Box::new(epoch_end()))),
    ];
    // A peer's steps: answers to the question for the own latest event, some events, each message, time between them.
    let mut steps = vec![1 << 2, 6, 0, 1, 2, 3, 4, 5, 3 << 2, 40];
    for (name, message) in all {
        let bytes = message.encode();
        seed("message", name, &bytes);
        if let Ok(length) = u8::try_from(bytes.len()) {
            steps.extend([1, length]);
            steps.extend(&bytes);
            steps.extend([3 << 2, 200]);
        }
    }
    seed("peer", "every-message", &steps);
    seed(
        "peer",
        "events-backwards",
        &[
            5,
            9,
            14,
            13,
            12,
            11,
            10,
            9,
            8,
            7,
            6,
            3 << 2,
            90,
            6,
            6,
            0,
            1,
            2,
            3,
            4,
            5,
        ],
    );
    seed(
        "peer",
        "submit",
        &[2 << 2, 3, b'a', b'b', b'c', 3 << 2, 255],
    );
}

#[test]
fn certificates_and_proofs() {
    let signed = |seats: std::ops::Range<u16>| CheckpointCertificate {
        checkpoint: checkpoint(),
        signatures: seats
            .map(|seat| {
                (
                    MemberIndex(seat),
                    checkpoint().sign(&CHAIN, &key(seat)).signature,
                )
            })
            .collect(),
    };
    assert!(signed(0..3).verify(&CHAIN, &committee()).is_ok());
    seed(
        "certificate",
        "quorum",
        &borsh::to_vec(&signed(0..3)).unwrap(),
    );
    seed(
        "certificate",
        "too-few",
        &borsh::to_vec(&signed(1..3)).unwrap(),
    );
    assert_eq!(epoch_end().verify(&CHAIN, &committee()), Ok(()));
    seed(
        "epoch_end",
        "same-members",
        &borsh::to_vec(&epoch_end()).unwrap(),
    );
    let twin = |transaction| verified(event(2, 1, vec![genesis(2)], &[transaction]));
    let proof = EquivocationProof::new(&twin(b"a"), &twin(b"b"));
    assert_eq!(
        proof.verify(&CHAIN, &committee()),
        Ok((MemberIndex(2), Round(1)))
    );
    seed("equivocation", "twins", &borsh::to_vec(&proof).unwrap());
}

#[test]
fn frames() {
    let framed = |kind: u8, body: &[u8]| {
        let length = (body.len() as u32 + 1).to_le_bytes();
        [&length[..], &[kind], body].concat()
    };
    seed(
        "frame",
        "hello",
        &framed(0, &[[7; 32].as_slice(), &[1, 0, 0, 0], &[2; 8]].concat()),
    );
    seed("frame", "consensus", &framed(1, b"a message"));
    seed("frame", "heartbeat", &framed(2, &[1; 12]));
    seed("frame", "heartbeat-ack", &framed(3, &[1; 20]));
    seed("frame", "transaction", &framed(4, b"a transaction"));
}

#[test]
fn records() {
    let header = |form| record::encode_segment_header(&[7; 32], 1, form);
    seed("record", "segment-header", &header(record::Form::Plain));
    seed("record", "sealed-header", &header(record::Form::Sealed));
    let mut older = header(record::Form::Plain);
    older[8..12].copy_from_slice(&0u32.to_le_bytes());
    let crc = crc32c::crc32c(&older[..52]);
    older[52..56].copy_from_slice(&crc.to_le_bytes());
    assert!(record::check_segment_header("log".as_ref(), &older, &[7; 32], 1).is_err());
    seed("record", "segment-header-of-no-format", &older);
    let key = record::EventKey {
        round: 3,
        creator: 1,
        digest: [4; 32],
    };
    let mut written = Vec::new();
    record::encode_record(&mut written, &key, b"an event");
    seed("record", "one-record", &written);
}

#[test]
fn documents() {
    let actions = [
        r#"{"vm_delete":{"vm":"web"}}"#,
        r#"{"vote":{"proposal":3,"approve":true}}"#,
        r#"{"account_quota":{"account":"a","quota":{"vms":1,"vcpus":2,"memory_mib":"512","disk_mib":1024}}}"#,
        r#"{"propose":{"change":{"operator_remove":{"operator":"op-1"}}}}"#,
        r#"{"propose":{"change":{"protocol_version":{"version":2}}}}"#,
    ];
    let signer = hex::encode(ed25519_zebra::SigningKey::from([5; 32]).verification_key());
    for (number, action) in actions.iter().enumerate() {
        let chain = "07".repeat(32);
        let body = format!(
            r#"{{"chain":"{chain}","signer":"{signer}","salt":"s{number}","valid_until_ms":9000,"action":{action}}}"#
        );
        let parsed = Transaction::parse(body.as_bytes());
        assert!(parsed.is_ok(), "{body}: {parsed:?}");
        seed("transaction", &format!("action-{number}"), body.as_bytes());
    }
    let genesis = small_genesis();
    seed("genesis", "one-operator", genesis.to_json().as_bytes());
    let mut ledger = Ledger::from_genesis(&genesis);
    ledger.state_root();
    let snapshot = ledger.snapshot();
    assert!(Ledger::restore(&snapshot).is_ok());
    seed("snapshot", "genesis", &snapshot);
    let format_4 = include_str!("../../crates/dagger-ledger/tests/fixtures/format_4.hex");
    let (_root, lines) = format_4.split_once('\n').unwrap();
    let format_4 = hex::decode(lines.replace('\n', "")).unwrap();
    assert!(Ledger::restore(&format_4).is_ok());
    seed("snapshot", "format-4", &format_4);
    for (name, key) in [
        ("operator", StateKey::Operator("op".into())),
        ("absent", StateKey::Operator("nobody".into())),
    ] {
        let proof = ledger.prove(&key).expect("the tree is up to date");
        seed(
            "proof",
            &format!("{name}.borsh"),
            &borsh::to_vec(&proof).unwrap(),
        );
        seed(
            "proof",
            &format!("{name}.json"),
            &serde_json::to_vec(&proof).unwrap(),
        );
    }
}

/// A play's steps; it is run, too: what its panics would say is in `execution`.
fn play(name: &str, steps: &[(Step, u8, &[u8])]) {
    let steps = steps
        .iter()
        .map(|(kind, signer, bytes)| step(*kind, *signer, bytes));
    let steps = steps.collect::<Vec<_>>().concat();
    run(&steps);
    seed("execution", name, &steps);
}

#[test]
fn executions() {
    const OPERATOR: u8 = 3 << 2;
    const NODE: u8 = 5 << 2;
    const STRANGER: u8 = 7 << 2;
    // A VM's whole life, and its machine's loss.
    let life: [(Step, u8, &[u8]); 9] = [
        (Step::Menu, 0, &[0x3e]),
        (Step::Report, 0, &[3, 0]),
        (Step::Report, 0, &[3, 1]),
        (Step::Report, 0, &[3, 2]),
        (Step::Menu, 0, &[0x30]),
        (Step::Report, 0, &[3, 3]),
        (Step::Menu, 0, &[0x38]),
        (Step::Menu, 0, &[0x33]),
        (Step::Report, 0, &[3, 3]),
    ];
    play("life", &life);
    let lost: [(Step, u8, &[u8]); 6] = [
        (Step::Attest, 0, &[0, 0, 15]),
        (Step::Attest, 0, &[1, 0, 15]),
        (Step::Attest, 0, &[2, 0, 15]),
        (Step::Time, 0, &[3, 1, 0]),
        (Step::Report, 0, &[0, 2, 1]),
        (Step::Time, 0, &[3, 10, 0b1110]),
    ];
    play("lost", &lost);
    let operators: [(Step, u8, &[u8]); 8] = [
        (Step::Menu, OPERATOR, &[0x04]),
        (Step::Time, 0, &[2, 60, 0]),
        (Step::Menu, OPERATOR, &[0x06]),
        (Step::Menu, OPERATOR, &[0x09]),
        (Step::Menu, OPERATOR | 1, &[0x0d]),
        (
            Step::Action,
            OPERATOR | 2,
            br#"{"propose":{"change":{"operator_remove":{"operator":"operator-3"}}}}"#,
        ),
        (Step::Menu, OPERATOR | 1, &[0x0a]),
        (Step::Time, 0, &[6, 60, 0]),
    ];
    play("operators", &operators);
    let document =
        br#"{"chain":"","signer":"","salt":"","valid_until_ms":0,"action":{"vm_start":{"vm":"x"}}}"#;
    let strangers: [(Step, u8, &[u8]); 7] = [
        (Step::Menu, STRANGER, &[0x00]),
        (Step::Action, STRANGER, br#"{"vm_delete":{"vm":"running"}}"#),
        (Step::Action, NODE, br#"{"attest":{"hears":[0,1,2,3,4]}}"#),
        (Step::Action, 0, br#"{"vm_delete":{"vm":"running"},"x":1}"#),
        (Step::Document, 0, document),
        (Step::Wire, 0, &[7; 100]),
        (Step::Mutated, 0, &[0x3e, 44, 1, b'9', 200, 1, b'"']),
    ];
    play("strangers", &strangers);
}

fn small_genesis() -> Genesis {
    let key = |seed| {
        Key(ed25519_zebra::SigningKey::from([seed; 32])
            .verification_key()
            .into())
    };
    let operator = GenesisOperator {
        name: "op".into(),
        operator_key: key(1),
        consensus_key: key(2),
        node_key: key(3),
        weight: 1,
        address: None,
    };
    Genesis {
        network: "test".into(),
        time_ms: 1_000,
        parameters: dagger_ledger::Parameters::default(),
        operators: vec![operator],
        chain_id: dagger_ledger::Digest::default(),
    }
}
