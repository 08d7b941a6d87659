//! When epochs end and with which seats the next begin; operators that leave, change their keys, or are proven to have signed twice.

mod cloud;

use cloud::{Cloud, key, machine_key, node_key, operator_key, public};
use dagger_ledger::*;
use ed25519_zebra::SigningKey;

fn consensus_key(number: u64) -> SigningKey {
    key(3, number)
}

fn act(cloud: &mut Cloud, operator: u64, action: Action) -> Code {
    let transaction = cloud.sign(&operator_key(operator), action);
    cloud.code(transaction)
}

fn leave(cloud: &mut Cloud, operator: u64) -> Code {
    act(cloud, operator, Action::OperatorLeave(OperatorLeave {}))
}

fn rotate(cloud: &mut Cloud, operator: u64, to: &SigningKey) -> Code {
    let keys = OperatorKeys {
        consensus_key: Some(public(to)),
        ..OperatorKeys::default()
    };
    act(cloud, operator, Action::OperatorKeys(keys))
}

fn decide(cloud: &mut Cloud, voters: &[u64], change: ProposedChange) -> Code {
    let code = act(cloud, voters[0], Action::Propose(Propose { change }));
    if code != Code::Ok {
        return code;
    }
    let proposal = cloud.ledger.proposals().last().expect("just made").id;
    for voter in &voters[1..] {
        let vote = Vote {
            proposal,
            approve: true,
        };
        assert_eq!(act(cloud, *voter, Action::Vote(vote)), Code::Ok);
    }
    code
}

fn remove(number: u64) -> ProposedChange {
    ProposedChange::OperatorRemove(OperatorName {
        operator: format!("operator-{number}"),
    })
}

fn remove_anyway(number: u64) -> ProposedChange {
    ProposedChange::OperatorRemoveAnyway(OperatorName {
        operator: format!("operator-{number}"),
    })
}

/// The consensus layer's signed header, written out by docs/protocol.md 2.1 to 2.4; `salt` tells twins apart.
fn signed_header(chain: Digest, epoch: u64, round: u64, seat: u16, by: u64, salt: u8) -> Vec<u8> {
    let mut header = vec![1];
    header.extend(chain.0);
    header.extend(epoch.to_le_bytes());
    header.extend(round.to_le_bytes());
    header.extend(seat.to_le_bytes());
    header.extend([salt; 16]);
    let payload_digest = [9; 32];
    let mut hasher = blake3::Hasher::new_derive_key("dagger event v1");
    hasher.update(&header).update(&payload_digest);
    let digest = hasher.finalize();
    let message = [&b"dagger event v1\0"[..], digest.as_bytes()].concat();
    let signature = consensus_key(by).sign(&message).to_bytes();
    // The digest stands in front so that halves can be put in order; `proof` takes it off.
    let mut out = digest.as_bytes().to_vec();
    out.extend((header.len() as u32).to_le_bytes());
    out.extend(header);
    out.extend(payload_digest);
    out.extend(signature);
    out
}

fn proof(mut one: Vec<u8>, mut other: Vec<u8>) -> Action {
    if one[..32] > other[..32] {
        std::mem::swap(&mut one, &mut other);
    }
    Action::Equivocation(Equivocation {
        proof: hex::encode([&one[32..], &other[32..]].concat()),
    })
}

fn twins(cloud: &Cloud, epoch: u64, seat: u16, by: u64) -> Action {
    let chain = cloud.genesis.chain_id;
    proof(
        signed_header(chain, epoch, 7, seat, by, 1),
        signed_header(chain, epoch, 7, seat, by, 2),
    )
}

#[test]
fn an_epoch_ends_at_the_first_checkpoint_after_enough_transactions_or_time() {
    let parameters = Parameters {
        epoch_transactions: 20,
        epoch_ms: 60_000,
        ..Parameters::default()
    };
    let mut cloud = Cloud::with_parameters(4, parameters);
    let so_far = cloud.ledger.epoch().transactions;
    for i in so_far..20 {
        cloud.checkpoint();
        assert_eq!(cloud.ledger.epoch().number, 0, "after {i}");
        let reports = cloud.attest(0, &[], &[]);
        cloud.ok(vec![reports]);
    }
    assert_eq!(cloud.ledger.epoch().transactions, 20);
    assert_eq!(cloud.ledger.epoch().number, 0, "not between checkpoints");
    cloud.checkpoint();
    let epoch = cloud.ledger.epoch().clone();
    assert_eq!((epoch.number, epoch.transactions), (1, 0));
    assert_eq!(epoch.start_commit, cloud.next_commit - 1);
    // The committee is the same one, and its members' words about machines go on.
    assert_eq!(cloud.ledger.committee().len(), 4);
    cloud.run(61_000);
    assert!(cloud.ledger.machines().all(|m| m.state == MachineState::Up));
    cloud.checkpoint();
    assert_eq!(cloud.ledger.epoch().number, 2);
    let ended = |c: &&Change| {
        matches!(
            c,
            Change::EpochEnded {
                fault_weight: 1,
                ..
            }
        )
    };
    assert_eq!(cloud.changes.iter().filter(ended).count(), 2);
    let mut copy = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(copy.state_root(), cloud.ledger.state_root());
    assert_eq!(copy.epoch(), cloud.ledger.epoch());
}

#[test]
#[should_panic(expected = "it is void")]
fn a_commit_of_an_ended_epoch_is_void() {
    let mut cloud = Cloud::new(5);
    assert_eq!(leave(&mut cloud, 4), Code::Ok);
    cloud.checkpoint();
    cloud.ledger.execute(&CommitInput {
        index: cloud.next_commit,
        digest: [0; 32],
        time_ms: cloud.time_ms,
        active_members: &[],
        transactions: &[],
        epoch: 0,
        is_checkpoint: false,
    });
}

#[test]
fn who_leaves_takes_no_more_than_the_network_can_bear() {
    let mut cloud = Cloud::new(8);
    // f = 2 of 8: two may go with one epoch.
    assert_eq!(leave(&mut cloud, 7), Code::Ok);
    assert_eq!(leave(&mut cloud, 6), Code::Ok);
    assert_eq!(leave(&mut cloud, 5), Code::TooManyLeave);
    assert_eq!(leave(&mut cloud, 7), Code::UnknownSigner);
    let seats = cloud.ledger.pending_committee().expect("another committee");
    assert_eq!(seats.len(), 6);
    cloud.checkpoint();
    assert_eq!(cloud.ledger.committee(), seats);
    assert_eq!(leave(&mut cloud, 5), Code::Ok);
    assert_eq!(decide(&mut cloud, &[0], remove(4)), Code::TooManyLeave);
    cloud.checkpoint();
    assert_eq!(leave(&mut cloud, 4), Code::Ok);
    cloud.checkpoint();
    // Four bear one that fails, three none.
    assert_eq!(leave(&mut cloud, 3), Code::TooFewSeats);
    assert_eq!(decide(&mut cloud, &[0], remove(3)), Code::TooFewSeats);
    assert_eq!(cloud.ledger.committee().len(), 4);
    cloud.ledger.invariants().expect("invariants");
}

#[test]
fn operators_who_say_so_go_below_what_bears_a_fault() {
    let mut cloud = Cloud::new(5);
    // It is not a way around the other bounds.
    assert_eq!(leave(&mut cloud, 4), Code::Ok);
    assert_eq!(
        decide(&mut cloud, &[0], remove_anyway(3)),
        Code::TooManyLeave
    );
    cloud.checkpoint();
    assert_eq!(decide(&mut cloud, &[0], remove(3)), Code::TooFewSeats);
    assert_eq!(decide(&mut cloud, &[0, 1, 2], remove_anyway(3)), Code::Ok);
    cloud.checkpoint();
    assert_eq!(cloud.ledger.committee().len(), 3);
    // Below that nothing more is lost, and all of them must agree.
    assert_eq!(decide(&mut cloud, &[0, 1, 2], remove(2)), Code::Ok);
    cloud.checkpoint();
    assert_eq!(decide(&mut cloud, &[0, 1], remove_anyway(1)), Code::Ok);
    cloud.checkpoint();
    assert_eq!(cloud.ledger.committee().len(), 1);
    assert_eq!(
        decide(&mut cloud, &[0], remove_anyway(0)),
        Code::LastOperator
    );
    cloud.ledger.invariants().expect("invariants");
}

#[test]
fn the_last_operator_stays() {
    let mut cloud = Cloud::new(2);
    assert_eq!(leave(&mut cloud, 1), Code::Ok);
    assert_eq!(leave(&mut cloud, 0), Code::LastOperator);
    cloud.checkpoint();
    assert_eq!(cloud.ledger.committee().len(), 1);
}

#[test]
fn machines_of_operators_that_left_go_when_they_are_empty() {
    let mut cloud = Cloud::new(5);
    assert_eq!(leave(&mut cloud, 4), Code::Ok);
    cloud.run(5_000);
    assert!(cloud.ledger.machine_by_name("machine-4").is_none());
    assert_eq!(cloud.ledger.machines().count(), 4);
    // Its key is free again, also for somebody else.
    let add = MachineAdd {
        machine: "machine-9".into(),
        node_key: public(&machine_key(4)),
        arch: Arch::X86_64,
        vcpus: 1,
        memory_mib: 1_024,
        disk_mib: 1_024,
        cpu_permille: NO_OVERCOMMIT,
        labels: Labels::new(),
    };
    assert_eq!(act(&mut cloud, 0, Action::MachineAdd(add)), Code::Ok);
}

#[test]
fn a_consensus_key_changes_with_the_next_epoch_and_not_too_often() {
    let mut cloud = Cloud::new(4);
    let fresh = consensus_key(40);
    assert_eq!(rotate(&mut cloud, 1, &consensus_key(2)), Code::KeyInUse);
    assert_eq!(rotate(&mut cloud, 1, &fresh), Code::Ok);
    assert_eq!(rotate(&mut cloud, 1, &consensus_key(41)), Code::TooSoon);
    let key_of = |cloud: &Cloud| cloud.ledger.committee()[1].consensus_key;
    assert_eq!(key_of(&cloud), public(&consensus_key(1)));
    cloud.checkpoint();
    assert_eq!(key_of(&cloud), public(&fresh));
    assert_eq!(
        cloud.ledger.epoch().former[1].consensus_key,
        public(&consensus_key(1))
    );
    cloud.run(61_000);
    assert_eq!(rotate(&mut cloud, 1, &consensus_key(41)), Code::Ok);
    let none = OperatorKeys::default();
    assert_eq!(
        act(&mut cloud, 1, Action::OperatorKeys(none)),
        Code::MissingField
    );
}

#[test]
fn the_cold_key_replaces_itself_and_node_keys_at_once() {
    let mut cloud = Cloud::new(4);
    let keys = OperatorKeys {
        operator_key: Some(public(&operator_key(20))),
        node_key: Some(public(&node_key(20))),
        address: Some("203.0.113.7:4433".into()),
        ..OperatorKeys::default()
    };
    assert_eq!(act(&mut cloud, 1, Action::OperatorKeys(keys)), Code::Ok);
    assert_eq!(leave(&mut cloud, 1), Code::UnknownSigner);
    let old = cloud.attest(1, &[0], &[]);
    assert_eq!(cloud.code(old), Code::UnknownSigner);
    let new = cloud.attest(20, &[0], &[]);
    assert_eq!(cloud.code(new), Code::Ok);
    assert_eq!(cloud.ledger.pending_committee(), None);
    // Member and machine become one daemon: the member's node key for the machine.
    let shared = MachineKey {
        machine: "machine-1".into(),
        node_key: public(&node_key(20)),
    };
    assert_eq!(
        act(&mut cloud, 0, Action::MachineKey(shared.clone())),
        Code::Unauthorised
    );
    assert_eq!(act(&mut cloud, 20, Action::MachineKey(shared)), Code::Ok);
    let by_key = cloud.ledger.machine_by_node_key(&public(&node_key(20)));
    assert_eq!(by_key.map(|m| m.name.as_str()), Some("machine-1"));
    assert!(
        cloud
            .ledger
            .machine_by_node_key(&public(&machine_key(1)))
            .is_none()
    );
    // And parts again: the machine keeps the shared key.
    let keys = OperatorKeys {
        node_key: Some(public(&node_key(21))),
        ..OperatorKeys::default()
    };
    assert_eq!(act(&mut cloud, 20, Action::OperatorKeys(keys)), Code::Ok);
    let not_a_member = cloud.attest(20, &[0], &[]);
    assert_eq!(cloud.code(not_a_member), Code::Unauthorised);
    let mut restored = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(restored.state_root(), cloud.ledger.state_root());
    let by_key = restored.machine_by_node_key(&public(&node_key(20)));
    assert_eq!(by_key.map(|m| m.name.as_str()), Some("machine-1"));
}

#[test]
fn an_equivocator_loses_its_seat_and_gets_it_back_only_by_a_vote_and_a_new_key() {
    let mut cloud = Cloud::new(4);
    let proof = twins(&cloud, 0, 2, 2);
    assert_eq!(act(&mut cloud, 0, proof.clone()), Code::Ok);
    assert_eq!(act(&mut cloud, 1, proof), Code::AlreadyDone);
    // A second culprit is more than f = 1: that is for people.
    let second = twins(&cloud, 0, 3, 3);
    assert_eq!(act(&mut cloud, 1, second.clone()), Code::TooManyLeave);
    cloud.checkpoint();
    assert_eq!(cloud.ledger.committee().len(), 3);
    let loud = Change::EpochEnded {
        next: 1,
        seats: 3,
        fault_weight: 0,
    };
    assert_eq!(cloud.changes.last(), Some(&loud));
    assert_eq!(act(&mut cloud, 1, second), Code::TooManyLeave);
    // It is an operator still, without a vote.
    let add = cloud.machine_add(2, 12, 8, 8_192);
    cloud.ok(vec![add]);
    let vote = Propose { change: remove(0) };
    assert_eq!(
        act(&mut cloud, 2, Action::Propose(vote)),
        Code::Unauthorised
    );
    let reseat = |number: u64| {
        ProposedChange::OperatorReseat(OperatorName {
            operator: format!("operator-{number}"),
        })
    };
    assert_eq!(decide(&mut cloud, &[0], reseat(1)), Code::AlreadyDone);
    assert_eq!(decide(&mut cloud, &[0], reseat(2)), Code::KeyInUse);
    assert_eq!(rotate(&mut cloud, 2, &consensus_key(42)), Code::Ok);
    assert_eq!(cloud.ledger.pending_committee(), None);
    assert_eq!(decide(&mut cloud, &[0, 1, 3], reseat(2)), Code::Ok);
    cloud.checkpoint();
    let seats = cloud.ledger.committee();
    assert_eq!(seats.len(), 4);
    assert_eq!(seats[2].consensus_key, public(&consensus_key(42)));
}

#[test]
fn a_proof_of_the_epoch_before_still_counts_and_an_older_one_does_not() {
    let mut cloud = Cloud::new(8);
    for epoch in 1..3 {
        assert_eq!(rotate(&mut cloud, 0, &consensus_key(50 + epoch)), Code::Ok);
        cloud.run(61_000);
        cloud.checkpoint();
        assert_eq!(cloud.ledger.epoch().number, epoch);
    }
    let old = twins(&cloud, 0, 4, 4);
    assert_eq!(act(&mut cloud, 1, old), Code::BadProof);
    let future = twins(&cloud, 3, 4, 4);
    assert_eq!(act(&mut cloud, 1, future), Code::BadProof);
    // Under the key it had then.
    let now = twins(&cloud, 2, 0, 51);
    assert_eq!(act(&mut cloud, 1, now), Code::BadProof);
    let then = twins(&cloud, 1, 0, 51);
    assert_eq!(act(&mut cloud, 1, then), Code::Ok);
    let operator = cloud.ledger.operator(OperatorId(0)).expect("there");
    let by = operator.unseated.expect("proven");
    assert_eq!((by.epoch, by.round), (1, 7));
    assert_eq!(by.consensus_key, public(&consensus_key(51)));
}

#[test]
fn what_proves_no_equivocation_changes_nothing() {
    let mut cloud = Cloud::new(4);
    let chain = cloud.genesis.chain_id;
    let header = |round, seat, by, salt| signed_header(chain, 0, round, seat, by, salt);
    let good = header(7, 2, 2, 1);
    let mut torn = good.clone();
    torn.pop();
    let other_chain = |salt| signed_header(Digest([1; 32]), 0, 7, 2, 2, salt);
    let mut swapped = [good.clone(), header(7, 2, 2, 2)];
    swapped.sort_by(|a, b| b[..32].cmp(&a[..32]));
    let swapped = hex::encode([&swapped[0][32..], &swapped[1][32..]].concat());
    let root = cloud.ledger.committee();
    for (what, action) in [
        ("one event twice", proof(good.clone(), good.clone())),
        ("two rounds", proof(good.clone(), header(8, 2, 2, 2))),
        ("two members", proof(good.clone(), header(7, 3, 3, 2))),
        (
            "another's signature",
            proof(good.clone(), header(7, 2, 3, 2)),
        ),
        (
            "no such seat",
            proof(header(7, 9, 2, 1), header(7, 9, 2, 2)),
        ),
        ("another chain", proof(other_chain(1), other_chain(2))),
        ("torn", proof(good.clone(), torn)),
        (
            "wrong order",
            Action::Equivocation(Equivocation { proof: swapped }),
        ),
        (
            "nothing",
            Action::Equivocation(Equivocation {
                proof: String::new(),
            }),
        ),
    ] {
        assert_eq!(act(&mut cloud, 0, action), Code::BadProof, "{what}");
    }
    for text in ["0", "zz", "AB"] {
        let action = Action::Equivocation(Equivocation { proof: text.into() });
        assert_eq!(act(&mut cloud, 0, action), Code::BadText, "{text}");
    }
    assert_eq!(cloud.ledger.pending_committee(), None);
    assert_eq!(cloud.ledger.committee(), root);
}

#[test]
fn a_raised_protocol_version_counts_from_the_next_epoch_on() {
    let mut cloud = Cloud::new(4);
    let to = |version| ProposedChange::ProtocolVersion(ProtocolVersion { version });
    let versions = |cloud: &Cloud| {
        let ledger = &cloud.ledger;
        (
            ledger.protocol_version(),
            ledger.protocol_version_decided(),
            [0, 1, 2, 3].map(|epoch| ledger.protocol_version_in(epoch)),
        )
    };
    assert_eq!(versions(&cloud), (1, 1, [1; 4]));
    for refused in [0, 1] {
        assert_eq!(decide(&mut cloud, &[0], to(refused)), Code::OutOfRange);
    }
    assert_eq!(decide(&mut cloud, &[0, 1, 2], to(2)), Code::Ok);
    assert_eq!(versions(&cloud), (1, 2, [1, 2, 2, 2]));
    assert_eq!(decide(&mut cloud, &[0], to(2)), Code::OutOfRange);
    // What is decided before the epoch ends takes the place of what was.
    assert_eq!(decide(&mut cloud, &[0, 1, 2], to(3)), Code::Ok);
    let restored = Ledger::restore(&cloud.ledger.snapshot()).expect("sound");
    assert_eq!(restored.protocol_version_decided(), 3);
    cloud.ledger = restored;
    for (number, epoch, voters) in [(9, 1, &[0, 1, 2][..]), (10, 2, &[0, 1, 2, 3])] {
        let card = ProposedChange::OperatorAdd(OperatorAdd {
            name: format!("operator-{number}"),
            operator_key: public(&operator_key(number)),
            consensus_key: public(&consensus_key(number)),
            node_key: public(&node_key(number)),
            weight: 1,
            address: None,
        });
        assert_eq!(decide(&mut cloud, voters, card), Code::Ok);
        cloud.checkpoint();
        assert_eq!(cloud.ledger.epoch().number, epoch);
    }
    assert_eq!(versions(&cloud), (3, 3, [1, 3, 3, 3]));
}
