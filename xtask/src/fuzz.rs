//! `cargo xtask fuzz`: builds the targets in `fuzz/` with coverage instrumentation and runs each for a while from its checked-in
//! corpus. Works with the stable toolchain: the instrumentation is a pass of LLVM that stable flags turn on, and only the
//! sanitizers, which need a nightly, are left out (the crates under test have no unsafe code: they would find little).

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What cargo-fuzz passes with `--sanitizer none`, one by one stable.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
     -Ccodegen-units=1 --cfg fuzzing";

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct FuzzArgs {
    /// Only this target
    target: Option<String>,
    /// Seconds for each target; with 0 only the corpus is gone through
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only check that the targets compile
    #[arg(long, conflicts_with_all = ["target", "seconds"])]
    check: bool,
}

/// Runs the targets one after the other; fails if one finds something.
pub fn run(args: &FuzzArgs) -> Result<()> {
    if args.check {
        return check();
    }
    let home = shell::root().join("fuzz");
    let targets = targets(&home)?;
    let chosen: Vec<&String> = targets
        .iter()
        .filter(|name| args.target.as_ref().is_none_or(|target| target == *name))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there is no such target; these are: {}",
        targets.join(", ")
    );
    let programs = shell::step("build", || build(&home))?;
    println!(
        "{:<14} {:>12} {:>10} {:>9}  found",
        "target", "executions", "coverage", "new seeds"
    );
    let mut failures = Vec::new();
    for name in chosen {
        let outcome = fuzz(&home, &programs.join(name), name, args.seconds)?;
        let found = outcome.found.as_deref().unwrap_or("nothing");
        println!(
            "{name:<14} {:>12} {:>10} {:>9}  {found}",
            outcome.executions, outcome.coverage, outcome.seeds
        );
        if outcome.found.is_some() {
            failures.push(name.as_str());
        }
    }
    if !failures.is_empty() {
        bail!(
            "found something: {}; run the target's program with the file to see it again",
            failures.join(", ")
        );
    }
    Ok(())
}

/// Compiles the targets without their runtime, which is C++ and takes longer than all of them.
pub fn check() -> Result<()> {
    let mut cargo = plain_cargo();
    cargo.env("CUSTOM_LIBFUZZER_PATH", "/dev/null");
    cargo.args(["check", "--quiet", "--bins"]);
    shell::run(&mut cargo)
}

/// The tests of the corpus, which need no runtime.
pub fn corpus_tests() -> Command {
    let mut cargo = plain_cargo();
    cargo.args(["test", "--lib", "--no-default-features"]);
    cargo
}

/// A cargo for `fuzz/` without instrumentation, so what it compiles lies in a directory of its own.
fn plain_cargo() -> Command {
    let mut cargo = shell::cargo();
    cargo.current_dir(shell::root().join("fuzz"));
    cargo.env("CARGO_TARGET_DIR", target_dir().join("check"));
    cargo
}

/// The targets that the manifest names.
fn targets(home: &Path) -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(home.join("Cargo.toml"))?;
    let binaries = manifest.split("[[bin]]").skip(1);
    let name = |section: &str| {
        let line = section
            .lines()
            .find_map(|line| line.strip_prefix("name = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    Ok(binaries.filter_map(name).collect())
}

/// Builds all targets; returns where the programs lie.
fn build(home: &Path) -> Result<PathBuf> {
    // Naming the target keeps the instrumentation out of build scripts, which could not be linked with it.
    let triple = host_triple()?;
    let mut cargo = shell::cargo();
    cargo.current_dir(home);
    cargo.env("RUSTFLAGS", INSTRUMENTATION);
    cargo.env("CARGO_TARGET_DIR", target_dir());
    cargo.args(["build", "--release", "--bins", "--target", &triple]);
    shell::run(&mut cargo)?;
    Ok(target_dir().join(triple).join("release"))
}

fn target_dir() -> PathBuf {
    shell::target_dir().join("fuzz")
}

fn host_triple() -> Result<String> {
    let version = shell::output(shell::program("rustc").arg("-vV"))?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not name its host")?.to_owned())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    coverage: u64,
    /// Inputs with new coverage, found beyond those that were there.
    seeds: u64,
    /// The file that makes the target fail.
    found: Option<String>,
}

/// One run of libFuzzer. What it finds interesting goes to a directory of its own, not to the checked-in corpus.
fn fuzz(home: &Path, program: &Path, name: &str, seconds: u32) -> Result<Outcome> {
    let grown = target_dir().join("corpus").join(name);
    let artifacts = target_dir().join("artifacts").join(name);
    for directory in [&grown, &artifacts] {
        std::fs::create_dir_all(directory)?;
    }
    let log = target_dir().join(format!("{name}.log"));
    let bound = match seconds {
        0 => "-runs=0".to_owned(),
        seconds => format!("-max_total_time={seconds}"),
    };
    let status = Command::new(program)
        .current_dir(home)
        .arg(&grown)
        .arg(home.join("corpus").join(name))
        .arg(bound)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args([
            "-max_len=8192",
            "-print_final_stats=1",
            "-timeout=20",
            "-rss_limit_mb=2048",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let mut outcome = outcome(&text);
    if !status.success() && outcome.found.is_none() {
        outcome.found = Some(format!("{status}, see {}", log.display()));
    }
    Ok(outcome)
}

/// Reads libFuzzer's account of a run.
fn outcome(log: &str) -> Outcome {
    let after = |line: &str, key: &str| -> Option<u64> {
        let rest = line.split_once(key)?.1.trim_start();
        rest.split_whitespace().next()?.parse().ok()
    };
    let mut outcome = Outcome::default();
    for line in log.lines() {
        outcome.coverage = after(line, " cov: ").unwrap_or(outcome.coverage);
        outcome.executions =
            after(line, "stat::number_of_executed_units:").unwrap_or(outcome.executions);
        outcome.seeds = after(line, "stat::new_units_added:").unwrap_or(outcome.seeds);
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            outcome.found = Some(path.trim().to_owned());
        }
    }
    outcome
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz_tests;
