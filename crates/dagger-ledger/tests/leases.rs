//! The rules of leases, each as a scenario.

mod cloud;

use cloud::{Cloud, failed, stopped, vm};
use dagger_ledger::*;

#[test]
fn a_dead_hosts_vm_is_placed_elsewhere_within_lease_and_margin() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let dead = cloud.machine_of(id);
    cloud.all_lose(dead);
    let lost_at = cloud.time_ms;
    cloud.run(39_000);
    assert_eq!(
        (cloud.machine_of(id), cloud.phase(id)),
        (dead, Phase::Running)
    );
    cloud.run(2_000);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!((record.phase, record.lease_epoch), (Phase::Placed, 2));
    assert_ne!(record.machine, Some(MachineId(dead)));
    assert!(record.phase_since_ms - lost_at <= 41_000);
    assert_eq!(record.ssh_host_key, None);
    let late = cloud.report_at(dead, id, 1, Report::Running(Running::default()));
    assert_eq!(cloud.code(late), Code::StaleEpoch);
    cloud.bring_up(id);
}

#[test]
fn f_liars_cannot_keep_a_dead_machine_alive() {
    let mut cloud = Cloud::new(7);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let dead = cloud.machine_of(id);
    let rivals: Vec<u64> = (0..7).filter(|m| *m != u64::from(dead)).collect();
    // Two of seven, and the owner, keep saying that it is alive.
    let lost = rivals[2..]
        .iter()
        .map(|m| cloud.attest(*m, &[], &[dead]))
        .collect();
    cloud.ok(lost);
    cloud.run(41_000);
    assert_eq!(
        cloud.ledger.machine(MachineId(dead)).unwrap().state,
        MachineState::Lost
    );
    assert_ne!(cloud.machine_of(id), dead);
}

#[test]
fn f_liars_cannot_kill_a_live_machine() {
    let mut cloud = Cloud::new(7);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    let rivals: Vec<u64> = (0..7).filter(|m| *m != u64::from(host)).collect();
    let lies = rivals[..2]
        .iter()
        .map(|m| cloud.attest(*m, &[], &[host]))
        .collect();
    cloud.ok(lies);
    cloud.run(200_000);
    assert_eq!(
        (cloud.machine_of(id), cloud.phase(id)),
        (host, Phase::Running)
    );
    assert_eq!(cloud.ledger.vm(id).unwrap().lease_epoch, 1);
}

#[test]
fn members_that_fall_silent_count_as_silent_about_all() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    // Bits stand, but only one rival still makes events: f + 1 = 2 are needed.
    for member in 0..4 {
        cloud.awake[member] = member == (host as usize + 1) % 4;
    }
    cloud.run(41_000);
    assert_eq!(
        cloud.ledger.machine(MachineId(host)).unwrap().state,
        MachineState::Lost
    );
    // They come back without a word: the standing bits count again.
    cloud.awake = vec![true; 4];
    cloud.run(3_000);
    assert_eq!(
        cloud.ledger.machine(MachineId(host)).unwrap().state,
        MachineState::Up
    );
}

#[test]
fn an_hours_gap_between_commits_replaces_nothing() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    for _ in 0..3 {
        cloud.commit(3_600_000, &[]);
        cloud.run(5_000);
    }
    assert_eq!(
        (cloud.machine_of(id), cloud.phase(id)),
        (host, Phase::Running)
    );
    assert_eq!(cloud.ledger.vm(id).unwrap().lease_epoch, 1);
    assert!(
        cloud
            .ledger
            .machines()
            .all(|m| m.state == MachineState::Up && m.lapses == 0)
    );
    // A machine that died in the gap is found out after it, by the full rule.
    cloud.all_lose(host);
    cloud.run(41_000);
    assert_ne!(cloud.machine_of(id), host);
}

#[test]
fn without_failover_a_vm_waits_for_its_machine_and_its_disk() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(VmCreate {
        failover: Failover::None,
        ..vm("web")
    });
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    cloud.all_lose(host);
    cloud.run(41_000);
    assert_eq!((cloud.phase(id), cloud.machine_of(id)), (Phase::Lost, host));
    assert_eq!(cloud.ledger.vm(id).unwrap().lease_epoch, 2);
    cloud.all_hear(host);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!(
        (record.phase, record.lease_epoch, record.disk_epoch),
        (Phase::Placed, 2, 1)
    );
    cloud.bring_up(id);
}

#[test]
fn what_a_machine_says_of_published_ports_holds_until_it_says_otherwise_or_loses_the_vm() {
    let mut cloud = Cloud::new(4);
    let publish = Publish {
        guest_port: 80,
        host_port: None,
    };
    let id = cloud.create(VmCreate {
        publish: vec![publish],
        ..vm("web")
    });
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    for address in ["192.0.2.1:8080", "192.0.2.1:8081"] {
        let published = vec![Published {
            guest_port: 80,
            address: Some(address.into()),
            problem: None,
        }];
        let running = Running {
            published: published.clone(),
            ..Running::default()
        };
        let report = cloud.report(host, id, Report::Running(running));
        assert_eq!(cloud.code(report), Code::Ok);
        let record = cloud.ledger.vm(id).unwrap();
        assert_eq!(
            (record.phase, &record.ports.opened),
            (Phase::Running, &published)
        );
    }
    cloud.all_lose(host);
    cloud.run(41_000);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!(
        record.ports.asked,
        [publish],
        "it is asked for at the next machine too"
    );
    assert!(record.ports.opened.is_empty());
}

#[test]
fn a_machine_that_returns_may_take_new_vms_and_keeps_none_of_the_old() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    cloud.all_lose(host);
    cloud.run(41_000);
    cloud.all_hear(host);
    assert_ne!(cloud.machine_of(id), host);
    assert_eq!(cloud.ledger.vms_on(MachineId(host)).count(), 0);
    assert!(cloud.ledger.machine(MachineId(host)).unwrap().is_eligible());
}

#[test]
fn a_placement_that_is_not_accepted_goes_to_the_next_candidate() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    let first = cloud.machine_of(id);
    cloud.run(11_000);
    let second = cloud.machine_of(id);
    assert_ne!(first, second);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!(
        (record.lease_epoch, record.reason),
        (2, Reason::NotAccepted)
    );
    let accepted = Report::Accepted(Accepted {
        ssh_host_key: "ssh-ed25519 AAAAhost".into(),
    });
    let late = cloud.report_at(first, id, 1, accepted);
    assert_eq!(cloud.code(late), Code::StaleEpoch);
    cloud.run(20_000);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!(
        (record.phase, record.reason),
        (Phase::Failed, Reason::AttemptsExhausted)
    );
    assert_eq!(record.machine, None);
    let start = cloud.account(Action::VmStart(VmName { vm: "web".into() }));
    cloud.ok(vec![start]);
    cloud.bring_up(id);
}

#[test]
fn with_one_machine_only_a_vm_waits_for_room() {
    let mut cloud = Cloud::new(4);
    for other in 1..4 {
        let name = MachineName {
            machine: format!("machine-{other}"),
        };
        let drain = cloud.sign(&cloud::operator_key(other), Action::MachineDrain(name));
        cloud.ok(vec![drain]);
    }
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    cloud.all_lose(0);
    cloud.run(41_000);
    assert_eq!(cloud.phase(id), Phase::Pending);
    assert_eq!(cloud.ledger.vm(id).unwrap().reason, Reason::NoMachineFits);
    let name = MachineName {
        machine: "machine-2".into(),
    };
    let undrain = cloud.sign(&cloud::operator_key(2), Action::MachineUndrain(name));
    cloud.ok(vec![undrain]);
    cloud.run(6_000);
    assert_eq!((cloud.phase(id), cloud.machine_of(id)), (Phase::Placed, 2));
}

#[test]
fn a_drained_machine_hands_its_vms_on_one_by_one() {
    let mut cloud = Cloud::new(4);
    let ids: Vec<VmId> = (0..8)
        .map(|i| cloud.create(vm(&format!("web-{i}"))))
        .collect();
    for id in &ids {
        cloud.bring_up(*id);
    }
    let name = MachineName {
        machine: "machine-1".into(),
    };
    let drain = cloud.sign(&cloud::operator_key(1), Action::MachineDrain(name.clone()));
    cloud.ok(vec![drain]);
    let mut moved = 0;
    for _ in 0..20 {
        cloud.run(2_000);
        let moving: Vec<VmId> = cloud
            .ledger
            .vms()
            .filter(|vm| vm.phase == Phase::Moving)
            .map(|vm| vm.id)
            .collect();
        assert!(moving.len() <= 1);
        for id in moving {
            let report = cloud.report(1, id, stopped());
            cloud.ok(vec![report]);
            assert_ne!(cloud.machine_of(id), 1);
            cloud.bring_up(id);
            moved += 1;
        }
    }
    assert_eq!((moved, cloud.ledger.vms_on(MachineId(1)).count()), (2, 0));
    let remove = cloud.sign(&cloud::operator_key(1), Action::MachineRemove(name));
    cloud.ok(vec![remove]);
    assert!(cloud.ledger.machine_by_name("machine-1").is_none());
}

#[test]
fn deletion_waits_for_the_host_and_not_for_ever() {
    let mut cloud = Cloud::new(4);
    let (a, b) = (cloud.create(vm("a")), cloud.create(vm("b")));
    cloud.bring_up(a);
    cloud.bring_up(b);
    let delete = |name: &str| Action::VmDelete(VmName { vm: name.into() });
    let deletes = vec![cloud.account(delete("a")), cloud.account(delete("b"))];
    cloud.ok(deletes);
    assert_eq!(cloud.phase(a), Phase::Deleting);
    let report = cloud.report(cloud.machine_of(a), a, stopped());
    cloud.ok(vec![report]);
    assert!(cloud.ledger.vm(a).is_none());
    cloud.run(61_000);
    assert!(cloud.ledger.vm(b).is_none());
    assert_eq!(cloud.ledger.machines().map(|m| m.vms).sum::<u32>(), 0);
}

#[test]
fn a_flood_of_lapses_is_braked_and_machines_that_return_get_their_vms_back() {
    let parameters = Parameters {
        brake_vms_per_s: 1,
        ..Parameters::default()
    };
    let mut cloud = Cloud::with_parameters(7, parameters);
    let ids: Vec<VmId> = (0..42)
        .map(|i| cloud.create(vm(&format!("web-{i}"))))
        .collect();
    for id in &ids {
        cloud.bring_up(*id);
    }
    for machine in 0..4 {
        cloud.all_lose(machine);
    }
    cloud.run(41_000);
    assert!(cloud.ledger.brake_is_on());
    let moved = |cloud: &Cloud| cloud.ledger.vms().filter(|vm| vm.lease_epoch > 1).count();
    assert!(moved(&cloud) <= 2, "{}", moved(&cloud));
    cloud.run(3_000);
    assert!((2..=5).contains(&moved(&cloud)), "{}", moved(&cloud));
    // One comes back: its VMs go on there at once, whatever the brake holds.
    cloud.all_hear(3);
    cloud.run(1_000);
    let machine = cloud.ledger.machine(MachineId(3)).unwrap();
    assert!(machine.sweep.is_none());
    let returned = |vm: &&VmRecord| vm.reason == Reason::MachineReturned;
    assert_eq!(
        cloud.ledger.vms_on(MachineId(3)).filter(returned).count(),
        6
    );
}

#[test]
fn a_vm_that_fails_on_its_machines_is_declared_failed_with_the_hosts_reason() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(vm("web"));
    for _ in 0..3 {
        cloud.accept(id);
        let report = cloud.report(cloud.machine_of(id), id, failed());
        cloud.ok(vec![report]);
    }
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!(
        (record.phase, record.reason),
        (Phase::Failed, Reason::AttemptsExhausted)
    );
    assert_eq!(record.ended.as_ref().unwrap().code, "qemu_died");
}

#[test]
fn stop_start_reboot_resize_and_rename() {
    let mut cloud = Cloud::new(4);
    let id = cloud.create(VmCreate {
        failover: Failover::None,
        ..vm("web")
    });
    cloud.bring_up(id);
    let host = cloud.machine_of(id);
    let name = |vm: &str| VmName { vm: vm.into() };
    let reboot = cloud.account(Action::VmReboot(name("web")));
    let stop = cloud.account(Action::VmStop(name("web")));
    cloud.ok(vec![reboot, stop]);
    assert_eq!(
        (cloud.phase(id), cloud.ledger.vm(id).unwrap().boots),
        (Phase::Stopping, 1)
    );
    let report = cloud.report(host, id, stopped());
    cloud.ok(vec![report]);
    let resize = |vcpus| {
        let vm = "web".to_string();
        Action::VmResize(VmResize {
            vm,
            vcpus,
            memory_mib: 512,
            disk_mib: 2_048,
        })
    };
    let (good, large) = (cloud.account(resize(4)), cloud.account(resize(9)));
    cloud.ok(vec![good]);
    assert_eq!(cloud.code(large), Code::NoMachineFits);
    assert_eq!(cloud.ledger.machine(MachineId(host)).unwrap().used.vcpus, 4);
    let rename = Action::VmRename(VmRename {
        vm: "web".into(),
        name: "www".into(),
    });
    let rename = cloud.account(rename);
    let start = cloud.account(Action::VmStart(name("www")));
    cloud.ok(vec![rename, start]);
    let record = cloud.ledger.vm(id).unwrap();
    assert_eq!((record.phase, record.lease_epoch), (Phase::Accepted, 1));
    assert_eq!(cloud.machine_of(id), host);
    assert_eq!(
        cloud.ledger.state_root(),
        cloud.ledger.recompute_state_root()
    );
}

#[test]
fn vms_of_a_group_are_spread_over_operators() {
    let mut cloud = Cloud::new(4);
    for i in 0..8 {
        let spread = Some("web".to_string());
        cloud.create(VmCreate {
            spread,
            ..vm(&format!("web-{i}"))
        });
    }
    for machine in 0..4 {
        assert_eq!(cloud.ledger.vms_on(MachineId(machine)).count(), 2);
    }
}

#[test]
fn a_network_of_one_operator_attests_for_itself() {
    let mut cloud = Cloud::new(1);
    let id = cloud.create(vm("web"));
    cloud.bring_up(id);
    cloud.run(100_000);
    assert_eq!(cloud.phase(id), Phase::Running);
}

#[test]
fn a_lease_that_was_renewed_needs_no_commit_and_one_that_was_not_is_due() {
    let mut cloud = Cloud::new(4);
    // Looked at first when they could have lapsed by what was known at their machines' start.
    let first_ms = cloud.ledger.next_deadline_ms().expect("leases run");
    while cloud.ledger.time_ms() + 1_000 < first_ms {
        cloud.run(1_000);
    }
    assert_eq!(cloud.ledger.next_deadline_ms(), Some(first_ms));
    cloud.all_lose(2);
    let lapse_ms = cloud.ledger.lease_until_ms(MachineId(2)).expect("up");
    cloud.ledger.look_ahead(first_ms);
    let next_ms = cloud.ledger.next_deadline_ms().expect("leases run");
    assert!(first_ms < next_ms && next_ms <= lapse_ms);
    cloud.ledger.look_ahead(lapse_ms);
    assert_eq!(cloud.ledger.next_deadline_ms(), Some(lapse_ms));
    assert_eq!(cloud.ledger.invariants(), Ok(()));
}
