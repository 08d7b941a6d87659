//! Proofs of records, of absence and of outcomes; pinned bytes.

mod cloud;

use cloud::{Cloud, vm};
use dagger_ledger::*;

fn keys() -> Vec<StateKey> {
    vec![
        StateKey::Network,
        StateKey::Clock,
        StateKey::Members,
        StateKey::Replay,
        StateKey::Brake,
        StateKey::Counters,
        StateKey::Operator("operator-1".into()),
        StateKey::Machine("machine-2".into()),
        StateKey::Account("acme".into()),
        StateKey::Image("acme/micro".into()),
        StateKey::Vm("acme".into(), "web-7".into()),
    ]
}

#[test]
fn every_kind_of_record_is_proved_under_the_root() {
    let mut cloud = Cloud::busy();
    let root = Digest(cloud.ledger.state_root());
    assert_eq!(root.0, cloud.ledger.recompute_state_root());
    for key in keys() {
        let proof = cloud
            .ledger
            .prove(&key)
            .expect("nothing changed since the root");
        assert_eq!(proof.verify(&root), Ok(()), "{key:?}");
        assert!(proof.record.is_some(), "{key:?}");
        assert!(borsh::to_vec(&proof).unwrap().len() < 4_096, "{key:?}");
        let json = serde_json::to_vec(&proof).unwrap();
        assert_eq!(serde_json::from_slice::<StateProof>(&json).unwrap(), proof);
    }
    let proof = cloud
        .ledger
        .prove(&StateKey::Vm("acme".into(), "web-7".into()))
        .unwrap();
    let record: VmRecord = proof.record().unwrap().unwrap();
    assert_eq!(record.spec.name, "web-7");
}

#[test]
fn absence_is_proved_and_cannot_be_forged() {
    let mut cloud = Cloud::busy();
    let root = Digest(cloud.ledger.state_root());
    let proof = cloud
        .ledger
        .prove(&StateKey::Vm("acme".into(), "nobody".into()))
        .unwrap();
    assert_eq!((proof.verify(&root), &proof.record), (Ok(()), &None));
    let held = cloud
        .ledger
        .prove(&StateKey::Account("acme".into()))
        .unwrap();
    let denied = StateProof {
        record: None,
        ..held.clone()
    };
    assert_eq!(denied.verify(&root), Err(ProofError::NotAbsent));
    let hidden = StateProof {
        record: None,
        bucket: Vec::new(),
        ..held.clone()
    };
    assert_eq!(hidden.verify(&root), Err(ProofError::Root));
    let mut changed = held.clone();
    changed.record.as_mut().unwrap()[0] ^= 1;
    assert_eq!(changed.verify(&root), Err(ProofError::Record));
    for level in 0..held.siblings.len() {
        let mut wrong = held.clone();
        wrong.siblings[level].0[5] ^= 1;
        assert_eq!(wrong.verify(&root), Err(ProofError::Root));
    }
    let short = StateProof {
        siblings: Vec::new(),
        ..held
    };
    assert_eq!(short.verify(&root), Err(ProofError::Malformed));
}

#[test]
fn a_record_that_changed_since_the_root_is_not_proved() {
    let mut cloud = Cloud::busy();
    cloud.ledger.state_root();
    let key = StateKey::Vm("acme".into(), "web-1".into());
    assert!(cloud.ledger.prove(&key).is_some());
    let id = cloud
        .ledger
        .vms()
        .find(|vm| vm.spec.name == "web-1")
        .unwrap()
        .id;
    cloud.accept(id);
    assert!(cloud.ledger.prove(&key).is_none());
    cloud.ledger.state_root();
    assert!(cloud.ledger.prove(&key).is_some());
}

#[test]
fn outcomes_are_proved_under_any_later_checkpoint() {
    let mut cloud = Cloud::new(4);
    for count in 1..=17u64 {
        let previous = Digest(cloud.ledger.outcomes_root());
        let batch: Vec<_> = (0..count)
            .map(|i| cloud.account(Action::VmCreate(vm(&format!("vm-{count}-{i}")))))
            .collect();
        let input = CommitInput {
            index: cloud.next_commit,
            digest: [7; 32],
            time_ms: cloud.time_ms,
            active_members: &[],
            transactions: &batch,
            epoch: 0,
            is_checkpoint: true,
        };
        let output = cloud.ledger.execute(&input);
        cloud.next_commit += 1;
        let at = (input.index, cloud.ledger.time_ms());
        let mut later = Vec::new();
        for extra in 0..3 {
            let create = cloud.account(Action::VmCreate(vm(&format!("later-{count}-{extra}"))));
            let input = CommitInput {
                index: cloud.next_commit,
                transactions: std::slice::from_ref(&create),
                ..input
            };
            let output = cloud.ledger.execute(&input);
            cloud.next_commit += 1;
            let time_ms = cloud.ledger.time_ms();
            later.push(CommitLink::of(input.index, time_ms, &output.outcomes).unwrap());
        }
        let root = Digest(cloud.ledger.outcomes_root());
        for position in 0..count as usize {
            let outcomes = &output.outcomes;
            let proof = OutcomeProof::new(previous, at, outcomes, position, later.clone()).unwrap();
            assert_eq!(proof.verify(&root), Ok(()));
            let mut lie = proof.clone();
            lie.outcome.code = Code::Unauthorised;
            assert_eq!(lie.verify(&root), Err(ProofError::Record));
            let mut moved = proof.clone();
            moved.position = (moved.position + 1) % count;
            assert_eq!(moved.verify(&root).is_ok(), count == 1);
            let mut short = proof;
            short.later.pop();
            assert_eq!(short.verify(&root), Err(ProofError::Root));
        }
        assert!(OutcomeProof::new(previous, at, &output.outcomes, count as usize, later).is_none());
    }
}

#[test]
fn digests_and_roots_are_pinned() {
    let cloud = Cloud::new(4);
    let genesis = Genesis::from_json(
        b"{\"network\":\"pinned\",\"time_ms\":1,\"operators\":[{\
        \"name\":\"a\",\"weight\":1,\
        \"operator_key\":\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\",\
        \"consensus_key\":\"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c\",\
        \"node_key\":\"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025\"}]}",
    );
    let genesis = genesis.expect("a good genesis");
    insta::assert_snapshot!("chain_id", genesis.chain_id);
    let root = Digest(Ledger::from_genesis(&genesis).state_root());
    insta::assert_snapshot!("genesis_root", root);
    insta::assert_snapshot!("manifest_digest", cloud::manifest().digest());
    insta::assert_snapshot!("transaction_digest", digest_of_body(b"{}"));
    insta::assert_snapshot!("outcomes_root", Digest(cloud.ledger.outcomes_root()));
    insta::assert_snapshot!("state_root", Digest(cloud.ledger.recompute_state_root()));
    insta::assert_snapshot!("root_with_vms", Digest(Cloud::busy().ledger.state_root()));
}
