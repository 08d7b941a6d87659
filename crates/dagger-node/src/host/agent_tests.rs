//! The agent against a model of the ledger and a hypervisor in memory. Nothing here is decided by
//! time: tests wait for conditions, with deadlines only a broken agent meets.

use std::{sync::atomic::Ordering, time::Duration};

use dagger_client::{keys::SecretKey, user_data};
use dagger_ledger::{Duty, Key, Phase, Report};
use dagger_vmm::{InstanceId, StopCode, Vmm as _};

use super::{
    agent_world::{CHAIN, MACHINE, NODE_SEED, World},
    control::Control as _,
};

const fn id(vm: u64, lease_epoch: u64) -> InstanceId {
    InstanceId { vm, lease_epoch }
}

#[tokio::test]
async fn a_vm_lives_and_is_released() {
    let mut world = World::new().await;
    world.host.0.ssh.store(false, Ordering::SeqCst);
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Starting)).await;
    assert_eq!(world.control.reports(), ["accepted", "starting"]);
    world.host.0.ssh.store(true, Ordering::SeqCst);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.control.reports(), ["accepted", "starting", "running"]);
    // The watchdog got the lease it started under, then the renewed one.
    let started = world.host.0.starts.lock().unwrap()[0];
    assert_eq!(
        started,
        (id(1, 1), world.control.lease_deadline_boottime_ms())
    );
    world.control.lease_for(7_200_000);
    let renewed = world.control.lease_deadline_boottime_ms();
    world
        .until("renewed", async || {
            world
                .host
                .status(id(1, 1))
                .await
                .unwrap()
                .lease_deadline_boottime_ms
                == renewed
        })
        .await;
    // The host key on the ledger is the one whose secret is kept here, readable by the owner alone.
    let path = world.dir.path().join("agent/1-1.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    world.control.set(1, Phase::Deleting, Duty::Release);
    world.until_phase(1, None).await;
    assert!(world.host.list().await.is_empty());
    world.until("forgotten", async || !path.exists()).await;
    assert_eq!(
        world.control.reports(),
        ["accepted", "starting", "running", "stopped"]
    );
}

#[tokio::test]
async fn a_restarted_daemon_takes_over_without_a_second_start_or_report() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.kill().await;
    world.start();
    world.control.place(2, 1, 1);
    world.until_phase(2, Some(Phase::Running)).await;
    assert_eq!(world.starts(), [id(1, 1), id(2, 1)]);
    assert_eq!(world.control.reports().len(), 6);
}

#[tokio::test]
async fn without_a_proven_lease_nothing_is_begun_and_nothing_removed() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.kill().await;
    // The machine comes back with an old ledger: it still names epoch 1, the truth is elsewhere.
    world.host.0.fake.crash(id(1, 1), StopCode::LeaseExpired);
    world.control.lease_for(0);
    world.control.place(2, 1, 1);
    world.start();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.starts(), [id(1, 1)]);
    assert_eq!(world.control.reports().len(), 3);
    // It catches up: the VM is another machine's now, and only then a lease is proven.
    world.control.change(|vms| vms.remove(&1));
    world.control.lease_for(3_600_000);
    world.until_phase(2, Some(Phase::Running)).await;
    world
        .until("the old disk is gone", async || {
            world.host.status(id(1, 1)).await.is_none()
        })
        .await;
    assert_eq!(world.starts(), [id(1, 1), id(2, 1)]);
}

#[tokio::test]
async fn a_fenced_epoch_is_removed_and_a_returning_disk_is_used_again() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.control.place(2, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.until_phase(2, Some(Phase::Running)).await;
    let first_key = world.control.0.vms.lock().unwrap()[&1]
        .desired
        .host_key
        .clone();
    // VM 1 is made anew here, VM 2 comes back to its disk.
    world.control.place(1, 2, 2);
    world.control.place(2, 2, 1);
    world.until_phase(1, Some(Phase::Running)).await;
    world.until_phase(2, Some(Phase::Running)).await;
    let ids: Vec<_> = world
        .host
        .list()
        .await
        .iter()
        .map(|status| status.id)
        .collect();
    assert_eq!(ids, [id(1, 2), id(2, 2)]);
    assert_eq!(
        *world.host.0.succeeded.lock().unwrap(),
        [(id(2, 1), id(2, 2))]
    );
    assert_ne!(
        world.control.0.vms.lock().unwrap()[&1].desired.host_key,
        first_key
    );
}

#[tokio::test]
async fn a_crash_is_told_and_a_crash_loop_ends() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    for crash in 1..=3 {
        // A start of the same millisecond could not be told from the last one.
        tokio::time::sleep(Duration::from_millis(5)).await;
        world.host.0.fake.crash(id(1, 1), StopCode::GuestPanic);
        if crash < 3 {
            world
                .until("told", async || {
                    world.control.reports().len() == 3 + 2 * crash
                })
                .await;
            world.until_phase(1, Some(Phase::Running)).await;
        }
    }
    world.until_phase(1, Some(Phase::Failed)).await;
    let reports = world.control.0.reports.lock().unwrap();
    let Report::Failed(ended) = &reports.last().unwrap().report else {
        panic!("{reports:?}")
    };
    assert_eq!(ended.code, "guest_panic");
}

#[tokio::test]
async fn stop_start_reboot_and_the_guests_own_shutdown() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.control.set(1, Phase::Stopping, Duty::Stop);
    world.until_phase(1, Some(Phase::Stopped)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.control.set(1, Phase::Accepted, Duty::Run);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.starts().len(), 2);
    tokio::time::sleep(Duration::from_millis(5)).await;
    world
        .control
        .change(|vms| vms.get_mut(&1).unwrap().desired.boots += 1);
    world
        .until("rebooted", async || world.starts().len() == 3)
        .await;
    world
        .until("told", async || world.control.reports().len() == 8)
        .await;
    world.until_phase(1, Some(Phase::Running)).await;
    world.host.0.fake.crash(id(1, 1), StopCode::GuestShutdown);
    world.until_phase(1, Some(Phase::Stopped)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.control.set(1, Phase::Accepted, Duty::Run);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.starts().len(), 4);
}

#[tokio::test]
async fn a_machine_without_qemu_says_so_and_refuses() {
    let mut world = World::new().await;
    world.host.0.missing.store(true, Ordering::SeqCst);
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Failed)).await;
    let text = world.control.0.problem.lock().unwrap().clone().unwrap();
    assert!(text.contains("apt-get install"), "{text}");
    let Report::Failed(ended) = world.control.0.reports.lock().unwrap()[0].report.clone() else {
        panic!()
    };
    assert_eq!(ended.code, "E_QEMU_MISSING");
    world.host.0.missing.store(false, Ordering::SeqCst);
    world.control.place(2, 1, 1);
    world.until_phase(2, Some(Phase::Running)).await;
    assert!(world.control.0.problem.lock().unwrap().is_none());
}

#[tokio::test]
async fn an_image_nobody_has_fails_the_vm_with_its_code() {
    let mut world = World::with_image(false).await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Failed)).await;
    let Report::Failed(ended) = world.control.0.reports.lock().unwrap()[1].report.clone() else {
        panic!()
    };
    assert_eq!(ended.code, "image_unavailable");
    assert!(world.starts().is_empty());
}

#[tokio::test]
async fn churn_with_killed_daemons_leaves_nothing_behind_and_starts_nothing_twice() {
    let mut world = World::new().await;
    for round in 1..=12u64 {
        world.start();
        for vm in 1..=3 {
            match (round + vm) % 4 {
                0 => drop(world.control.change(|vms| vms.remove(&vm))),
                1 => world
                    .host
                    .0
                    .fake
                    .crash(id(vm, round - 1), StopCode::ShimDied),
                2 if world.control.phase(vm).is_some() => {
                    world.control.set(vm, Phase::Deleting, Duty::Release)
                }
                _ => world.control.place(vm, round, round),
            }
        }
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        world.kill().await;
    }
    for vm in 1..=3 {
        world.control.place(vm, 20, 20);
    }
    world.start();
    for vm in 1..=3 {
        world.until_phase(vm, Some(Phase::Running)).await;
    }
    let ids: Vec<_> = world
        .host
        .list()
        .await
        .iter()
        .map(|status| status.id)
        .collect();
    assert_eq!(ids, [id(1, 20), id(2, 20), id(3, 20)]);
}

/// Places a VM whose user-data is sealed to a machine of this name and key.
async fn place_sealed(world: &World, machine: &str, seed: [u8; 32]) {
    let key = Key(SecretKey::from_bytes(seed).public());
    let sealed = user_data::seal(&CHAIN, b"#!/bin/sh\necho hello\n", &[(machine.into(), key)]);
    let sealed = sealed.unwrap();
    let body = futures_util::stream::iter([Ok(sealed.body.into())]);
    world.images.add_stream(body).await.unwrap();
    world.control.place(1, 1, 1);
    world.control.change(|vms| {
        vms.get_mut(&1).unwrap().spec.user_data = Some(Box::new(sealed.user_data));
    });
}

#[tokio::test]
async fn sealed_user_data_is_opened_into_the_seed() {
    let mut world = World::new().await;
    place_sealed(&world, MACHINE, NODE_SEED).await;
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    let seen = world.host.0.user_data.lock().unwrap().clone();
    assert_eq!(seen, [Some("#!/bin/sh\necho hello\n".to_owned())]);
}

#[tokio::test]
async fn user_data_sealed_to_another_key_fails_with_its_code_and_starts_nothing() {
    let mut world = World::new().await;
    place_sealed(&world, MACHINE, [9; 32]).await;
    world.start();
    world.until_phase(1, Some(Phase::Failed)).await;
    let reports = world.control.0.reports.lock().unwrap().clone();
    let failed = reports.iter().find_map(|report| match &report.report {
        Report::Failed(ended) => Some(ended.code.clone()),
        _ => None,
    });
    assert_eq!(failed.as_deref(), Some("user_data_damaged"));
    assert!(world.starts().is_empty());
}
