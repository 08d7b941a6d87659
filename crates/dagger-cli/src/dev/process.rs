//! The processes of a network: nodes by their pid files, and whatever else runs in its directory.
//!
//! A process is only ever touched when its program and its directory both say that it is one of ours:
//! pid numbers are used again, and an editor may be looking at a log. A guest's way out is one by its parent.

use super::{Layout, NodePlan};
use crate::failure::{Done, Exit, Failure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often to look, a millisecond apart, for the words of a process that has none yet: while a program is started there is
/// a moment in which `spawn` has returned already.
const EXEC_LOOKS: u32 = 20;

/// What a process of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `dagger node run`.
    Node,
    /// `dagger vm-shim`.
    Shim,
    /// QEMU.
    Hypervisor,
    /// `pasta`, a guest's way out. It works nowhere and names no directory: it is known by the shim that started it.
    Egress,
}

/// A process that runs in the network's directory.
#[derive(Clone, Debug)]
pub struct Found {
    pub pid: Pid,
    pub kind: Kind,
}

/// Every process of ours below `directory`.
pub fn below(directory: &Path) -> Done<Vec<Found>> {
    let entries = std::fs::read_dir("/proc").map_err(|error| Failure::file("/proc", &error))?;
    let pids: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let inspected = pids.iter().map(|pid| inspect(*pid, directory));
    let mut found: Vec<Found> = inspected.flatten().collect();
    let shims = found.iter().filter(|found| found.kind == Kind::Shim);
    let shims: BTreeSet<i32> = shims.map(|shim| shim.pid.as_raw()).collect();
    found.extend(pids.into_iter().filter_map(|pid| egress(pid, &shims)));
    Ok(found)
}

fn egress(pid: i32, shims: &BTreeSet<i32>) -> Option<Found> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything, comes the state and then the parent.
    let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
    if !shims.contains(&parent.parse().ok()?) {
        return None;
    }
    let words = command_line(pid)?;
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    program.starts_with("pasta").then_some(Found {
        pid: Pid::from_raw(pid),
        kind: Kind::Egress,
    })
}

fn inspect(pid: i32, directory: &Path) -> Option<Found> {
    // A process that ends meanwhile has no files any more; it is none of ours then. A zombie has no words.
    let words = command_line(pid)?;
    let kind = kind_of(&words)?;
    let works_in = match kind {
        Kind::Node => option(&words, "--data"),
        Kind::Shim => option(&words, "--dir"),
        Kind::Hypervisor => std::fs::read_link(format!("/proc/{pid}/cwd")).ok(),
        Kind::Egress => None,
    };
    works_in?.starts_with(directory).then_some(Found {
        pid: Pid::from_raw(pid),
        kind,
    })
}

fn command_line(pid: i32) -> Option<Vec<OsString>> {
    let mut bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    for _ in 0..EXEC_LOOKS {
        // A zombie or a thread of the kernel has no program, and never words.
        if !bytes.is_empty() || std::fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    }
    let words = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    Some(
        words
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect(),
    )
}

/// Judges a command line.
pub(super) fn kind_of(words: &[OsString]) -> Option<Kind> {
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    if program.starts_with("qemu-system-") {
        return Some(Kind::Hypervisor);
    }
    let word = |index: usize| words.get(index).and_then(|word| word.to_str());
    match (word(1), word(2)) {
        (Some("node"), Some("run")) => Some(Kind::Node),
        (Some("vm-shim"), _) => Some(Kind::Shim),
        _ => None,
    }
}

fn option(words: &[OsString], name: &str) -> Option<PathBuf> {
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).map(PathBuf::from)
}

/// The running process of a node, if there is one.
pub fn node(layout: &Layout, node: &NodePlan) -> Done<Option<Pid>> {
    let nodes = below(&layout.node_dir(&node.name))?;
    Ok(nodes
        .into_iter()
        .find(|found| found.kind == Kind::Node)
        .map(|found| found.pid))
}

/// Starts a node that outlives this command, its output in its log.
pub fn spawn(layout: &Layout, node: &NodePlan) -> Done<std::process::Child> {
    let path = layout.log(&node.name);
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let log = log.map_err(|error| Failure::file(path.display(), &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::file("this program", &error))?;
    let both = log
        .try_clone()
        .map_err(|error| Failure::file(path.display(), &error))?;
    let child = Command::new(program)
        .args(["node", "run", "--data"])
        .arg(layout.node_dir(&node.name))
        .stdin(Stdio::null())
        .stdout(both)
        .stderr(log)
        // Ctrl-C in this terminal is for this command; a node is told by name.
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::file("a node cannot be started", &error))?;
    let pid_file = layout.pid_file(&node.name);
    std::fs::write(&pid_file, format!("{}\n", child.id()))
        .map_err(|error| Failure::file(pid_file.display(), &error))?;
    Ok(child)
}

/// Sends a signal to a process found above; one that has ended meanwhile is what was wanted.
pub fn send(found: &Found, signal: Signal) -> Done {
    match kill(found.pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Failure::new(
            Exit::Failure,
            "E_PROCESS",
            format!("process {} cannot be ended: {errno}", found.pid),
        )),
    }
}

/// Waits until nothing that `of_interest` is left below `directory`; false if it is not so in time.
pub async fn gone(
    directory: &Path,
    of_interest: impl Fn(Kind) -> bool,
    within: Duration,
) -> Done<bool> {
    let deadline = Instant::now() + within;
    loop {
        if !below(directory)?
            .iter()
            .any(|found| of_interest(found.kind))
        {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Kills everything below `directory`, and what it starts meanwhile, at once.
pub async fn kill_all(directory: &Path) -> Done {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut found = below(directory)?;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids: Vec<String> = found.iter().map(|found| found.pid.to_string()).collect();
            let text = format!("processes {} do not end", pids.join(", "));
            return Err(Failure::new(Exit::Failure, "E_PROCESS", text));
        }
        // Whoever could start another goes first.
        found.sort_by_key(|found| found.kind as u8);
        for one in &found {
            send(one, Signal::SIGKILL)?;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
