//! The processes of the demo: children that Ctrl-C ends, and those of its network, found by the
//! directory they run in (nodes, shims and hypervisors are detached on purpose).

use super::interrupt::stop_here_if_interrupted;
use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Children that are running now; `None` once the demo is being interrupted, after which nothing
/// more is started.
static CHILDREN: Mutex<Option<BTreeSet<i32>>> = Mutex::new(Some(BTreeSet::new()));

fn children() -> MutexGuard<'static, Option<BTreeSet<i32>>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that is ended when the demo is interrupted.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts a command. Once the demo is being interrupted this never returns: the thread that
    /// cleans up ends the process.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = crate::shell::command_line(command);
        let mut running = children();
        let Some(pids) = running.as_mut() else {
            drop(running);
            loop {
                std::thread::park();
            }
        };
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        pids.insert(child.id().cast_signed());
        drop(running);
        Ok(Self { child })
    }

    /// Waits for the end and returns what was printed into pipes. Does not return when interrupted.
    pub fn finish(self) -> Result<Output> {
        let pid = self.child.id().cast_signed();
        let output = self.child.wait_with_output();
        if let Some(pids) = children().as_mut() {
            pids.remove(&pid);
        }
        stop_here_if_interrupted();
        Ok(output?)
    }
}

/// Ends every running child, politely first, and keeps new ones from starting.
pub fn end_children() {
    let Some(pids) = children().take() else {
        return;
    };
    for pid in &pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline && pids.iter().any(|pid| is_alive(*pid)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in pids.iter().filter(|pid| is_alive(**pid)) {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Whether a process exists and is not a zombie.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// A process of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Process id.
    pub pid: i32,
    /// Its command line, words separated by spaces.
    pub command_line: String,
    /// The directory that it works in, as far as the system says.
    pub directory: PathBuf,
}

impl Found {
    fn program(&self) -> &str {
        let program = self.command_line.split(' ').next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is a hypervisor, that is, a running VM.
    pub fn is_hypervisor(&self) -> bool {
        self.program().starts_with("qemu-system")
    }

    /// Whether it belongs to the network in `dir`: a node or shim that names it, a hypervisor that
    /// works in it. An editor or pager on a log there does not.
    fn is_of(&self, dir: &Path) -> bool {
        let named = self.command_line.contains(&dir.display().to_string());
        (self.program() == "dagger" && named)
            || (self.is_hypervisor() && (named || self.directory.starts_with(dir)))
    }
}

/// Every `dagger` and hypervisor process of the network in `dir`.
pub fn of_network(dir: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .context("cannot read /proc")?
        .flatten()
    {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let words = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let command_line = words.collect::<Vec<_>>().join(" ").trim().to_owned();
        let directory = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        found.push(Found {
            pid,
            command_line,
            directory,
        });
    }
    found.retain(|process| process.is_of(dir));
    Ok(found)
}

/// Kills every process of the network in `dir`, until there is none.
pub fn kill_network(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = of_network(dir)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(anyhow!(
                "cannot end process {}: {}",
                left[0].pid,
                left[0].command_line
            ));
        }
        for process in left {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod processes_tests;
