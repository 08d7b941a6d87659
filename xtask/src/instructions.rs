//! `cargo xtask instructions`: what the hot paths cost in instructions, against pinned counts. A slower machine or a busy one
//! counts the same, so a change is the code's, or the compiler's. Times and caches are not looked at.
//! Counts are of one compiler, and of processors with AVX2 (valgrind hides AVX-512).

use crate::setup::{self, Need, SetupArgs};
use crate::shell;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Counts may differ by so many percent: memory is laid out a little differently in every run, and hash maps of the
/// libraries are seeded anew.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Where the counts are pinned, from the root of the checkout.
const PINNED: &str = "xtask/src/instructions.txt";

const NEEDS: &[Need] = &[Need {
    program: "valgrind",
    package: "valgrind",
    why: "counts the instructions of the hot paths",
}];

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

/// What is pinned: by which compiler, and what each path takes.
struct Pinned {
    compiler: String,
    counts: BTreeMap<String, u64>,
}

impl Pinned {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string(shell::root().join(PINNED));
        Self::parse(&text.with_context(|| format!("cannot read {PINNED}"))?)
    }

    /// The first line that is no comment names the compiler, every other one a path and its count.
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().context("no compiler is named")?.to_owned();
        let count = |line: &str| {
            let (name, count) = line.split_once(' ').context("a line is `name count`")?;
            let count = count.trim().parse();
            Ok((name.to_owned(), count.with_context(|| line.to_owned())?))
        };
        let counts = lines.map(count).collect::<Result<_>>()?;
        Ok(Self { compiler, counts })
    }

    fn write(&self) -> Result<()> {
        let mut text = String::from(
            "# Instructions per event, transaction or proof; `cargo xtask instructions --pin` writes this.\n",
        );
        text += &format!("{}\n", self.compiler);
        for path in PATHS {
            text += &format!("{:<20} {}\n", path.name, self.counts[path.name]);
        }
        std::fs::write(shell::root().join(PINNED), text)
            .with_context(|| format!("cannot write {PINNED}"))
    }
}

/// Counts every path; fails if one is further from its pinned count than the tolerance, in either direction.
pub fn run(args: &InstructionsArgs) -> Result<()> {
    setup::ensure(NEEDS, &SetupArgs::default())?;
    let compiler = compiler()?;
    if args.pin {
        let counts = count_all(&BTreeMap::new())?;
        return Pinned { compiler, counts }.write();
    }
    let pinned = Pinned::read()?;
    if let Some(why) = incomparable(&pinned.compiler, &compiler) {
        println!("{why}: counts may differ for that alone");
    }
    compare(&pinned)
}

/// As [`run`], where that can be compared; says so where it cannot.
pub fn check() -> Result<()> {
    let pinned = Pinned::read()?;
    if let Some(why) = incomparable(&pinned.compiler, &compiler()?) {
        println!("    {why}: not compared");
        return Ok(());
    }
    setup::ensure(NEEDS, &SetupArgs { yes: true })?;
    compare(&pinned)
}

/// Why counts made here say nothing about the pinned ones.
fn incomparable(pinned: &str, compiler: &str) -> Option<String> {
    if !has_avx2() {
        return Some("the counts are pinned for x86 processors with AVX2".into());
    }
    (pinned != compiler).then(|| format!("the counts are pinned for {pinned}, this is {compiler}"))
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn compare(pinned: &Pinned) -> Result<()> {
    let counts = count_all(&pinned.counts)?;
    let is_off = |name: &&str| {
        let before = pinned.counts.get(*name);
        !before.is_some_and(|before| is_within(counts[*name], *before))
    };
    let off: Vec<&str> = PATHS.iter().map(|path| path.name).filter(is_off).collect();
    if !off.is_empty() {
        bail!(
            "{} changed by more than {TOLERANCE_PERCENT} %: find out why, or pin the new counts with --pin",
            off.join(", ")
        );
    }
    Ok(())
}

/// Counts every path, and prints it beside what it was.
fn count_all(before: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    build()?;
    let mut counts = BTreeMap::new();
    for path in PATHS {
        let each = measure(path)?;
        let compared = compared(each, before.get(path.name));
        println!("{:<20} {each:>9} {compared}", path.name);
        counts.insert(path.name.to_owned(), each);
    }
    Ok(counts)
}

fn build() -> Result<()> {
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
    ]))
}

/// The compiler's name and version.
fn compiler() -> Result<String> {
    let text = shell::output(shell::program("rustc").arg("--version"))?;
    let mut words = text.split_whitespace();
    let named = words.next().zip(words.next());
    let (name, version) = named.context("rustc told no version")?;
    Ok(format!("{name} {version}"))
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
