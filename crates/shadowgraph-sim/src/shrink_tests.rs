//! Shrinking keeps the failure and drops the rest.

use crate::disk::CrashKind;
use crate::plan::{Action, Plan};
use crate::shrink::shrink;

#[test]
fn what_the_failure_does_not_need_goes() {
    let mut plan = Plan::calm(4);
    plan.chaos_us = 1_000_000;
    plan.expect.no_commit_in_chaos = true; // which it will fail
    plan.faults.jitter_us = 1_000;
    plan.actions = vec![
        (100_000, Action::Crash(1, CrashKind::Process)),
        (200_000, Action::Restart(1)),
        (300_000, Action::Late(2, 5_000)),
    ];
    let smaller = shrink(&plan, 1);
    assert!(smaller.actions.is_empty());
    assert_eq!(smaller.faults, crate::network::LinkFaults::default());
    assert!(smaller.expect.no_commit_in_chaos);
}
