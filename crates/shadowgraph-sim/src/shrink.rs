//! Makes a failing plan smaller: leaves out what the failure does not need. Knows plans, not protocols.

use crate::network::LinkFaults;
use crate::plan::Plan;
use crate::run::run_plan;

/// A smaller plan that fails the same check with the same seed. Runs the plan many times.
pub fn shrink(plan: &Plan, seed: u64) -> Plan {
    let Some(check) = failing_check(plan, seed) else {
        return plan.clone();
    };
    let mut best = plan.clone();
    loop {
        let smaller = candidates(&best)
            .into_iter()
            .find(|plan| failing_check(plan, seed) == Some(check));
        match smaller {
            Some(plan) => best = plan,
            None => return best,
        }
    }
}

fn failing_check(plan: &Plan, seed: u64) -> Option<&'static str> {
    run_plan(plan, seed, false)
        .violations
        .first()
        .map(|violation| violation.check)
}

fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        change(&mut candidate);
        smaller.push(candidate);
    };
    if plan.faults != LinkFaults::default() {
        add(&|plan| plan.faults = LinkFaults::default());
    }
    if !plan.skews.is_empty() {
        add(&|plan| plan.skews.clear());
    }
    if plan.load.resubmit {
        add(&|plan| plan.load.resubmit = false);
    }
    if plan.sync_us > 0 {
        add(&|plan| plan.sync_us = 0);
    }
    for position in 0..plan.adversaries.len() {
        add(&|plan| {
            plan.adversaries.remove(position);
        });
        for behaviour in 0..plan.adversaries[position].1.len() {
            if plan.adversaries[position].1.len() > 1 {
                add(&|plan| {
                    plan.adversaries[position].1.remove(behaviour);
                });
            }
        }
    }
    for position in 0..plan.actions.len() {
        add(&|plan| {
            plan.actions.remove(position);
        });
    }
    if plan.load.every_us < 1_000_000 {
        add(&|plan| plan.load.every_us *= 4);
    }
    smaller
}
