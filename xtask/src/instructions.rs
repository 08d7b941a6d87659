//! `cargo xtask instructions`: what the hot paths cost in instructions, against pinned counts. A slower machine or a busy one
//! counts the same, so a change is the code's, or the compiler's. Times and caches are not looked at.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Counts may differ by so many percent: memory is laid out a little differently in every run, and hash maps of the
/// libraries are seeded anew.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Where the counts are pinned, from the root of the checkout.
const PINNED: &str = "xtask/src/instructions.txt";

/// A path: the program that takes it, its name there, and the two counts whose difference is measured.
struct HotPath {
    program: &'static str,
    name: &'static str,
    counts: [u64; 2],
}

const fn path(program: &'static str, name: &'static str, counts: [u64; 2]) -> HotPath {
    HotPath {
        program,
        name,
        counts,
    }
}

const PATHS: &[HotPath] = &[
    path("consensus_paths", "decode-verify", [100, 200]),
    path("consensus_paths", "decode-verify-batch", [128, 640]),
    path("consensus_paths", "insert-commit", [400, 1000]),
    path("ledger_paths", "check", [200, 800]),
    path("ledger_paths", "execute", [200, 800]),
    path("ledger_paths", "root", [200, 800]),
    path("ledger_paths", "proof", [200, 800]),
];

/// What to do with the counts.
#[derive(Args, Default)]
pub struct InstructionsArgs {
    /// Write the counts down as the new pinned ones; say in the commit why they changed
    #[arg(long)]
    pin: bool,
}

/// Counts every path; fails if one is further from its pinned count than the tolerance, in either direction.
pub fn run(args: &InstructionsArgs) -> Result<()> {
    ensure!(
        shell::find_program("valgrind").is_some(),
        "valgrind is not installed: `apt-get install valgrind`; only this command needs it"
    );
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--quiet",
        "-p",
        "shadowgraph",
        "-p",
        "dagger-ledger",
        "--example",
        "consensus_paths",
        "--example",
        "ledger_paths",
    ]))?;
    let file = shell::root().join(PINNED);
    let pinned = if args.pin {
        BTreeMap::new()
    } else {
        parse(&std::fs::read_to_string(&file).with_context(|| format!("cannot read {PINNED}"))?)?
    };
    let mut lines = String::from(
        "# Instructions per event, transaction or proof; `cargo xtask instructions --pin` writes this.\n",
    );
    let mut off = Vec::new();
    for path in PATHS {
        let each = measure(path)?;
        lines += &format!("{:<20} {each}\n", path.name);
        let before = pinned.get(path.name);
        println!("{:<20} {each:>9} {}", path.name, compared(each, before));
        if !args.pin && !before.is_some_and(|before| is_within(each, *before)) {
            off.push(path.name);
        }
    }
    if args.pin {
        std::fs::write(&file, lines).with_context(|| format!("cannot write {PINNED}"))?;
    }
    if !off.is_empty() {
        bail!(
            "{} changed by more than {TOLERANCE_PERCENT} %: find out why, or pin the new counts with --pin",
            off.join(", ")
        );
    }
    Ok(())
}

/// Instructions of one more time on the path.
fn measure(path: &HotPath) -> Result<u64> {
    let program = shell::target_dir()
        .join("release/examples")
        .join(path.program);
    let [few, many] = path.counts;
    let more = count(&program, path.name, many)? as f64 - count(&program, path.name, few)? as f64;
    Ok((more / (many - few) as f64).round() as u64)
}

/// Instructions that a whole run takes.
fn count(program: &Path, name: &str, count: u64) -> Result<u64> {
    let mut valgrind = shell::program("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no"]);
    valgrind.args(["--cachegrind-out-file=/dev/null", "--log-fd=1"]);
    valgrind.arg(PathBuf::from(program)).arg(name);
    let text = shell::output(valgrind.arg(count.to_string()))?;
    references(&text).with_context(|| format!("valgrind told no count of instructions: {text}"))
}

/// The number behind `I refs:` in valgrind's report.
fn references(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains("refs:"))?;
    let (_, number) = line.split_once("refs:")?;
    number.trim().replace(',', "").parse().ok()
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').context("a line is `name count`")?;
            let count = count.trim().parse();
            Ok((name.to_owned(), count.with_context(|| line.to_owned())?))
        })
        .collect()
}

fn is_within(now: u64, before: u64) -> bool {
    change_percent(now, before).abs() <= TOLERANCE_PERCENT
}

fn change_percent(now: u64, before: u64) -> f64 {
    (now as f64 / before as f64 - 1.0) * 100.0
}

fn compared(now: u64, before: Option<&u64>) -> String {
    before.map_or("not pinned".into(), |before| {
        format!("pinned {before} ({:+.1} %)", change_percent(now, *before))
    })
}

#[cfg(test)]
#[path = "instructions_tests.rs"]
mod tests;
