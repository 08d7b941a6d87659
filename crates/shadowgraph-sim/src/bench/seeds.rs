//! How fast the simulator is: runs of the mixed scenario, on all cores.

use std::time::Instant;

use rayon::prelude::*;

use super::{Choice, Figure, process_cpu};
use crate::run::run;
use crate::scenario::Scenario;

/// Cores that the target is for.
const CORES: f64 = 2.0;

pub(super) fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    let seeds: u64 = if choice.quick { 50 } else { 200 };
    let name = |what: &str| format!("mixed, seeds 0..{seeds}: {what}");
    if !choice.has(&name("")) {
        return;
    }
    let scenario = Scenario::named("mixed").expect("a scenario of this name");
    let (clock, start) = (Instant::now(), process_cpu());
    let failed = (0..seeds).into_par_iter();
    let failed = failed.filter(|seed| !run(scenario, *seed, false).is_good());
    let failed = failed.count();
    let figure = |what: &str, value: f64, unit| Figure::plain("seeds", name(what), value, unit);
    let minutes = clock.elapsed().as_secs_f64() / 60.0;
    show(figure("failed", failed as f64, "runs").at_most(0.0));
    show(figure(
        "a minute, by the clock",
        seeds as f64 / minutes,
        "runs",
    ));
    let cpu_minutes = (process_cpu() - start).as_secs_f64() / 60.0;
    let a_minute = seeds as f64 * CORES / cpu_minutes;
    show(figure("a minute of 2 cores", a_minute, "runs").at_least(100.0));
}
