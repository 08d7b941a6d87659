//! `cargo xtask test`: sets up what is missing, runs every test with nextest where it is there and
//! with cargo's own runner elsewhere, then the doctests and the corpus of the fuzz targets, and closes with one line of sums.

use crate::{fuzz, setup, shell};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};

/// What to test.
#[derive(Args, Default)]
pub struct TestArgs {
    /// Install missing system packages without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed or timed out.
    pub failed: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Sets up, tests, and ends with the line `N passed, N failed`.
pub fn run(args: &TestArgs) -> Result<()> {
    setup::run(&setup::SetupArgs { yes: args.yes })?;
    let (counts, result) = all_tests(args.filter.as_deref());
    println!("\n{counts}");
    result
}

/// Runs every suite, going on after a failing one, and returns the sums with the first failure.
pub fn all_tests(filter: Option<&str>) -> (Counts, Result<()>) {
    let mut counts = Counts::default();
    let mut first_failure = Ok(());
    for mut command in suites(filter) {
        println!("==> {}", shell::command_line(&command));
        match run_counted(&mut command, &mut counts) {
            Ok(()) => {}
            Err(error) if first_failure.is_ok() => first_failure = Err(error),
            Err(_) => {}
        }
    }
    if first_failure.is_ok() && counts.failed > 0 {
        first_failure = Err(anyhow::anyhow!("{} tests failed", counts.failed));
    }
    if first_failure.is_ok() && counts.passed == 0 && filter.is_none() {
        first_failure = Err(anyhow::anyhow!("no test was run"));
    }
    (counts, first_failure)
}

/// The profile of the tests is the demo's: what is built for one is there for the other
/// (docs/adr/0006-one-build-profile.md).
fn suites(filter: Option<&str>) -> Vec<Command> {
    let mut main = shell::cargo();
    if shell::find_program("cargo-nextest").is_some() {
        main.args(["nextest", "run", "--no-fail-fast"]);
        main.args(["--release", "--workspace"]);
    } else {
        main.args(["test", "--no-fail-fast", "--release", "--workspace"]);
        main.args(["--lib", "--bins", "--tests", "--examples"]);
    }
    let mut doc = shell::cargo();
    doc.args([
        "test",
        "--release",
        "--workspace",
        "--doc",
        "--no-fail-fast",
    ]);
    let mut commands = vec![main, doc, fuzz::corpus_tests()];
    if let Some(filter) = filter {
        commands.truncate(1);
        commands[0].arg(filter);
    }
    commands
}

/// Runs one suite, passing its lines through while counting what they say.
fn run_counted(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let line = shell::command_line(command);
    let color = if std::io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    };
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .env("CARGO_TERM_COLOR", color)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // The command keeps the ends it was given; the reader sees the end only without them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        std::io::stdout().write_all(&bytes)?;
        if let Some(more) = counts_of(&without_colors(&String::from_utf8_lossy(&bytes))) {
            counts.passed += more.passed;
            counts.failed += more.failed;
        }
        bytes.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The counts in a closing line of nextest (`Summary [..] 5 tests run: 4 passed, 1 failed`) or of
/// cargo's runner (`test result: ok. 5 passed; 0 failed; ..`); `None` for any other line.
///
/// Cargo's line counts only unindented: nextest indents what a failed test printed, and counts that test itself.
fn counts_of(line: &str) -> Option<Counts> {
    let tallies = if let Some(rest) = line.strip_prefix("test result: ") {
        rest.split_once(". ")?.1
    } else if line.trim_start().starts_with("Summary [") {
        line.split_once(" run: ")?.1
    } else {
        return None;
    };
    let mut counts = Counts::default();
    for tally in tallies.split([',', ';']) {
        let mut words = tally.split_whitespace();
        let (Some(number), Some(word)) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match word {
            "passed" => counts.passed += number,
            "failed" | "timed" | "exec" => counts.failed += number,
            _ => {}
        }
    }
    Some(counts)
}

/// A line without the terminal's color sequences.
fn without_colors(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            characters.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
#[path = "suite_tests.rs"]
mod suite_tests;
