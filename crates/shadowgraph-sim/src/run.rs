//! Runs: one seed of one scenario, or many at once. A panic anywhere in a run is a violation like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plan::Plan;
use crate::report::{Report, Violation};
use crate::scenario::Scenario;
use crate::world::World;

/// Runs a scenario with a seed.
pub fn run(scenario: &Scenario, seed: u64, keep_lines: bool) -> Report {
    run_plan(&scenario.plan(seed), seed, keep_lines)
}

/// Runs a plan. The seed still decides what the plan leaves open.
pub fn run_plan(plan: &Plan, seed: u64, keep_lines: bool) -> Report {
    let run = || World::new(plan.clone(), seed, keep_lines).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.unwrap_or_else(|| "a panic without a text".to_string());
        let violation = Violation {
            at_us: 0,
            check: "panic",
            text,
        };
        Report {
            violations: vec![violation],
            ..Report::default()
        }
    })
}

/// The command that replays a run.
pub fn replay_command(scenario: &str, seed: u64) -> String {
    format!("cargo run --release -p shadowgraph-sim -- --seed {seed} --scenario {scenario} --trace")
}
