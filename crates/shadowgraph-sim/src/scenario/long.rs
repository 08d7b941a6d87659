//! Scenarios of days: what grows with time shows in them. Little happens in each minute of theirs, or they would take hours.

use super::{crash_kind, ordinary};
use crate::network::Latency;
use crate::plan::{Action, Plan};
use crate::queue::{MS, SECOND};
use crate::rng::SimRng;

const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

/// Heartbeats of three minutes keep a week short for the simulator; what is bounded is bounded in rounds and commits.
pub(super) fn week(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(4);
    plan.latency = Latency::PerLink(5 * MS, rng.between(10, 80) * MS);
    plan.parameters.heartbeat_ms = 180_000;
    plan.parameters.frontier_interval_ms = 180_000;
    plan.chaos_us = 7 * DAY;
    plan.load.every_us = rng.between(20, 40) * MINUTE;
    for _ in 0..rng.between(1, 4) {
        let node = rng.index(plan.members());
        let at = rng.between(0, 6 * DAY);
        plan.actions
            .push((at, Action::Crash(node, crash_kind(rng))));
        plan.actions
            .push((at + rng.between(0, DAY / 2), Action::Restart(node)));
    }
    plan
}

pub(super) fn day_without_quorum(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.chaos_us = DAY;
    plan.load.every_us = rng.between(10, 30) * SECOND;
    plan.load.bytes = (2_000, 4_000);
    // A tenth of what is submitted fills it, so that most of the day is spent at the bound.
    plan.parameters.pool_bytes_max = 256 << 10;
    plan.parameters.heartbeat_ms = 10_000;
    plan.parameters.frontier_interval_ms = 10_000;
    let half = (0..plan.members() / 2).collect();
    plan.actions.push((0, Action::Partition(half)));
    plan.expect.no_commit_in_chaos = true;
    plan
}
