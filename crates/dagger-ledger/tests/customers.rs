//! What customers ask of running VMs: restarts after they stop of themselves, other placements; machines that flap; accounts whose sponsor left.

mod cloud;

use cloud::{Cloud, failed, operator_key, stopped, vm};
use dagger_ledger::*;

fn end(cloud: &mut Cloud, id: VmId, report: Report) {
    let report = cloud.report(cloud.machine_of(id), id, report);
    cloud.ok(vec![report]);
}

/// Active ms until the VM is placed again.
fn restarted_after(cloud: &mut Cloud, id: VmId) -> u64 {
    let since = cloud.ledger.active_ms();
    assert_eq!(cloud.phase(id), Phase::Restarting);
    while cloud.phase(id) == Phase::Restarting {
        cloud.commit(500, &[]);
    }
    assert_eq!(cloud.phase(id), Phase::Placed);
    cloud.ledger.active_ms() - since
}

#[test]
fn a_vm_that_breaks_starts_again_and_waits_longer_each_time() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(VmCreate {
        restart: Restart::OnFailure,
        failover: Failover::None,
        ..vm("web")
    });
    cloud.bring_up(id);
    let (host, disk) = (
        cloud.machine_of(id),
        cloud.ledger.vm(id).unwrap().disk_epoch,
    );
    let mut waits = Vec::new();
    for _ in 0..4 {
        end(&mut cloud, id, failed());
        waits.push(restarted_after(&mut cloud, id));
        cloud.bring_up(id);
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!((cloud.machine_of(id), record.disk_epoch), (host, disk));
    assert_eq!(record.restarts, 4);
    // One that ran long begins anew.
    cloud.run(300_000);
    end(&mut cloud, id, failed());
    assert_eq!(restarted_after(&mut cloud, id), 1_000);
    cloud.bring_up(id);
    // Its guest powered off: that is no failure.
    end(&mut cloud, id, stopped());
    assert_eq!(cloud.phase(id), Phase::Stopped);
}

#[test]
fn a_vm_that_is_always_to_run_starts_again_after_its_guest_powered_off_unless_it_is_stopped() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(VmCreate {
        restart: Restart::Always,
        ..vm("web")
    });
    cloud.bring_up(id);
    end(&mut cloud, id, stopped());
    restarted_after(&mut cloud, id);
    cloud.bring_up(id);
    end(&mut cloud, id, stopped());
    let stop = cloud.account(Action::VmStop(VmName { vm: "web".into() }));
    cloud.ok(vec![stop]);
    assert_eq!(cloud.phase(id), Phase::Stopped);
    cloud.run(20_000);
    assert_eq!(cloud.phase(id), Phase::Stopped);
}

#[test]
fn a_vm_whose_machine_is_lost_while_it_waits_goes_on_elsewhere() {
    let mut cloud = Cloud::new(4);
    let parameters = cloud.ledger.parameters().clone();
    assert!(parameters.restart_max_ms > parameters.lease_ms + parameters.margin_ms);
    let id = cloud.create(VmCreate {
        restart: Restart::Always,
        ..vm("web")
    });
    for _ in 0..8 {
        cloud.bring_up(id);
        end(&mut cloud, id, failed());
        if cloud.ledger.vm(id).unwrap().restarts < 8 {
            restarted_after(&mut cloud, id);
        }
    }
    let host = cloud.machine_of(id);
    cloud.all_lose(host);
    cloud.run(41_000);
    assert_ne!(cloud.machine_of(id), host);
}

fn place(cloud: &mut Cloud, machines: &[&str]) -> Code {
    let placement = Placement {
        machines: machines.iter().map(|m| m.to_string()).collect(),
        ..Placement::default()
    };
    let vm = "web".to_string();
    let place = cloud.account(Action::VmPlace(VmPlace { vm, placement }));
    cloud.code(place)
}

#[test]
fn a_vm_moves_to_where_its_owner_says_if_its_disk_may_stay_behind() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let first = cloud.machine_of(id);
    let (here, there) = (
        format!("machine-{first}"),
        format!("machine-{}", (first + 1) % 4),
    );
    assert_eq!(place(&mut cloud, &[&here]), Code::Ok);
    assert_eq!(cloud.phase(id), Phase::Running);
    assert_eq!(place(&mut cloud, &["machine-77"]), Code::NoMachineFits);
    assert_eq!(place(&mut cloud, &[&there]), Code::Ok);
    assert_eq!(cloud.phase(id), Phase::Moving);
    assert_eq!(place(&mut cloud, &[]), Code::WrongPhase);
    end(&mut cloud, id, stopped());
    assert_eq!(cloud.machine_of(id), (first + 1) % 4);
    cloud.bring_up(id);
    // What is off moves when it is started.
    let stop = cloud.account(Action::VmStop(VmName { vm: "web".into() }));
    cloud.ok(vec![stop]);
    end(&mut cloud, id, stopped());
    assert_eq!(place(&mut cloud, &[&here]), Code::Ok);
    assert_eq!(cloud.ledger.vm(id).unwrap().machine, None);
    let start = cloud.account(Action::VmStart(VmName { vm: "web".into() }));
    cloud.ok(vec![start]);
    assert_eq!(cloud.machine_of(id), first);
}

#[test]
fn a_vm_without_failover_never_loses_its_disk_to_a_placement() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(VmCreate {
        failover: Failover::None,
        ..vm("web")
    });
    cloud.bring_up(id);
    let first = cloud.machine_of(id);
    let there = format!("machine-{}", (first + 1) % 4);
    assert_eq!(place(&mut cloud, &[&there]), Code::DiskStays);
    assert_eq!(
        (cloud.phase(id), cloud.machine_of(id)),
        (Phase::Running, first)
    );
    assert!(cloud.ledger.vm(id).unwrap().spec.placement.is_none());
}

#[test]
fn a_machine_that_flaps_gets_no_new_vms_for_longer_and_longer() {
    let mut cloud = Cloud::new(4);
    let lease_ms = cloud.ledger.parameters().lease_ms;
    let on_2 = |name: &str| {
        Action::VmCreate(VmCreate {
            placement: Placement {
                machines: vec!["machine-2".into()],
                ..Placement::default()
            },
            ..vm(name)
        })
    };
    // Once may happen to anybody.
    cloud.all_lose(2);
    cloud.run(41_000);
    cloud.all_hear(2);
    let create = cloud.account(on_2("a"));
    assert_eq!(cloud.code(create), Code::Ok);
    let delete = cloud.account(Action::VmDelete(VmName { vm: "a".into() }));
    cloud.ok(vec![delete]);
    for flaps in 0..3u32 {
        cloud.all_lose(2);
        cloud.run(41_000);
        cloud.all_hear(2);
        let machine = cloud.ledger.machine(MachineId(2)).unwrap();
        assert_eq!(
            (machine.state, machine.flaps),
            (MachineState::Up, flaps + 2)
        );
        let create = cloud.account(on_2("a"));
        assert_eq!(cloud.code(create), Code::NoMachineFits);
        let wait_ms = lease_ms << flaps;
        cloud.run(wait_ms - 2_000);
        let create = cloud.account(on_2("a"));
        assert_eq!(cloud.code(create), Code::NoMachineFits);
        cloud.run(4_000);
        let create = cloud.account(on_2("a"));
        assert_eq!(cloud.code(create), Code::Ok);
        let delete = cloud.account(Action::VmDelete(VmName { vm: "a".into() }));
        cloud.ok(vec![delete]);
    }
    // Calm for long enough: a lapse then is the first again, and costs nothing.
    cloud.run(600_000);
    cloud.all_lose(2);
    cloud.run(41_000);
    cloud.all_hear(2);
    assert_eq!(cloud.ledger.machine(MachineId(2)).unwrap().flaps, 0);
    let create = cloud.account(on_2("a"));
    assert_eq!(cloud.code(create), Code::Ok);
}

#[test]
fn an_account_whose_sponsor_left_finds_another() {
    let mut cloud = Cloud::new(5);
    cloud.create(vm("web"));
    let adopt = || {
        Action::AccountAdopt(AccountName {
            account: "acme".into(),
        })
    };
    let early = cloud.sign(&operator_key(1), adopt());
    assert_eq!(cloud.code(early), Code::Unauthorised);
    let leave = cloud.sign(&operator_key(0), Action::OperatorLeave(OperatorLeave {}));
    cloud.ok(vec![leave]);
    let (first, again) = (
        cloud.sign(&operator_key(1), adopt()),
        cloud.sign(&operator_key(1), adopt()),
    );
    cloud.ok(vec![first]);
    assert_eq!(cloud.code(again), Code::AlreadyDone);
    let operator = |id| cloud.ledger.operator(OperatorId(id)).unwrap();
    assert_eq!(
        (operator(0).sponsored_vms, operator(1).sponsored_vms),
        (0, 1)
    );
    assert_eq!(operator(1).sponsored.memory_mib, 256);
    cloud.ledger.invariants().expect("invariants");
}
