//! Builds the test programs of the copy once, and runs them with a mutant switched on until one test fails.
//! Knows nothing of what the mutants are.

use super::{CRATES, VARIABLE};
use crate::shell;
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// With a mutant a program may take so many times the CPU time it usually takes, and this much more, before it counts as
/// stuck. CPU time: what else runs on the machine must not kill a mutant.
const PATIENCE_FACTOR: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);
/// A program that waits without computing counts as stuck after so many times that.
const IDLE_FACTOR: u32 = 30;
/// What a program may take of memory, in KiB: a mutant without a bound must not take the machine.
const MEMORY_KIB: u64 = 6 << 20;

/// One test program.
pub struct Suite {
    pub name: String,
    program: PathBuf,
    /// The directory of its crate, from which its tests read their files.
    home: PathBuf,
    /// The CPU time it takes without a mutant.
    pub usual: Duration,
}

/// What the tests say of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// This test of this program failed.
    Killed { suite: String, test: String },
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
            Self::Killed { suite, test } => write!(f, "killed by {suite} {test}"),
            Self::Aborted(suite) => write!(f, "killed: {suite} aborted"),
            Self::Stuck(suite) => write!(f, "killed: {suite} did not end"),
            Self::Survived => f.write_str("SURVIVED"),
        }
    }
}

impl Verdict {
    /// The program, and the test if it was one, that noticed.
    fn killer(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Killed { suite, test } => Some((suite, Some(test))),
            Self::Aborted(suite) | Self::Stuck(suite) => Some((suite, None)),
            Self::Survived => None,
        }
    }
}

/// Builds the copy's tests. The stateright models are left out: they share no code with the library.
pub fn build(copy: &Path) -> Result<Vec<Suite>> {
    let mut cargo = shell::cargo();
    cargo.current_dir(copy);
    cargo.env("CARGO_TARGET_DIR", copy.join("target"));
    cargo.args(["test", "--release", "--no-run", "--lib", "--test", "*"]);
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
    suites.retain(|suite| !suite.name.ends_with("model"));
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

/// Runs all programs with a mutant on until a test fails; first what killed it in an earlier version of the source.
pub fn against(suites: &[Suite], number: u32, before: Option<&Verdict>) -> Result<Verdict> {
    let killer = before.and_then(Verdict::killer);
    if let Some((name, test)) = killer
        && let Some(suite) = suites.iter().find(|suite| suite.name == name)
    {
        let noticed = suite.run(number, test)?;
        if noticed != Verdict::Survived {
            return Ok(noticed);
        }
    }
    for suite in suites {
        match suite.run(number, None)? {
            Verdict::Survived => {}
            noticed => return Ok(noticed),
        }
    }
    Ok(Verdict::Survived)
}

/// The CPU time of all programs that ended.
pub fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.unsigned_abs()))
}

impl Suite {
    /// The CPU time after which it counts as stuck.
    fn patience(&self) -> Duration {
        self.usual * PATIENCE_FACTOR + PATIENCE
    }

    /// Runs this program with a mutant on: all of its tests, or one.
    pub fn run(&self, number: u32, only: Option<&str>) -> Result<Verdict> {
        // The source as it is takes what it takes.
        let limit = (number > 0).then(|| self.patience());
        let seconds = limit.map_or("unlimited".to_owned(), |limit| limit.as_secs().to_string());
        let script =
            format!("ulimit -S -t {seconds} && ulimit -v {MEMORY_KIB} && exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(&self.program)
            .args(only.map(|test| ["--exact", test]).into_iter().flatten())
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
        let said = self.listen(limit.map(|limit| limit * IDLE_FACTOR), &heard);
        drop(heard);
        if said.is_some() {
            // Whatever the verdict, nothing more is asked of it.
            let _ = child.kill();
        }
        let status = child.wait()?;
        reader.join().expect("the reader only reads");
        Ok(said.unwrap_or_else(|| self.ended_silently(status)))
    }

    fn ended_silently(&self, status: ExitStatus) -> Verdict {
        let suite = self.name.clone();
        if status.signal() == Some(Signal::SIGXCPU as i32) {
            Verdict::Stuck(suite)
        } else {
            Verdict::Aborted(suite)
        }
    }

    /// What its lines say; nothing if it ends without a result.
    fn listen(
        &self,
        patience: Option<Duration>,
        heard: &mpsc::Receiver<String>,
    ) -> Option<Verdict> {
        let end = patience.map(|patience| Instant::now() + patience);
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
                        let (suite, test) = (self.name.clone(), test.to_owned());
                        return Some(Verdict::Killed { suite, test });
                    }
                    if line.starts_with("test result: ok.") {
                        return Some(Verdict::Survived);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Some(Verdict::Stuck(self.name.clone()));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
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
