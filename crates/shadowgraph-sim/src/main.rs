//! The `shadowgraph-sim` command: runs scenarios over ranges of seeds, replays one, measures latency. All it does itself is to
//! read arguments and print.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use shadowgraph_sim::bench::{BENCHES, Choice, Figure, measure};
use shadowgraph_sim::report::Report;
use shadowgraph_sim::run::{replay_command, run, run_plan};
use shadowgraph_sim::scenario::{SCENARIOS, Scenario};
use shadowgraph_sim::shrink::shrink;

/// Deterministic simulation of ShadowGraph committees: every run is fixed by its scenario and seed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Seeds to run, the last one excluded.
    #[arg(long, value_name = "FROM..TO", default_value = "0..100", value_parser = seeds)]
    seeds: Range<u64>,
    /// A single seed.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// The scenario, or `all`. Several with commas.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "mixed",
        value_delimiter = ','
    )]
    scenario: Vec<String>,
    /// Prints every step of the run.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Looks for a smaller plan that fails the same way.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// Measures instead: `latency`, `cpu`, `payload`, `memory`, `seeds` or `all`.
    #[arg(long, value_name = "WHAT", value_parser = a_bench)]
    bench: Option<String>,
    /// Measures only rows whose name contains this.
    #[arg(long, value_name = "TEXT", requires = "bench", default_value = "")]
    rows: String,
    /// Prints one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Measures less, for an indication.
    #[arg(long)]
    quick: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("write it as FROM..TO, for example 0..1000")?;
    let number = |part: &str| {
        part.parse::<u64>()
            .map_err(|error| format!("{part}: {error}"))
    };
    Ok(number(from)?..number(to)?)
}

fn a_bench(text: &str) -> Result<String, String> {
    if text == "all" || BENCHES.contains(&text) {
        return Ok(text.to_string());
    }
    Err(format!("there are {} and all", BENCHES.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        SCENARIOS
            .iter()
            .for_each(|scenario| println!("{:<20} {}", scenario.name, scenario.about));
        return ExitCode::SUCCESS;
    }
    if let Some(bench) = &arguments.bench {
        let choice = Choice {
            bench,
            rows: &arguments.rows,
            quick: arguments.quick,
        };
        measure(&choice, &mut |figure| print_figure(&figure, arguments.json));
        return ExitCode::SUCCESS;
    }
    let Some(scenarios) = chosen(&arguments.scenario) else {
        return ExitCode::from(2);
    };
    match arguments.seed {
        Some(seed) => scenarios
            .into_iter()
            .map(|scenario| one(scenario, seed, &arguments))
            .max()
            .unwrap_or(0)
            .into(),
        None => many(&scenarios, arguments.seeds),
    }
}

fn chosen(names: &[String]) -> Option<Vec<&'static Scenario>> {
    if names.iter().any(|name| name == "all") {
        return Some(SCENARIOS.iter().collect());
    }
    let mut scenarios = Vec::new();
    for name in names {
        let Some(scenario) = Scenario::named(name) else {
            eprintln!("there is no scenario {name}; --list shows them");
            return None;
        };
        scenarios.push(scenario);
    }
    Some(scenarios)
}

/// Runs one seed and tells everything about it.
fn one(scenario: &'static Scenario, seed: u64, arguments: &Arguments) -> u8 {
    if arguments.shrink {
        let smaller = shrink(&scenario.plan(seed), seed);
        println!("{smaller:#?}");
        let report = run_plan(&smaller, seed, arguments.trace);
        return print_report(scenario, seed, &report);
    }
    print_report(scenario, seed, &run(scenario, seed, arguments.trace))
}

fn print_report(scenario: &Scenario, seed: u64, report: &Report) -> u8 {
    report.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "{} seed {seed}: {} commits, {} events, {} transactions accepted, {} steps, {} ms of virtual time, audit {}",
        scenario.name,
        report.commits,
        report.events,
        report.accepted,
        report.steps,
        report.virtual_us / 1000,
        report.audit
    );
    print_violations(scenario, seed, report);
    u8::from(!report.is_good())
}

fn print_violations(scenario: &Scenario, seed: u64, report: &Report) {
    for violation in &report.violations {
        eprintln!(
            "FAILED {} seed {seed} at {} ms: {}: {}",
            scenario.name,
            violation.at_us / 1000,
            violation.check,
            violation.text
        );
    }
    if !report.is_good() {
        eprintln!("  {}", replay_command(scenario.name, seed));
    }
}

/// Runs all seeds of all scenarios on all cores.
fn many(scenarios: &[&'static Scenario], seeds: Range<u64>) -> ExitCode {
    // Panics in runs are reported as violations; their own output would tear the progress bar.
    std::panic::set_hook(Box::new(|_| {}));
    let jobs: Vec<(u64, &Scenario)> = seeds
        .flat_map(|seed| scenarios.iter().map(move |scenario| (seed, *scenario)))
        .collect();
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {per_sec}, {eta} left {msg}");
    let bar =
        ProgressBar::new(jobs.len() as u64).with_style(style.expect("the template is well-formed"));
    let started = Instant::now();
    let outcomes: Vec<(u64, u64, u64)> = jobs
        .par_iter()
        .map(|(seed, scenario)| {
            let report = run(scenario, *seed, false);
            bar.inc(1);
            if !report.is_good() {
                bar.suspend(|| print_violations(scenario, *seed, &report));
            }
            (
                u64::from(!report.is_good()),
                report.commits,
                report.virtual_us,
            )
        })
        .collect();
    bar.finish_and_clear();
    let sum = |of: fn(&(u64, u64, u64)) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (failed, seconds) = (sum(|outcome| outcome.0), started.elapsed().as_secs_f64());
    println!(
        "{} runs, {failed} failed; {} commits, {} s of virtual time in {seconds:.1} s, {:.0} runs a minute",
        jobs.len(),
        sum(|outcome| outcome.1),
        sum(|outcome| outcome.2) / 1_000_000,
        jobs.len() as f64 * 60.0 / seconds.max(0.001)
    );
    ExitCode::from(u8::from(failed > 0))
}

/// One line, at once: a row may take minutes.
fn print_figure(figure: &Figure, json: bool) {
    if json {
        let text = serde_json::to_string(figure).expect("a figure is plain data");
        println!("{text}");
        return;
    }
    let Figure {
        bench,
        name,
        value,
        unit,
        target,
        ok,
    } = figure;
    let target = match (ok, *target > 0.0) {
        (true, true) => format!("target {target}"),
        (false, _) => format!("target {target}: missed"),
        (true, false) => String::new(),
    };
    println!("{bench:<8} {name:<66} {value:>12.3} {unit:<7} {target}");
}
