//! Whatever comes in: one stable code each, nothing changed, and every path to a verdict agrees.

mod cloud;

use cloud::{Cloud, account_key, key, machine_key, node_key, operator_key, public, vm};
use dagger_ledger::*;
use ed25519_zebra::SigningKey;
use proptest::prelude::*;

/// The documents of a ledger, without its clock.
fn records(ledger: &Ledger) -> String {
    let mut text = serde_json::to_string(&ledger.operators().collect::<Vec<_>>()).unwrap();
    text += &serde_json::to_string(&ledger.machines().collect::<Vec<_>>()).unwrap();
    text += &serde_json::to_string(&ledger.accounts().collect::<Vec<_>>()).unwrap();
    text += &serde_json::to_string(&ledger.images().collect::<Vec<_>>()).unwrap();
    text + &serde_json::to_string(&ledger.vms().collect::<Vec<_>>()).unwrap()
}

/// The code of a body signed by `signer`, having checked that nothing changed unless it is `ok`.
fn code_of_body(cloud: &mut Cloud, signer: &SigningKey, body: &[u8]) -> Code {
    let wire = SignedTransaction::sign(body, signer).to_wire();
    code_of_wire(cloud, &wire)
}

fn code_of_wire(cloud: &mut Cloud, wire: &[u8]) -> Code {
    let chain = cloud.genesis.chain_id;
    let single = CheckedTransaction::check(&chain, wire);
    let batch = CheckedTransaction::check_batch(&chain, &[wire, wire, wire, wire, wire, wire]);
    assert!(
        batch
            .iter()
            .all(|one| one.code() == single.code() && one.digest() == single.digest())
    );
    let before = records(&cloud.ledger);
    let code = cloud.code(single);
    if code != Code::Ok {
        assert_eq!(records(&cloud.ledger), before, "{code}");
    }
    code
}

fn document(cloud: &mut Cloud, action: &str) -> String {
    cloud.salt += 1;
    format!(
        r#"{{"chain":"{}","signer":"{}","salt":"{}","valid_until_ms":{},"action":{action}}}"#,
        cloud.genesis.chain_id,
        public(&account_key()),
        cloud.salt,
        cloud.time_ms + 1_000,
    )
}

fn create_with(field: &str, value: &str) -> String {
    let mut create = serde_json::to_value(vm("web")).unwrap();
    create[field] = serde_json::from_str(value).unwrap();
    format!(r#"{{"vm_create":{create}}}"#)
}

#[test]
fn each_malformed_document_has_its_code() {
    let mut cloud = Cloud::new(4);
    let delete = r#"{"vm_delete":{"vm":"web"}}"#;
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let wide = |n: usize| {
        let labels: Vec<String> = (0..n).map(|i| format!(r#""l{i}":"x""#)).collect();
        create_with("labels", &format!("{{{}}}", labels.join(",")))
    };
    let ports = |ports: &[(u32, u32)]| {
        let port = |(guest, host)| format!(r#"{{"guest_port":{guest},"host_port":{host}}}"#);
        let ports: Vec<String> = ports.iter().copied().map(port).collect();
        create_with("publish", &format!("[{}]", ports.join(",")))
    };
    let many_ports: Vec<(u32, u32)> = (1..=17).map(|port| (port, port)).collect();
    let long_name = create_with("name", &format!("\"{}\"", "a".repeat(50_000)));
    let cases: Vec<(String, Code)> = vec![
        (ports(&many_ports), Code::TooMany),
        (ports(&[(0, 80)]), Code::OutOfRange),
        (ports(&[(80, 0)]), Code::OutOfRange),
        (ports(&[(65_536, 80)]), Code::OutOfRange),
        (ports(&[(80, 80), (80, 81)]), Code::PortTwice),
        (ports(&[(80, 80), (81, 80)]), Code::PortTwice),
        (r#"{"vm_delete":{"vm":"web"}}"#.into(), Code::UnknownVm),
        (
            r#"{"vm_delete":{"vm":"web","force":true}}"#.into(),
            Code::UnknownField,
        ),
        (
            r#"{"vm_delete":{"vm":"web","vm":"web"}}"#.into(),
            Code::DuplicateField,
        ),
        (r#"{"vm_delete":{}}"#.into(), Code::MissingField),
        (r#"{"vm_delete":{"vm":7}}"#.into(), Code::BadValue),
        (r#"{"vm_delete":["web"]}"#.into(), Code::BadValue),
        (r#"{"vm_delete":"web"}"#.into(), Code::BadValue),
        (r#"{"vm_explode":{"vm":"web"}}"#.into(), Code::UnknownAction),
        (r#""vm_explode""#.into(), Code::UnknownAction),
        (
            r#"{"vm_delete":{"vm":"web"},"vm_stop":{"vm":"web"}}"#.into(),
            Code::BadValue,
        ),
        ("{}".into(), Code::BadValue),
        ("[]".into(), Code::BadValue),
        (deep, Code::TooDeep),
        (create_with("vcpus", "1.0"), Code::BadNumber),
        (create_with("vcpus", "-1"), Code::BadNumber),
        (
            create_with("memory_mib", "9007199254740993"),
            Code::BadNumber,
        ),
        (
            create_with("memory_mib", "18446744073709551615"),
            Code::BadNumber,
        ),
        (
            create_with("memory_mib", r#""18446744073709551615""#),
            Code::OutOfRange,
        ),
        (
            create_with("memory_mib", r#""18446744073709551616""#),
            Code::BadValue,
        ),
        (create_with("memory_mib", r#""007""#), Code::BadValue),
        (create_with("vcpus", "4294967296"), Code::OutOfRange),
        (create_with("vcpus", "0"), Code::OutOfRange),
        (create_with("name", r#""we\u0000b""#), Code::BadName),
        (create_with("name", r#""Web""#), Code::BadName),
        (create_with("name", r#""-web""#), Code::BadName),
        (create_with("name", r#""""#), Code::BadName),
        (
            create_with("labels", r#"{"note":"\u202egnp.exe"}"#),
            Code::BadText,
        ),
        (create_with("labels", r#"{"note":"a\nb"}"#), Code::BadText),
        (create_with("ssh_keys", r#"["not a key"]"#), Code::BadText),
        (
            create_with("ssh_keys", r#"["ssh-ed25519 AAAA\ncommand=x"]"#),
            Code::BadText,
        ),
        (create_with("image", r#""a/b/c""#), Code::BadName),
        (
            create_with("on_isolation", r#""keep""#),
            Code::KeepNeedsNoFailover,
        ),
        (create_with("failover", r#""maybe""#), Code::BadValue),
        (create_with("image_digest", r#""AB""#), Code::BadValue),
        (long_name, Code::BadName),
        (wide(33), Code::TooMany),
        (wide(10_000), Code::TooLarge),
    ];
    for (action, expected) in cases {
        let body = document(&mut cloud, &action);
        let code = code_of_body(&mut cloud, &account_key(), body.as_bytes());
        assert_eq!(code, expected, "{}", &action[..action.len().min(200)]);
    }
    let good = document(&mut cloud, delete);
    for (bytes, expected) in [
        (
            good.replace(",\"salt\"", " \t\n,\"salt\"").into_bytes(),
            Code::UnknownVm,
        ),
        (format!("{good} ").into_bytes(), Code::UnknownVm),
        (format!("{good}x").into_bytes(), Code::Malformed),
        (good.as_bytes()[..good.len() - 1].to_vec(), Code::Malformed),
        (good.replace("web", "w\u{1}b").into_bytes(), Code::Malformed),
        (
            [&good.as_bytes()[..20], &[0xff], &good.as_bytes()[20..]].concat(),
            Code::Malformed,
        ),
        (
            good.replace("\"salt\":", "\"salt\":\"\",\"pepper\":")
                .into_bytes(),
            Code::UnknownField,
        ),
        (
            good.replace("\"chain\":\"", "\"chain\":\"A").into_bytes(),
            Code::BadValue,
        ),
        (b"".to_vec(), Code::Malformed),
        (b"null".to_vec(), Code::BadValue),
        (vec![b' '; BODY_BYTES_MAX + 1], Code::TooLarge),
    ] {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        assert_eq!(
            code_of_body(&mut cloud, &account_key(), &bytes),
            expected,
            "{text}"
        );
    }
    assert_eq!(code_of_wire(&mut cloud, &[0; 63]), Code::Malformed);
}

#[test]
fn replayed_expired_foreign_and_unauthorised_transactions_are_refused() {
    let mut cloud = Cloud::new(4);
    let create = cloud.account(Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(create.clone()), Code::Ok);
    assert_eq!(cloud.code(create.clone()), Code::Repeated);
    let taken = cloud.account(Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(taken.clone()), Code::NameTaken);
    assert_eq!(cloud.code(taken), Code::Repeated);
    cloud.commit(70_000, &[]);
    assert_eq!(cloud.code(create), Code::Expired);

    let wire = cloud.wire(&account_key(), Action::VmCreate(vm("a")));
    let mut forged = wire.clone();
    forged[3] ^= 1;
    assert_eq!(code_of_wire(&mut cloud, &forged), Code::BadSignature);
    // The forgery has not used up the digest.
    assert_eq!(code_of_wire(&mut cloud, &wire), Code::Ok);

    let chain = cloud.genesis.chain_id;
    cloud.genesis.chain_id = Digest([9; 32]);
    let foreign = cloud.wire(&account_key(), Action::VmCreate(vm("b")));
    cloud.genesis.chain_id = chain;
    assert_eq!(code_of_wire(&mut cloud, &foreign), Code::WrongChain);

    let now_ms = cloud.time_ms;
    cloud.time_ms += 600_000;
    let early = cloud.account(Action::VmCreate(vm("b")));
    cloud.time_ms = now_ms;
    assert_eq!(cloud.code(early), Code::TooFarAhead);

    let stranger = cloud.sign(&key(77, 7), Action::VmCreate(vm("b")));
    assert_eq!(cloud.code(stranger), Code::UnknownSigner);
    let name = || MachineName {
        machine: "machine-1".into(),
    };
    for (signer, action) in [
        (operator_key(0), Action::VmCreate(vm("b"))),
        (node_key(0), Action::VmDelete(VmName { vm: "web".into() })),
        (account_key(), Action::MachineRemove(name())),
        (operator_key(0), Action::MachineRemove(name())),
        (operator_key(0), Action::Attest(Attest::default())),
        (machine_key(0), Action::Attest(Attest::default())),
        (key(3, 0), Action::Attest(Attest::default())),
    ] {
        let wire = cloud.wire(&signer, action.clone());
        assert_eq!(
            code_of_wire(&mut cloud, &wire),
            Code::Unauthorised,
            "{action:?}"
        );
    }
}

#[test]
fn wrong_objects_are_named_as_such() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    let host = cloud.machine_of(id);
    let other = (host + 1) % 4;
    let running = || Report::Running(Running::default());
    for (machine, vm, epoch, code) in [
        (host, VmId(99), 1, Code::UnknownVm),
        (host, id, 2, Code::StaleEpoch),
        (other, id, 1, Code::WrongMachine),
        (host, id, 1, Code::WrongPhase),
    ] {
        let report = cloud.report_at(machine, vm, epoch, running());
        assert_eq!(cloud.code(report), code);
    }
    let digest = Digest([1; 32]);
    for (create, code) in [
        (
            VmCreate {
                image: "acme/none".into(),
                ..vm("b")
            },
            Code::UnknownImage,
        ),
        (
            VmCreate {
                image_digest: digest,
                ..vm("b")
            },
            Code::ImageDigestMismatch,
        ),
        (
            VmCreate {
                vcpus: 9,
                ..vm("b")
            },
            Code::NoMachineFits,
        ),
        (
            VmCreate {
                memory_mib: MEMORY_MIB_MAX,
                ..vm("b")
            },
            Code::NoMachineFits,
        ),
        (
            VmCreate {
                disk_mib: DISK_MIB_MAX,
                ..vm("b")
            },
            Code::NoMachineFits,
        ),
    ] {
        let create = cloud.account(Action::VmCreate(create));
        assert_eq!(cloud.code(create), code);
    }
    let retire = cloud.account(Action::ImageRetire(ImageName {
        image: "micro".into(),
    }));
    cloud.ok(vec![retire]);
    let create = cloud.account(Action::VmCreate(vm("b")));
    assert_eq!(cloud.code(create), Code::ImageRetired);
    for (name, used, code) in [
        ("acme", key(9, 1), Code::NameTaken),
        ("other", account_key(), Code::KeyInUse),
        ("other", node_key(1), Code::KeyInUse),
    ] {
        let create = AccountCreate {
            account: name.into(),
            key: public(&used),
        };
        let create = cloud.sign(&operator_key(1), Action::AccountCreate(create));
        assert_eq!(cloud.code(create), code);
    }
    let mut small = [0u8; 32];
    small[0] = 1;
    let create = AccountCreate {
        account: "other".into(),
        key: Key(small),
    };
    let create = cloud.sign(&operator_key(1), Action::AccountCreate(create));
    assert_eq!(cloud.code(create), Code::BadKey);
    let name = MachineName {
        machine: format!("machine-{host}"),
    };
    let remove = cloud.sign(&operator_key(host.into()), Action::MachineRemove(name));
    assert_eq!(cloud.code(remove), Code::MachineNotEmpty);
}

/// The encodings of the points of small order, canonical or not.
fn small_order() -> Vec<[u8; 32]> {
    let text = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ];
    text.iter()
        .map(|text| hex::decode(text).unwrap().try_into().unwrap())
        .collect()
}

#[test]
fn zip215_edge_cases_get_one_verdict_on_every_path() {
    let mut cloud = Cloud::new(4);
    let chain = cloud.genesis.chain_id;
    let mut wires = Vec::new();
    let mut expected = Vec::new();
    for signer in small_order() {
        assert_eq!(check_key(&Key(signer)), Err(Code::BadKey));
        for r in small_order() {
            let transaction = Transaction {
                chain,
                signer: Key(signer),
                salt: "edge".into(),
                valid_until_ms: cloud.time_ms + 1_000,
                action: Action::VmDelete(VmName { vm: "web".into() }),
            };
            let body = serde_json::to_vec(&transaction).unwrap();
            // s = 0 satisfies the cofactored equation for every pair; s = the group's order is the same number, not reduced.
            let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
            for (s, good) in [("00".repeat(32), true), (order.to_string(), false)] {
                let mut wire = r.to_vec();
                wire.extend(hex::decode(s).unwrap());
                wire.extend(&body);
                wires.push(wire);
                expected.push(good);
            }
        }
    }
    // Good and forged ordinary signatures among them.
    for i in 0..40 {
        let mut wire = cloud.wire(&account_key(), Action::VmCreate(vm("web")));
        let good = i % 3 != 0;
        if !good {
            wire[i] ^= 4;
        }
        wires.insert(i * 7, wire);
        expected.insert(i * 7, good);
    }
    let single: Vec<bool> = wires
        .iter()
        .map(|wire| CheckedTransaction::check(&chain, wire).code().is_ok())
        .collect();
    assert_eq!(single, expected);
    for size in [1, 2, 5, 16, 128, wires.len()] {
        let batched = wires
            .chunks(size)
            .flat_map(|w| CheckedTransaction::check_batch(&chain, w));
        let batched: Vec<bool> = batched.map(|checked| checked.code().is_ok()).collect();
        assert_eq!(batched, expected, "in batches of {size}");
    }
}

#[test]
fn a_genesis_that_cannot_start_a_network_says_where() {
    let good = cloud::genesis(4, Parameters::default());
    let parse = |genesis: &Genesis| Genesis::from_json(genesis.to_json().as_bytes());
    let mut twins = good.clone();
    twins.operators[1].name = twins.operators[0].name.clone();
    let error = GenesisError::Value {
        field: "operators.name",
        code: Code::NameTaken,
    };
    assert_eq!(parse(&twins), Err(error));
    let mut keys = good.clone();
    keys.operators[1].node_key = keys.operators[0].operator_key;
    let error = GenesisError::Value {
        field: "operators.*_key",
        code: Code::KeyInUse,
    };
    assert_eq!(parse(&keys), Err(error));
    let mut weightless = good.clone();
    weightless.operators[2].weight = 0;
    assert!(parse(&weightless).is_err());
    let mut fast = good.clone();
    fast.parameters.gap_cap_ms = fast.parameters.lease_ms;
    assert!(parse(&fast).is_err());
    let unknown = good
        .to_json()
        .replace("\"network\"", "\"nett\":1,\"network\"");
    let error = Genesis::from_json(unknown.as_bytes()).unwrap_err();
    assert_eq!(
        error,
        GenesisError::Json {
            code: Code::UnknownField,
            at: "nett".into()
        }
    );
}

#[test]
fn codes_are_distinct_and_say_what_to_do() {
    let mut seen = std::collections::BTreeSet::new();
    for code in Code::ALL {
        assert!(seen.insert(code.as_str()));
        assert!(code.text().ends_with('.'));
        let json = serde_json::to_string(code).unwrap();
        assert_eq!(json, format!("\"{}\"", code.as_str()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the bytes: a verdict, the same on every path, and no record touched.
    #[test]
    fn garbage_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut cloud = Cloud::new(1);
        let code = code_of_wire(&mut cloud, &bytes);
        prop_assert_ne!(code, Code::Ok);
    }

    /// A good document with a few bytes changed, signed as it then stands.
    #[test]
    fn damaged_documents_change_nothing_unless_they_are_documents(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut cloud = Cloud::new(1);
        let action = serde_json::to_string(&Action::VmCreate(vm("web"))).unwrap();
        let mut body = document(&mut cloud, &action).into_bytes();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        code_of_body(&mut cloud, &account_key(), &body);
    }

    /// Our strict reader accepts nothing that another JSON reader refuses or reads differently.
    #[test]
    fn what_we_read_others_read_alike(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), "[\\PC\"\\\\{}:,0-9]"), 0..4),
    ) {
        let mut cloud = Cloud::new(1);
        let action = serde_json::to_string(&Action::VmCreate(vm("web"))).unwrap();
        let mut body = document(&mut cloud, &action);
        for (at, text) in damage {
            let mut at = at.index(body.len());
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            body.insert_str(at, &text);
        }
        if let Ok(ours) = Transaction::parse(body.as_bytes()) {
            let theirs: Transaction = serde_json::from_str(&body).expect("strict is stricter");
            prop_assert_eq!(ours, theirs);
        }
    }
}
