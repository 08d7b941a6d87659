//! The scenarios of epochs: members come and go, keys change, and the boundary is disturbed in every way.

use super::{add_crashes, add_partitions, bad_links, crash_kind, draw_behaviours, ordinary};
use crate::adversary::Behaviour;
use crate::network::Latency;
use crate::plan::{Action, EpochPlan, Plan};
use crate::queue::{MS, SECOND};
use crate::rng::SimRng;

/// The seats of these nodes, with the keys they had at first and a vote each.
fn seats(nodes: impl IntoIterator<Item = usize>) -> Vec<(usize, u32, u64)> {
    nodes.into_iter().map(|node| (node, 0, 1)).collect()
}

fn some_commits(rng: &mut SimRng) -> u64 {
    // A boundary now and then, or one upon the other.
    if rng.chance(200) {
        rng.between(1, 8)
    } else {
        rng.between(20, 150)
    }
}

/// Ends epochs every so often, with the committee as it is.
fn add_epochs(plan: &mut Plan, rng: &mut SimRng, most: u64) {
    let members = (0..).zip(&plan.weights);
    let members: Vec<_> = members.map(|(node, weight)| (node, 0, *weight)).collect();
    for _ in 0..rng.between(1, most) {
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: members.clone(),
        });
    }
    plan.parameters.checkpoint_interval_ms = *rng.choose(&[50, 200, 1_000]);
}

/// The epoch ends again and again while clients submit; nothing else happens.
pub(super) fn under_load(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_epochs(&mut plan, rng, 8);
    plan.load.every_us = rng.between(2, 20) * MS;
    plan.retain = *rng.choose(&[None, Some(0), Some(1)]);
    plan.expect.commits_in_chaos = true;
    plan
}

/// Nodes that only followed get seats.
pub(super) fn join(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.followers = rng.between(1, 4) as usize;
    let mut members: Vec<usize> = (0..plan.members()).collect();
    for node in plan.members()..plan.nodes() {
        members.insert(rng.index(members.len() + 1), node);
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: seats(members.clone()),
        });
    }
    plan.faults.loss_permille = rng.between(0, 20) as u32;
    plan
}

/// Members give their seats up, one after the other.
pub(super) fn leave(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let mut members: Vec<usize> = (0..plan.members()).collect();
    for _ in 0..rng.between(1, plan.members() as u64 - 1) {
        members.remove(rng.index(members.len()));
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: seats(members.clone()),
        });
    }
    plan.faults.loss_permille = rng.between(0, 20) as u32;
    plan
}

/// Members change their keys, and now and then their seats.
pub(super) fn rotate_key(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let mut members = seats(0..plan.members());
    for generation in 1..=rng.between(1, 4) as u32 {
        let rotated = rng.index(members.len());
        members[rotated].1 = generation;
        if rng.chance(500) {
            rng.shuffle(&mut members);
        }
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: members.clone(),
        });
    }
    add_crashes(&mut plan, rng, 3);
    plan
}

/// One member, then four, then ten, then four others.
pub(super) fn grow_and_shrink(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(1);
    plan.followers = 9;
    plan.latency = Latency::PerLink(5 * MS, rng.between(10, 40) * MS);
    let steps: [Vec<usize>; 3] = [(0..4).collect(), (0..10).collect(), (6..10).collect()];
    for nodes in steps {
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: seats(nodes),
        });
    }
    plan.chaos_us = 12 * SECOND;
    plan
}

/// Nodes crash, one by one or all at once, with as many boundaries as there is time for.
pub(super) fn crash_at_boundary(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    for _ in 0..12 {
        add_epochs(&mut plan, rng, 1);
        plan.epochs.last_mut().expect("added").commits = rng.between(3, 40);
    }
    plan.retain = *rng.choose(&[None, Some(0), Some(2)]);
    add_crashes(&mut plan, rng, 8);
    for _ in 0..rng.between(0, 3) {
        let at = rng.between(SECOND / 2, plan.chaos_us * 3 / 4);
        plan.actions.push((at, Action::CrashAll(crash_kind(rng))));
        plan.actions
            .push((at + rng.between(0, SECOND), Action::RestartAll));
    }
    plan
}

/// A node is away while epochs end, and comes back by its peers' logs.
pub(super) fn straggler(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.latency = Latency::PerLink(MS, 10 * MS);
    for _ in 0..4 {
        add_epochs(&mut plan, rng, 1);
        plan.epochs.last_mut().expect("added").commits = rng.between(20, 80);
    }
    plan.chaos_us = 12 * SECOND;
    let node = rng.index(plan.members());
    let (from, until) = (rng.between(0, 2 * SECOND), rng.between(6, 11) * SECOND);
    if rng.chance(500) {
        plan.actions
            .push((from, Action::Crash(node, crash_kind(rng))));
        plan.actions.push((until, Action::Restart(node)));
    } else {
        plan.actions.push((from, Action::Partition(vec![node])));
        plan.actions.push((until, Action::OpenLinks));
    }
    plan.expect.commits_in_chaos = true;
    plan
}

/// As the straggler, but nobody has the logs any more.
pub(super) fn pruned_straggler(rng: &mut SimRng) -> Plan {
    let mut plan = straggler(rng);
    plan.retain = Some(rng.between(0, 1));
    plan
}

/// Everything that may keep a committee from crossing the boundary at once: a network that this one replaces stood still
/// there for ever.
pub(super) fn deadlock(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    for _ in 0..6 {
        add_epochs(&mut plan, rng, 1);
        plan.epochs.last_mut().expect("added").commits = rng.between(1, 30);
    }
    plan.faults = bad_links(rng);
    add_partitions(&mut plan, rng, 5);
    add_crashes(&mut plan, rng, 3);
    let late = rng.index(plan.members());
    plan.actions
        .push((0, Action::Late(late, rng.between(10, 500) * MS)));
    plan
}

/// Byzantine members at the boundary; in the end they lose their seats.
pub(super) fn byzantine_boundary(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_epochs(&mut plan, rng, 4);
    let honest = plan.members() - plan.fault_weight() as usize;
    plan.adversaries = (honest..plan.members())
        .map(|member| (member, Vec::new()))
        .collect();
    draw_behaviours(&mut plan, rng);
    if rng.chance(500) {
        plan.epochs.push(EpochPlan {
            commits: some_commits(rng),
            seats: seats(0..honest),
        });
    }
    plan
}

/// An equivocator is caught, and the next epoch is without it.
pub(super) fn equivocator_removed(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let culprit = plan.members() - 1;
    let twins = *rng.choose(&[Behaviour::Equivocator, Behaviour::SplitBrain]);
    plan.adversaries = vec![(culprit, vec![twins])];
    plan.epochs.push(EpochPlan {
        commits: some_commits(rng),
        seats: seats(0..culprit),
    });
    plan.expect.commits_in_chaos = true;
    plan
}

/// Disks are rolled back over boundaries: whoever forgot must not sign twice in any epoch.
pub(super) fn amnesia(rng: &mut SimRng) -> Plan {
    let mut plan = super::amnesia(rng);
    for _ in 0..8 {
        add_epochs(&mut plan, rng, 1);
        plan.epochs.last_mut().expect("added").commits = rng.between(5, 60);
    }
    plan.retain = *rng.choose(&[None, Some(0), Some(1)]);
    plan
}

/// Everything at once.
pub(super) fn mixed(rng: &mut SimRng) -> Plan {
    let mut plan = super::mixed(rng);
    add_epochs(&mut plan, rng, 6);
    if rng.chance(500) {
        for epoch in &mut plan.epochs {
            epoch.commits = rng.between(1, 40);
        }
    }
    plan
}

/// From some epoch on the rules are newer. Each member gets the program that knows them at a time of its own, some only in
/// the end: whoever is late stops at the boundary, and the others go on if they are a quorum.
pub(super) fn upgrade(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_epochs(&mut plan, rng, 4);
    plan.upgrade_epoch = Some(rng.between(1, plan.epochs.len() as u64));
    plan.load.resubmit = rng.chance(500);
    for node in 0..plan.nodes() {
        if rng.chance(150) {
            continue;
        }
        let at = rng.between(0, plan.chaos_us * 3 / 4);
        let until = at + rng.between(0, SECOND);
        plan.actions.extend([
            (at, Action::Crash(node, crash_kind(rng))),
            (at, Action::Upgrade(node)),
            (until, Action::Restart(node)),
        ]);
    }
    plan
}
