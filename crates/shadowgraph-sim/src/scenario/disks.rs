//! Scenarios of disks that fail or lie, and of keys that two daemons have.

use super::ordinary;
use crate::network::Latency;
use crate::plan::{Action, Plan};
use crate::queue::{MS, SECOND};
use crate::rng::SimRng;

/// Up to f disks fill up, or all of them.
pub(super) fn full(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let all = rng.chance(300);
    let mut members: Vec<usize> = (0..plan.members()).collect();
    rng.shuffle(&mut members);
    if !all {
        members.truncate(plan.fault_weight() as usize);
    }
    for node in members {
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(0, plan.chaos_us * 3 / 4);
            plan.actions.push((at, Action::DiskFull(node, true)));
            let until = rng.between(at, plan.chaos_us);
            plan.actions.push((until, Action::DiskFull(node, false)));
            if rng.chance(300) {
                let kind = super::crash_kind(rng);
                let crash = rng.between(at, until);
                plan.actions.push((crash, Action::Crash(node, kind)));
                plan.actions.push((until + MS, Action::Restart(node)));
            }
        }
    }
    plan.expect.commits_in_chaos = !all;
    plan
}

/// The member does not start again: what it signed is no longer sure to be known to it.
pub(super) fn rot(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let node = rng.index(plan.members());
    plan.amnesiacs = vec![node];
    let at = rng.between(SECOND, plan.chaos_us * 3 / 4);
    let permille = *rng.choose(&[0, 500, 900, 999]);
    plan.actions.push((at, Action::Rot(node, permille)));
    plan.actions
        .push((at + rng.between(0, SECOND), Action::Restart(node)));
    plan.expect.commits_in_chaos = true;
    plan.expect.refusals = 1;
    plan
}

/// One other holds the newest events of the member that is restored, and is cut off when that one asks the others.
/// So it signs a round twice: the one case that no question to a quorum can prevent.
pub(super) fn backup(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(4);
    plan.latency = Latency::PerLink(5 * MS, rng.between(10, 40) * MS);
    plan.chaos_us = 10 * SECOND;
    let mut members = [0, 1, 2, 3];
    rng.shuffle(&mut members);
    let [restored, witness, others @ ..] = members;
    plan.signs_twice = vec![restored];
    let copied = rng.between(1_000, 2_000) * MS;
    plan.actions.push((copied, Action::BackUp(restored)));
    for from in [restored, witness] {
        for to in others {
            plan.actions.push((copied, Action::CutOneWay(from, to)));
        }
    }
    let restored_at = copied + rng.between(500, 1_500) * MS;
    plan.actions
        .push((restored_at, Action::Partition(vec![witness])));
    plan.actions.push((restored_at, Action::Restore(restored)));
    // What is still under way arrives first.
    let opened = restored_at + 200 * MS;
    plan.actions.push((opened, Action::OpenLinks));
    plan.actions
        .push((opened, Action::Partition(vec![witness])));
    plan.actions.push((opened + MS, Action::Restart(restored)));
    let witness_back = opened + rng.between(1_000, 3_000) * MS;
    plan.actions.push((witness_back, Action::OpenLinks));
    plan.expect.commits_in_chaos = true;
    plan.expect.twins = true;
    plan.expect.equivocation_proven = true;
    plan
}

/// It has an empty disk and hears from a quorum that the key has signed: it must not sign, and its original goes on undisturbed.
pub(super) fn second_daemon(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let (double, original) = add_double(&mut plan, rng);
    for _ in 0..rng.between(1, 2) {
        let at = rng.between(SECOND, plan.chaos_us * 3 / 4);
        plan.actions.push((at, Action::StartDouble(double, false)));
    }
    if rng.chance(300) {
        let at = rng.between(0, plan.chaos_us * 3 / 4);
        let kind = super::crash_kind(rng);
        plan.actions.push((at, Action::Crash(original, kind)));
        plan.actions
            .push((rng.between(at, plan.chaos_us), Action::Restart(original)));
    }
    plan.expect.commits_in_chaos = true;
    plan
}

/// Both believe that the key is theirs: they start together from nothing, or the second from a copy of the first's disk.
pub(super) fn two_daemons(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let (double, original) = add_double(&mut plan, rng);
    plan.signs_twice = vec![original];
    let copies = rng.chance(500);
    let at = if copies {
        rng.between(SECOND, plan.chaos_us * 3 / 4)
    } else {
        0
    };
    plan.actions.push((at, Action::StartDouble(double, copies)));
    plan.expect.commits_in_chaos = true;
    plan.expect.equivocation_proven = true;
    plan
}

fn add_double(plan: &mut Plan, rng: &mut SimRng) -> (usize, usize) {
    let (double, original) = (plan.nodes(), rng.index(plan.members()));
    plan.followers += 1;
    plan.doubles = vec![(double, original)];
    (double, original)
}
