//! Proposals and votes, quotas, delegated keys, images that wait for copies.

mod cloud;

use cloud::{Cloud, account_key, key, machine_key, node_key, operator_key, public, vm};
use dagger_ledger::*;

fn propose(cloud: &mut Cloud, operator: u64, change: ProposedChange) -> Code {
    let action = Action::Propose(Propose { change });
    let transaction = cloud.sign(&operator_key(operator), action);
    cloud.code(transaction)
}

fn vote(cloud: &mut Cloud, operator: u64, proposal: u64, approve: bool) -> Code {
    let action = Action::Vote(Vote { proposal, approve });
    let transaction = cloud.sign(&operator_key(operator), action);
    cloud.code(transaction)
}

fn status(cloud: &Cloud, id: u64) -> ProposalStatus {
    cloud
        .ledger
        .proposals()
        .find(|p| p.id == id)
        .expect("kept")
        .status
}

fn newcomer(number: u64) -> ProposedChange {
    ProposedChange::OperatorAdd(OperatorAdd {
        name: format!("operator-{number}"),
        operator_key: public(&operator_key(number)),
        consensus_key: public(&key(3, number)),
        node_key: public(&node_key(number)),
        weight: 1,
        address: None,
    })
}

fn parameters(change: ParametersChange) -> ProposedChange {
    ProposedChange::Parameters(Box::new(change))
}

#[test]
fn an_operator_is_admitted_by_a_quorum_and_seated_with_the_next_epoch() {
    let mut cloud = Cloud::new(4);
    assert_eq!(propose(&mut cloud, 0, newcomer(9)), Code::Ok);
    assert_eq!(vote(&mut cloud, 0, 0, true), Code::AlreadyVoted);
    assert_eq!(vote(&mut cloud, 1, 0, true), Code::Ok);
    assert_eq!(
        (status(&cloud, 0), cloud.ledger.pending_committee()),
        (ProposalStatus::Open, None)
    );
    assert_eq!(vote(&mut cloud, 2, 0, true), Code::Ok);
    assert_eq!(status(&cloud, 0), ProposalStatus::Accepted);
    assert_eq!(vote(&mut cloud, 3, 0, true), Code::UnknownProposal);
    assert_eq!(propose(&mut cloud, 1, newcomer(9)), Code::NameTaken);
    // Its keys work at once, its vote does not.
    assert_eq!(propose(&mut cloud, 9, newcomer(10)), Code::Unauthorised);
    let add = cloud.machine_add(9, 9, 8, 8_192);
    cloud.ok(vec![add]);
    let seats = cloud.ledger.pending_committee().expect("another committee");
    assert_eq!((seats.len(), seats[4].operator), (5, OperatorId(4)));
    cloud.checkpoint();
    assert_eq!(cloud.ledger.pending_committee(), None);
    cloud.run(60_000);
    let old = |m: &MachineRecord| m.operator == OperatorId(4) || m.state == MachineState::Up;
    assert!(cloud.ledger.machines().all(old));
    assert_eq!(propose(&mut cloud, 9, newcomer(10)), Code::Ok);
    assert_eq!(
        cloud.ledger.state_root(),
        cloud.ledger.recompute_state_root()
    );
}

#[test]
fn an_operator_that_is_removed_loses_its_say_and_its_machines_drain() {
    let mut cloud = Cloud::new(5);
    let id = cloud.create(VmCreate {
        placement: Placement {
            operators: vec!["operator-4".into()],
            ..Placement::default()
        },
        ..vm("web")
    });
    cloud.bring_up(id);
    let remove = ProposedChange::OperatorRemove(OperatorName {
        operator: "operator-4".into(),
    });
    assert_eq!(propose(&mut cloud, 0, remove.clone()), Code::Ok);
    for operator in 1..4 {
        vote(&mut cloud, operator, 0, true);
    }
    assert_eq!(status(&cloud, 0), ProposalStatus::Accepted);
    assert_eq!(propose(&mut cloud, 4, remove.clone()), Code::UnknownSigner);
    assert_eq!(propose(&mut cloud, 0, remove), Code::UnknownOperator);
    assert!(cloud.ledger.machine_by_name("machine-4").unwrap().draining);
    // Its node still reports on what runs there.
    let report = cloud.report(4, id, Report::Running(Running::default()));
    cloud.ok(vec![report]);
    let restored = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(restored.operators().count(), 5);
    cloud.checkpoint();
    cloud.run(10_000);
    assert_eq!(cloud.ledger.operator(OperatorId(4)).unwrap().member, None);
}

#[test]
fn proposals_are_rejected_expire_and_change_parameters() {
    let mut cloud = Cloud::with_parameters(
        4,
        Parameters {
            proposal_ms: 5_000,
            ..Parameters::default()
        },
    );
    let change = parameters(ParametersChange {
        lease_ms: Some(8_000),
        margin_ms: Some(2_000),
        ..ParametersChange::default()
    });
    assert_eq!(propose(&mut cloud, 0, change.clone()), Code::Ok);
    assert_eq!(vote(&mut cloud, 1, 0, false), Code::Ok);
    assert_eq!(status(&cloud, 0), ProposalStatus::Open);
    assert_eq!(vote(&mut cloud, 2, 0, false), Code::Ok);
    assert_eq!(status(&cloud, 0), ProposalStatus::Rejected);
    assert_eq!(propose(&mut cloud, 0, change.clone()), Code::Ok);
    cloud.run(8_000);
    assert_eq!(status(&cloud, 1), ProposalStatus::Expired);
    propose(&mut cloud, 0, change);
    vote(&mut cloud, 1, 2, true);
    vote(&mut cloud, 2, 2, true);
    let faster = Parameters {
        lease_ms: 8_000,
        margin_ms: 2_000,
        proposal_ms: 5_000,
        ..Parameters::default()
    };
    assert_eq!(cloud.ledger.parameters(), &faster, "what it names, no more");
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    cloud.all_lose(host);
    cloud.run(11_000);
    assert_ne!(cloud.machine_of(id), host);
    let bad = ParametersChange {
        gap_cap_ms: Some(0),
        ..ParametersChange::default()
    };
    assert_eq!(propose(&mut cloud, 0, parameters(bad)), Code::OutOfRange);
    let nothing = parameters(ParametersChange::default());
    assert_eq!(propose(&mut cloud, 0, nothing), Code::MissingField);
    for _ in 0..8 {
        propose(&mut cloud, 3, newcomer(9));
    }
    assert_eq!(propose(&mut cloud, 3, newcomer(9)), Code::TooMany);
}

#[test]
fn parameters_that_no_longer_go_together_are_not_enacted() {
    let mut cloud = Cloud::new(4);
    let before = cloud.ledger.parameters().clone();
    let lease = ParametersChange {
        lease_ms: Some(8_000),
        ..ParametersChange::default()
    };
    // Within the bounds of the lease in force, beyond those of the one that comes first.
    let gap = ParametersChange {
        gap_cap_ms: Some(9_000),
        ..ParametersChange::default()
    };
    for change in [lease, gap] {
        assert_eq!(propose(&mut cloud, 0, parameters(change)), Code::Ok);
    }
    for proposal in 0..2 {
        for operator in 1..3 {
            assert_eq!(vote(&mut cloud, operator, proposal, true), Code::Ok);
        }
    }
    assert_eq!(status(&cloud, 0), ProposalStatus::Accepted);
    assert_eq!(status(&cloud, 1), ProposalStatus::Void);
    let expected = Parameters {
        lease_ms: 8_000,
        ..before
    };
    assert_eq!(cloud.ledger.parameters(), &expected);
}

#[test]
fn quotas_and_allocations_hold_and_usage_is_exact() {
    let mut cloud = Cloud::new(4);
    let quota = Some(Quota {
        vms: 2,
        vcpus: 4,
        memory_mib: 4_096,
        disk_mib: 100_000,
    });
    let set = AccountQuota {
        account: "acme".into(),
        quota,
    };
    let foreign = cloud.sign(&operator_key(1), Action::AccountQuota(set.clone()));
    assert_eq!(cloud.code(foreign), Code::Unauthorised);
    let set = cloud.sign(&operator_key(0), Action::AccountQuota(set));
    cloud.ok(vec![set]);
    let id = cloud.create(VmCreate {
        vcpus: 3,
        ..vm("a")
    });
    let start_ms = cloud.time_ms;
    let large = cloud.account(Action::VmCreate(VmCreate {
        vcpus: 2,
        ..vm("b")
    }));
    assert_eq!(cloud.code(large), Code::QuotaExceeded);
    cloud.create(vm("b"));
    let third = cloud.account(Action::VmCreate(vm("c")));
    assert_eq!(cloud.code(third), Code::QuotaExceeded);
    let delete = cloud.account(Action::VmDelete(VmName { vm: "b".into() }));
    cloud.ok(vec![delete]);
    let allocation = Some(Quota {
        vms: 1,
        vcpus: 100,
        memory_mib: 100_000,
        disk_mib: 100_000,
    });
    let operator = "operator-0".to_string();
    let change = ProposedChange::Allocation(OperatorAllocation {
        operator,
        allocation,
    });
    propose(&mut cloud, 1, change);
    vote(&mut cloud, 2, 0, true);
    vote(&mut cloud, 3, 0, true);
    let other = cloud.account(Action::VmCreate(vm("b")));
    assert_eq!(cloud.code(other), Code::QuotaExceeded);
    let delete = cloud.account(Action::VmDelete(VmName { vm: "a".into() }));
    cloud.ok(vec![delete]);
    assert!(cloud.ledger.vm(id).is_none());
    let usage = cloud.ledger.account(AccountId(0)).unwrap().usage;
    let (a_ms, b_ms) = (u128::from(cloud.time_ms - start_ms), 20);
    assert_eq!(usage.vcpu_ms, 3 * a_ms + b_ms);
    let hosted: u128 = cloud.ledger.operators().map(|o| o.usage.vcpu_ms).sum();
    assert_eq!(hosted, usage.vcpu_ms);
}

#[test]
fn a_delegated_key_does_what_it_may_until_it_may_not() {
    let mut cloud = Cloud::new(4);
    let robot = key(8, 0);
    let delegate = KeyDelegate {
        key: public(&robot),
        actions: vec!["vm_create".into(), "vm_delete".into()],
        vms: vec!["web".into()],
        until_ms: cloud.time_ms + 30_000,
    };
    let grant = cloud.account(Action::KeyDelegate(delegate.clone()));
    cloud.ok(vec![grant]);
    let delete = |vm: &str| Action::VmDelete(VmName { vm: vm.into() });
    for (action, code) in [
        (Action::VmCreate(vm("db")), Code::Unauthorised),
        (
            Action::VmStop(VmName { vm: "web".into() }),
            Code::Unauthorised,
        ),
        (
            Action::AccountRotate(AccountRotate {
                key: public(&robot),
            }),
            Code::Unauthorised,
        ),
        (Action::VmCreate(vm("web")), Code::Ok),
        (delete("web"), Code::Ok),
    ] {
        let transaction = cloud.sign(&robot, action);
        assert_eq!(cloud.code(transaction), code);
    }
    cloud.run(31_000);
    let late = cloud.sign(&robot, Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(late), Code::Expired);
    let mut all = delegate.clone();
    all.actions.push("key_delegate".into());
    let all = cloud.account(Action::KeyDelegate(all));
    assert_eq!(cloud.code(all), Code::UnknownAction);
    let revoke = Action::KeyRevoke(KeyRevoke {
        key: public(&robot),
    });
    let (first, second) = (cloud.account(revoke.clone()), cloud.account(revoke));
    cloud.ok(vec![first]);
    assert_eq!(cloud.code(second), Code::UnknownDelegation);
    let gone = cloud.sign(&robot, Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(gone), Code::UnknownSigner);

    let fresh = key(8, 1);
    let rotate = cloud.account(Action::AccountRotate(AccountRotate {
        key: public(&fresh),
    }));
    cloud.ok(vec![rotate]);
    let old = cloud.account(Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(old), Code::UnknownSigner);
    let new = cloud.sign(&fresh, Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(new), Code::Ok);
    let back = AccountRotate {
        key: public(&account_key()),
    };
    let back = cloud.sign(&fresh, Action::AccountRotate(back));
    cloud.ok(vec![back]);
}

#[test]
fn an_image_is_ready_once_enough_operators_hold_it() {
    let parameters = Parameters {
        image_replicas_min: 2,
        ..Parameters::default()
    };
    let mut cloud = Cloud::with_parameters(4, parameters);
    let create = cloud.account(Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(create), Code::ImageNotReady);
    let digest = cloud::manifest().digest();
    let attest = |digest| {
        Action::ImageAttest(ImageAttest {
            image: "acme/micro".into(),
            digest,
        })
    };
    let wrong = cloud.sign(&node_key(0), attest(Digest([7; 32])));
    assert_eq!(cloud.code(wrong), Code::ImageDigestMismatch);
    // The member's node and the machine's node of one operator are one copy.
    let twice = vec![
        cloud.sign(&node_key(0), attest(digest)),
        cloud.sign(&machine_key(0), attest(digest)),
    ];
    cloud.ok(twice);
    let create = cloud.account(Action::VmCreate(vm("web")));
    assert_eq!(cloud.code(create), Code::ImageNotReady);
    let second = cloud.sign(&machine_key(1), attest(digest));
    cloud.ok(vec![second]);
    cloud.create(vm("web"));
}

#[test]
fn a_machines_capacity_and_region_change_under_its_vms() {
    let mut cloud = Cloud::new(4);
    let regions = vec!["moon".to_string()];
    let on_moon = || VmCreate {
        placement: Placement {
            regions: regions.clone(),
            ..Placement::default()
        },
        ..vm("web")
    };
    let create = cloud.account(Action::VmCreate(on_moon()));
    assert_eq!(cloud.code(create), Code::NoMachineFits);
    let update = |vcpus, region: &str| MachineUpdate {
        machine: "machine-1".into(),
        vcpus,
        memory_mib: 8_192,
        disk_mib: 100_000,
        cpu_permille: NO_OVERCOMMIT,
        labels: Labels::from([("region".to_string(), region.to_string())]),
    };
    let foreign = cloud.sign(&operator_key(2), Action::MachineUpdate(update(4, "moon")));
    assert_eq!(cloud.code(foreign), Code::Unauthorised);
    let good = cloud.sign(&operator_key(1), Action::MachineUpdate(update(4, "moon")));
    cloud.ok(vec![good]);
    let id = cloud.create(VmCreate {
        vcpus: 3,
        ..on_moon()
    });
    assert_eq!(cloud.machine_of(id), 1);
    let small = cloud.sign(&operator_key(1), Action::MachineUpdate(update(2, "moon")));
    assert_eq!(cloud.code(small), Code::OutOfRange);
    let moved = cloud.sign(&operator_key(1), Action::MachineUpdate(update(16, "mars")));
    cloud.ok(vec![moved]);
    let create = cloud.account(Action::VmCreate(VmCreate {
        name: "b".into(),
        ..on_moon()
    }));
    assert_eq!(cloud.code(create), Code::NoMachineFits);
}

#[test]
fn sealed_user_data_keeps_a_vm_to_the_machines_that_can_open_it() {
    let mut cloud = Cloud::new(4);
    let wrapped = |machine: &str| WrappedKey {
        machine: machine.into(),
        wrapped: "00ff".into(),
    };
    let data = UserData {
        digest: Digest([3; 32]),
        size_bytes: 10,
        keys: vec![wrapped("machine-2"), wrapped("machine-3")],
    };
    let id = cloud.create(VmCreate {
        user_data: Some(data),
        ..vm("web")
    });
    cloud.bring_up(id);
    let first = cloud.machine_of(id);
    assert!(first == 2 || first == 3);
    let explanation = cloud.ledger.explain(id).unwrap();
    let blind = explanation
        .machines
        .iter()
        .filter(|m| m.filtered == [Filter::NoUserDataKey]);
    assert_eq!(blind.count(), 2);
    cloud.all_lose(first);
    cloud.run(41_000);
    assert_eq!(cloud.machine_of(id), 5 - first);
}

#[test]
fn processors_are_promised_as_often_as_the_operator_says_and_memory_never() {
    let mut cloud = Cloud::new(4);
    let update = |vcpus, cpu_permille| {
        Action::MachineUpdate(MachineUpdate {
            machine: "machine-1".into(),
            vcpus,
            memory_mib: 8_192,
            disk_mib: 100_000,
            cpu_permille,
            labels: Labels::from([("region".to_string(), "moon".to_string())]),
        })
    };
    for wrong in [0, 999, CPU_PERMILLE_MAX + 1] {
        let wrong = cloud.sign(&operator_key(1), update(4, wrong));
        assert_eq!(cloud.code(wrong), Code::OutOfRange);
    }
    let twice = cloud.sign(&operator_key(1), update(4, 2_000));
    cloud.ok(vec![twice]);
    let on_moon = |name: &str, vcpus, memory_mib| VmCreate {
        vcpus,
        memory_mib,
        placement: Placement {
            regions: vec!["moon".into()],
            ..Placement::default()
        },
        ..vm(name)
    };
    let create = |cloud: &mut Cloud, create| {
        let create = cloud.account(Action::VmCreate(create));
        cloud.code(create)
    };
    // One VM never gets more than there are; together they get twice as many.
    let five = create(&mut cloud, on_moon("five", 5, 512));
    assert_eq!(five, Code::NoMachineFits);
    assert_eq!(create(&mut cloud, on_moon("a", 4, 4_096)), Code::Ok);
    assert_eq!(create(&mut cloud, on_moon("b", 3, 2_048)), Code::Ok);
    let two = create(&mut cloud, on_moon("two", 2, 512));
    assert_eq!(two, Code::NoMachineFits);
    let large = create(&mut cloud, on_moon("large", 1, 4_096));
    assert_eq!(large, Code::NoMachineFits, "memory is there once");
    assert_eq!(create(&mut cloud, on_moon("c", 1, 512)), Code::Ok);
    cloud.ledger.invariants().unwrap();
    let explanation = cloud.ledger.explain(VmId(0)).expect("it is there");
    let verdict = explanation.machines.iter().find(|v| v.name == "machine-1");
    let verdict = verdict.expect("every machine has one");
    assert_eq!(
        (&verdict.filtered[..], verdict.left_vcpus),
        (&[][..], Some(0))
    );
    // Neither the sum nor the largest VM may be more than what is offered.
    for (vcpus, cpu_permille) in [(4, 1_999), (3, 3_000)] {
        let less = cloud.sign(&operator_key(1), update(vcpus, cpu_permille));
        assert_eq!(cloud.code(less), Code::OutOfRange, "{vcpus} {cpu_permille}");
    }
    let mut restored = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(restored.state_root(), cloud.ledger.state_root());
}
