use super::*;

#[test]
fn a_lease_that_runs_out_kills_at_once_and_only_once() {
    let mut guard = Guard::new(Some(1_000));
    guard.renew(900);
    assert_eq!(
        guard.next_deadline(),
        Some(1_000),
        "a late message does not shorten the lease"
    );
    guard.renew(2_000);
    assert!(guard.due(1_999).is_empty());
    guard.stop(
        1_999,
        StopMode::Graceful {
            deadline_ms: 60_000,
        },
    );
    assert_eq!(
        guard.due(2_000),
        [Action::Kill],
        "courtesy to the guest does not outlast the lease"
    );
    assert_eq!(guard.stopping(), Some(StopCode::LeaseExpired));
    assert!(guard.due(9_000).is_empty());
    assert_eq!(guard.next_deadline(), None);
}

#[test]
fn a_graceful_stop_presses_again_then_quits_then_kills() {
    let mut guard = Guard::new(None);
    guard.started(0, false);
    guard.stop(100, StopMode::Graceful { deadline_ms: 3_000 });
    assert_eq!(guard.next_deadline(), Some(100));
    assert_eq!(guard.due(100), [Action::PressPower]);
    assert_eq!(guard.next_deadline(), Some(2_100));
    assert_eq!(guard.due(2_100), [Action::PressPower]);
    assert_eq!(guard.stopping(), Some(StopCode::Stopped));
    assert_eq!(guard.due(3_100), [Action::Quit]);
    assert_eq!(guard.stopping(), Some(StopCode::StopDeadline));
    assert_eq!(guard.due(4_100), [Action::Kill]);
}

#[test]
fn a_hard_stop_overrides_a_graceful_one_and_not_the_reverse() {
    let mut guard = Guard::new(None);
    guard.stop(
        0,
        StopMode::Graceful {
            deadline_ms: 60_000,
        },
    );
    guard.stop(10, StopMode::Kill);
    assert_eq!(guard.due(10), [Action::Quit]);
    assert_eq!(guard.stopping(), Some(StopCode::Killed));
    guard.stop(20, StopMode::Graceful { deadline_ms: 1 });
    assert!(guard.due(30).is_empty());
    assert_eq!(guard.due(1_010), [Action::Kill]);
    assert_eq!(guard.stopping(), Some(StopCode::Killed));
}

#[test]
fn a_second_graceful_stop_can_only_shorten_the_deadline() {
    let mut guard = Guard::new(None);
    guard.stop(0, StopMode::Graceful { deadline_ms: 1_000 });
    guard.stop(
        0,
        StopMode::Graceful {
            deadline_ms: u64::MAX,
        },
    );
    assert_eq!(guard.due(0), [Action::PressPower]);
    assert_eq!(guard.due(1_000), [Action::Quit]);
}

#[test]
fn a_trial_without_life_is_over_after_its_time() {
    let mut guard = Guard::new(None);
    guard.started(0, true);
    assert!(guard.on_trial());
    assert_eq!(guard.due(TRIAL_MS), [Action::TrialOver]);
    guard.started(0, true);
    guard.end_trial();
    assert!(guard.due(TRIAL_MS).is_empty());
}

#[test]
fn what_was_due_to_a_failed_qemu_does_not_hit_the_next() {
    let mut guard = Guard::new(None);
    guard.started(0, true);
    guard.close(100);
    guard.end_trial();
    guard.started(200, false);
    assert!(guard.due(5_000).is_empty());
}

#[test]
fn every_end_has_its_code() {
    let judged = |ending: Ending| judge(&ending).0;
    let shutdown = |reason: &str| Ending {
        shutdown: Some(reason.into()),
        success: true,
        ..Ending::default()
    };
    assert_eq!(judged(shutdown("guest-shutdown")), StopCode::GuestShutdown);
    assert_eq!(judged(shutdown("host-signal")), StopCode::QemuKilled);
    assert_eq!(
        judged(Ending {
            panicked: true,
            ..shutdown("guest-panic")
        }),
        StopCode::GuestPanic
    );
    assert_eq!(
        judged(Ending {
            stopping: Some(StopCode::Stopped),
            ..shutdown("guest-shutdown")
        }),
        StopCode::Stopped
    );
    let killed = Ending {
        sigkill: true,
        exit: "killed by SIGKILL".into(),
        ..Ending::default()
    };
    assert_eq!(judged(killed.clone()), StopCode::QemuKilled);
    assert_eq!(
        judged(Ending {
            out_of_memory: true,
            ..killed
        }),
        StopCode::OutOfMemory
    );
    let failed = |words: &str| Ending {
        complaints: words.into(),
        exit: "ended with status 1".into(),
        ..Ending::default()
    };
    assert_eq!(judged(failed("qemu: bad option")), StopCode::QemuFailed);
    assert_eq!(
        judged(failed("disk.qcow2: No space left on device")),
        StopCode::DiskFull
    );
    assert!(judge(&failed("qemu: bad option")).1.contains("bad option"));
}
