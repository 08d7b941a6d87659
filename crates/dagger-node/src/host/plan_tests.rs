//! Properties of the planner against a model of ledger and host: whatever happens in whatever order,
//! nothing unsafe is done, and once the faults stop everything converges.

use std::collections::BTreeMap;

use dagger_ledger::{Duty, Phase};
use dagger_vmm::{InstanceId, InstanceState, InstanceStatus, StopCode, StopMode};
use proptest::prelude::*;

use super::{
    plan::*,
    plan_world::{World, event},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_is_safe_and_converges(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
            // Without a lease nothing is planned: the watchdogs alone act.
            prop_assert!(world.leased || world.plan().is_empty());
        }
        world.settle();
        world.check_converged();
    }
}

fn want(phase: Phase, duty: Duty) -> DesiredVm {
    DesiredVm {
        vm: 1,
        lease_epoch: 3,
        disk_epoch: 3,
        duty,
        phase,
        boots: 0,
        host_key: Some("key".into()),
        published: Vec::new(),
    }
}

fn stopped(lease_epoch: u64, code: StopCode, stopped_ms: u64) -> InstanceStatus {
    InstanceStatus {
        id: InstanceId { vm: 1, lease_epoch },
        state: InstanceState::Stopped {
            code,
            text: "why".into(),
        },
        network: None,
        confinement: None,
        accelerator: None,
        qemu_pid: None,
        shim_pid: None,
        shim_started_ms: 1,
        qemu_started_ms: Some(1),
        console_first_ms: None,
        stopped_ms: Some(stopped_ms),
        lease_deadline_boottime_ms: None,
    }
}

fn one(
    want: Option<&DesiredVm>,
    here: &[InstanceStatus],
    memory: Memory,
    policy: &Policy,
    now_ms: u64,
) -> Option<Action> {
    let memory = BTreeMap::from([(
        InstanceId {
            vm: 1,
            lease_epoch: 3,
        },
        memory,
    )]);
    let desired: Vec<_> = want.cloned().into_iter().collect();
    let mut plan = plan(&desired, here, &memory, policy, now_ms);
    assert!(plan.len() <= 1);
    plan.pop()
}

#[test]
fn crashes_back_off_and_end_in_failed() {
    let policy = Policy::default();
    let id = InstanceId {
        vm: 1,
        lease_epoch: 3,
    };
    let mut memory = Memory {
        host_key: Some("key".into()),
        ..Memory::default()
    };
    let want = want(Phase::Running, Duty::Run);
    let mut waits = Vec::new();
    let mut now_ms = 1_000;
    loop {
        let here = [stopped(3, StopCode::GuestPanic, now_ms)];
        match one(Some(&want), &here, memory.clone(), &policy, now_ms) {
            Some(Action::NoteCrash {
                failure,
                stopped_ms,
                fresh,
                ..
            }) => {
                assert!(!fresh);
                memory.failures += 1;
                (memory.failed_ms, memory.failure, memory.settled_stop_ms) =
                    (now_ms, Some(failure), stopped_ms);
            }
            other => panic!("{other:?}"),
        }
        let mut waited = 0;
        let action = loop {
            if let Some(action) = one(Some(&want), &here, memory.clone(), &policy, now_ms + waited)
            {
                break action;
            }
            waited += 500;
        };
        now_ms += waited;
        match action {
            Action::Start { .. } => waits.push(waited),
            Action::ReportFailed(failed, failure) => {
                assert_eq!((failed, failure.code.as_str()), (id, "guest_panic"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
}

#[test]
fn a_stale_incarnation_goes_first_and_its_disk_only_with_it() {
    let policy = Policy::default();
    let memory = Memory {
        host_key: Some("key".into()),
        ..Memory::default()
    };
    let mut running = stopped(2, StopCode::Killed, 5);
    running.state = InstanceState::Up;
    let fenced = InstanceId {
        vm: 1,
        lease_epoch: 2,
    };
    let mut want = want(Phase::Accepted, Duty::Run);
    let act = |want: Option<&DesiredVm>, here: &InstanceStatus| {
        one(
            want,
            std::slice::from_ref(here),
            memory.clone(),
            &policy,
            10,
        )
    };
    assert_eq!(act(None, &running), Some(Action::Remove(fenced)));
    assert_eq!(act(Some(&want), &running), Some(Action::Remove(fenced)));
    want.disk_epoch = 2;
    assert_eq!(
        act(Some(&want), &running),
        Some(Action::Stop(fenced, StopMode::Kill))
    );
    let start = Action::Start {
        id: want.instance(),
        disk_of: Some(fenced),
    };
    assert_eq!(
        act(Some(&want), &stopped(2, StopCode::LeaseExpired, 5)),
        Some(start)
    );
    want.duty = Duty::Release;
    assert_eq!(act(Some(&want), &running), Some(Action::Remove(fenced)));
}

#[test]
fn a_machine_that_can_run_nothing_refuses() {
    let failure = Failure {
        code: "E_QEMU_MISSING".into(),
        text: "install it".into(),
        permanent: true,
    };
    let policy = Policy {
        machine_off: Some(failure.clone()),
        ..Policy::default()
    };
    let want = want(Phase::Placed, Duty::Accept);
    assert_eq!(
        one(Some(&want), &[], Memory::default(), &policy, 10),
        Some(Action::ReportFailed(want.instance(), failure))
    );
}

#[test]
fn a_lost_host_key_is_never_papered_over() {
    let want = want(Phase::Accepted, Duty::Run);
    let other = Memory {
        host_key: Some("another".into()),
        ..Memory::default()
    };
    for memory in [Memory::default(), other] {
        let Some(Action::ReportFailed(_, failure)) =
            one(Some(&want), &[], memory, &Policy::default(), 10)
        else {
            panic!("started")
        };
        assert_eq!(failure.code, "host_key_lost");
    }
}

#[test]
fn what_is_not_known_is_left_alone() {
    let mut status = stopped(3, StopCode::Killed, 5);
    status.state = InstanceState::Unknown { since_ms: 7 };
    assert_eq!(
        one(
            Some(&want(Phase::Running, Duty::Run)),
            &[status],
            Memory::default(),
            &Policy::default(),
            10
        ),
        None
    );
}
