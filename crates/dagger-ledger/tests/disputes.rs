//! A customer disputes a VM that its machine reports as running; rivals are drawn, probe it and decide.

mod cloud;

use cloud::{Cloud, node_key, operator_key, stopped, vm};
use dagger_ledger::*;

fn running(operators: u64, failover: Failover) -> (Cloud, VmId) {
    let mut cloud = Cloud::new(operators);
    let id = cloud.create(VmCreate {
        failover,
        ..vm("web")
    });
    cloud.bring_up(id);
    (cloud, id)
}

fn dispute(cloud: &mut Cloud) -> Code {
    let action = Action::VmDispute(VmDispute {
        vm: "web".into(),
        claim: "ssh does not answer".into(),
    });
    let transaction = cloud.account(action);
    cloud.code(transaction)
}

fn probe(cloud: &mut Cloud, operator: u64, vm: VmId, reached: bool) -> Code {
    let lease_epoch = cloud.ledger.vm(vm).expect("it is there").lease_epoch;
    let action = Action::VmProbe(VmProbe {
        vm,
        lease_epoch,
        reached,
        detail: "connection refused".into(),
    });
    let transaction = cloud.sign(&node_key(operator), action);
    cloud.code(transaction)
}

fn record(cloud: &Cloud, vm: VmId) -> DisputeRecord {
    let vm = cloud.ledger.vm(vm).expect("it is there");
    *vm.dispute.clone().expect("there is one")
}

fn rivals(cloud: &Cloud, vm: VmId) -> Vec<u64> {
    let rivals = record(cloud, vm).rivals;
    rivals.iter().map(|operator| operator.0.into()).collect()
}

fn upheld(cloud: &Cloud, machine: u32) -> u32 {
    let machine = cloud.ledger.machine(MachineId(machine));
    machine.expect("it is there").disputes_upheld
}

#[test]
fn a_vm_that_rivals_cannot_reach_moves_to_another_machine() {
    let (mut cloud, id) = running(4, Failover::Recreate);
    let host = cloud.machine_of(id);
    assert_eq!(dispute(&mut cloud), Code::Ok);
    assert_eq!(dispute(&mut cloud), Code::TooSoon);
    let drawn = rivals(&cloud, id);
    assert_eq!(drawn.len(), 3, "2 f + 1");
    assert!(
        !drawn.contains(&host.into()),
        "a host probes nothing of its own"
    );
    assert_eq!(probe(&mut cloud, host.into(), id, true), Code::Unauthorised);
    assert_eq!(probe(&mut cloud, drawn[0], id, false), Code::Ok);
    assert_eq!(probe(&mut cloud, drawn[0], id, false), Code::AlreadyDone);
    let waits: Vec<OperatorId> = record(&cloud, id).waits_for().collect();
    assert_eq!(waits.len(), 2);
    assert_eq!(
        record(&cloud, id).status,
        DisputeStatus::Open,
        "f are not enough"
    );
    assert_eq!(probe(&mut cloud, drawn[1], id, false), Code::Ok);
    assert_eq!(record(&cloud, id).status, DisputeStatus::Upheld);
    assert_eq!(probe(&mut cloud, drawn[2], id, true), Code::NoDispute);
    assert_eq!((cloud.phase(id), upheld(&cloud, host)), (Phase::Moving, 1));
    // The host stops it, as for a drain; until then nobody else may start it.
    let report = cloud.report(host, id, stopped());
    cloud.ok(vec![report]);
    let moved = cloud.ledger.vm(id).expect("it is there");
    assert_eq!(
        (moved.phase, moved.reason),
        (Phase::Placed, Reason::DisputeUpheld)
    );
    assert_ne!(cloud.machine_of(id), host);
    cloud.bring_up(id);
}

#[test]
fn f_liars_can_neither_uphold_nor_dismiss_a_dispute() {
    let (mut cloud, id) = running(7, Failover::Recreate);
    let host = cloud.machine_of(id);
    for truth in [true, false] {
        assert_eq!(dispute(&mut cloud), Code::Ok);
        let drawn = rivals(&cloud, id);
        assert_eq!(drawn.len(), 5, "2 f + 1 of six rivals");
        let idle = (0..7).find(|o| *o != u64::from(host) && !drawn.contains(o));
        let idle = idle.expect("one was not drawn");
        assert_eq!(probe(&mut cloud, idle, id, truth), Code::Unauthorised);
        for (i, rival) in drawn.into_iter().enumerate() {
            assert_eq!(record(&cloud, id).status, DisputeStatus::Open);
            assert_eq!(probe(&mut cloud, rival, id, (i < 2) != truth), Code::Ok);
        }
        let expected = if truth {
            DisputeStatus::Dismissed
        } else {
            DisputeStatus::Upheld
        };
        assert_eq!(record(&cloud, id).status, expected);
        cloud.run(60_000);
    }
}

#[test]
fn a_vm_whose_disk_stays_is_its_customers_to_decide_about() {
    let (mut cloud, id) = running(4, Failover::None);
    let host = cloud.machine_of(id);
    assert_eq!(dispute(&mut cloud), Code::Ok);
    for rival in &rivals(&cloud, id)[..2] {
        probe(&mut cloud, *rival, id, false);
    }
    assert_eq!(record(&cloud, id).status, DisputeStatus::Upheld);
    assert_eq!(
        (cloud.phase(id), cloud.machine_of(id)),
        (Phase::Running, host)
    );
    assert_eq!(upheld(&cloud, host), 1);
    let reboot = cloud.account(Action::VmReboot(VmName { vm: "web".into() }));
    cloud.ok(vec![reboot]);
    let restored = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(restored.vm(id), cloud.ledger.vm(id));
}

#[test]
fn a_dispute_ends_with_its_time_and_with_its_vm() {
    let (mut cloud, id) = running(4, Failover::Recreate);
    assert_eq!(dispute(&mut cloud), Code::Ok);
    let rival = rivals(&cloud, id)[0];
    probe(&mut cloud, rival, id, false);
    let deadline = cloud.ledger.next_deadline_ms().expect("rivals must act");
    assert!(deadline <= cloud.time_ms + 60_000);
    // An open dispute survives a snapshot, with its deadline.
    cloud.ledger = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    cloud.run(60_000);
    let closed = record(&cloud, id);
    assert_eq!(closed.status, DisputeStatus::Undecided);
    assert!(closed.closed_ms.is_some());
    assert_eq!(cloud.phase(id), Phase::Running);
    assert_eq!(probe(&mut cloud, rival, id, false), Code::NoDispute);

    assert_eq!(dispute(&mut cloud), Code::Ok);
    let host = cloud.machine_of(id);
    let report = cloud.report(host, id, stopped());
    cloud.ok(vec![report]);
    assert_eq!(record(&cloud, id).status, DisputeStatus::Moot);
    cloud.run(60_000);
    assert_eq!(
        dispute(&mut cloud),
        Code::WrongPhase,
        "nobody says that it runs"
    );
    assert_eq!(upheld(&cloud, host), 0);
}

#[test]
fn rivals_are_drawn_anew_each_time_and_there_must_be_some() {
    let (mut cloud, id) = running(7, Failover::None);
    let mut draws = std::collections::BTreeSet::new();
    for _ in 0..12 {
        assert_eq!(dispute(&mut cloud), Code::Ok);
        draws.insert(rivals(&cloud, id));
        cloud.run(61_000);
    }
    assert!(draws.len() > 6, "{draws:?}");
    let stranger = cloud.sign(
        &operator_key(1),
        Action::VmDispute(VmDispute {
            vm: "web".into(),
            claim: String::new(),
        }),
    );
    assert_eq!(cloud.code(stranger), Code::Unauthorised);

    let (mut alone, _) = running(1, Failover::None);
    assert_eq!(dispute(&mut alone), Code::NoRivals);
}
