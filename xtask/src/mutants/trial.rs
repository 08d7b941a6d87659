//! Builds the test programs of the copy once, and runs them with a mutant switched on until one test fails.
//! Knows nothing of what the mutants are.

use super::{CRATES, VARIABLE};
use crate::shell;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A mutant may take so many times what the tests usually take, and this much more, before it counts as stuck.
const PATIENCE_FACTOR: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// One test program.
pub struct Suite {
    pub name: String,
    program: PathBuf,
    /// The directory of its crate, from which its tests read their files.
    home: PathBuf,
    /// How long it takes without a mutant.
    pub usual: Duration,
}

/// What the tests say of a mutant.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This test failed.
    Killed(String),
    /// This program ended without a result: a panic in a panic, an overflown stack.
    Aborted(String),
    /// This program did not end.
    Stuck(String),
    /// Nothing was noticed.
    Survived,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Killed(test) => write!(f, "killed by {test}"),
            Self::Aborted(suite) => write!(f, "killed: {suite} aborted"),
            Self::Stuck(suite) => write!(f, "killed: {suite} did not end"),
            Self::Survived => f.write_str("SURVIVED"),
        }
    }
}

/// Builds the copy's tests. The stateright model is left out: it shares no code with the library.
pub fn build(copy: &Path) -> Result<Vec<Suite>> {
    let mut cargo = shell::cargo();
    cargo.current_dir(copy);
    cargo.env("CARGO_TARGET_DIR", copy.join("target"));
    cargo.args(["test", "--no-run", "--lib", "--test", "*"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    for name in CRATES {
        cargo.args(["-p", name]);
    }
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the copy with all mutants does not compile"
    );
    let mut suites = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        if let Some(suite) = suite(&message) {
            suites.push(suite);
        }
    }
    suites.retain(|suite| suite.name != "shadowgraph-sim::model");
    ensure!(
        suites.len() >= 2 * CRATES.len(),
        "cargo named only {} test programs",
        suites.len()
    );
    Ok(suites)
}

fn suite(message: &serde_json::Value) -> Option<Suite> {
    let program = message["executable"].as_str()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let home = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = home.file_name()?.to_str()?;
    let target = message["target"]["name"].as_str()?;
    let library = target.replace('_', "-") == package;
    Some(Suite {
        name: if library {
            package.into()
        } else {
            format!("{package}::{target}")
        },
        program: program.into(),
        home: home.into(),
        usual: Duration::ZERO,
    })
}

/// Runs all programs with a mutant on until a test fails.
pub fn against(suites: &[Suite], number: u32) -> Result<Verdict> {
    for suite in suites {
        match suite.run(number)? {
            Verdict::Survived => {}
            noticed => return Ok(noticed),
        }
    }
    Ok(Verdict::Survived)
}

impl Suite {
    /// Runs this program with a mutant on.
    pub fn run(&self, number: u32) -> Result<Verdict> {
        let mut child = Command::new(&self.program)
            .current_dir(&self.home)
            .env(VARIABLE, number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().expect("piped above");
        let (lines, heard) = mpsc::sync_channel(1_024);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let verdict = self.listen(number, &heard);
        drop(heard);
        // Whatever the verdict, nothing more is asked of it.
        let _ = child.kill();
        child.wait()?;
        reader.join().expect("the reader only reads");
        Ok(verdict)
    }

    fn listen(&self, number: u32, heard: &mpsc::Receiver<String>) -> Verdict {
        let patience = self.usual * PATIENCE_FACTOR + PATIENCE;
        // The source as it is takes what it takes.
        let end = (number > 0).then(|| Instant::now() + patience);
        loop {
            let line = match end {
                None => heard
                    .recv()
                    .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(end) => heard.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            match line {
                Ok(line) => {
                    if let Some(test) = failed(&line) {
                        return Verdict::Killed(format!("{} {test}", self.name));
                    }
                    if line.starts_with("test result: ok.") {
                        return Verdict::Survived;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return Verdict::Stuck(self.name.clone()),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Verdict::Aborted(self.name.clone());
                }
            }
        }
    }
}

/// The name in `test name ... FAILED`.
fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod trial_tests;
