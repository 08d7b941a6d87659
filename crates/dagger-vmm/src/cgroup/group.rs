//! One guest's group: made before its QEMU, which enters it before it becomes QEMU; emptied and removed after its end.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::limits::{memory_mib, settings};
use super::{Parent, Resource, Version, write_to};
use crate::spec::InstanceSpec;

const PROCESSES: &str = "cgroup.procs";
/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// A guest's group, in as many hierarchies as it takes. Emptied and removed when dropped.
pub struct Group {
    parts: Vec<Part>,
    memory_mib: u64,
    /// What could not be had, for people.
    complaints: Vec<String>,
}

struct Part {
    version: Version,
    dir: PathBuf,
    resources: Vec<Resource>,
    processes: File,
}

/// What a child needs to enter. No memory of its own: it is used between fork and exec.
#[derive(Clone, Copy, Default)]
pub struct Entry {
    processes: [Option<RawFd>; Resource::ALL.len()],
}

impl Group {
    /// Makes the group of an instance, empty whatever was there, with its bounds, and sees by trying that a process may enter it.
    pub fn make(parents: &[Parent], name: &str, spec: &InstanceSpec) -> Self {
        let mut group = Self {
            parts: Vec::new(),
            memory_mib: memory_mib(spec),
            complaints: Vec::new(),
        };
        for parent in parents.iter().take(Resource::ALL.len()) {
            match Part::make(parent, name, spec) {
                Ok((part, complaints)) => {
                    group.complaints.extend(complaints);
                    group.parts.push(part);
                }
                Err(error) => group
                    .complaints
                    .push(format!("{}: {error}", parent.dir.display())),
            }
        }
        group
    }

    /// What it bounds, and that in words.
    pub fn describe(&self) -> (Vec<Resource>, String) {
        let mut held: Vec<_> = self
            .parts
            .iter()
            .flat_map(|p| p.resources.iter().copied())
            .collect();
        held.sort_unstable();
        let mut text: Vec<String> = Vec::new();
        for part in &self.parts {
            let names: Vec<_> = part.resources.iter().map(|r| r.as_str()).collect();
            text.push(format!(
                "a cgroup ({}) bounds {}",
                part.version,
                names.join(", ")
            ));
        }
        text.extend(self.complaints.iter().cloned());
        (held, text.join("; "))
    }

    /// How a child enters it.
    pub fn entry(&self) -> Entry {
        let mut entry = Entry::default();
        for (place, part) in entry.processes.iter_mut().zip(&self.parts) {
            *place = Some(part.processes.as_raw_fd());
        }
        entry
    }

    /// Most memory that it may hold in MiB, if that is bounded.
    pub fn memory_mib(&self) -> Option<u64> {
        self.memory().map(|_| self.memory_mib)
    }

    /// How many of its processes were killed for lack of memory, its own or the host's; none if its memory is not counted.
    pub fn oom_kills(&self) -> Option<u64> {
        let part = self.memory()?;
        let file = match part.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        let text = fs::read_to_string(part.dir.join(file)).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count?.trim().parse().ok()
    }

    fn memory(&self) -> Option<&Part> {
        let mut parts = self.parts.iter();
        parts.find(|part| part.resources.contains(&Resource::Memory))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for part in &self.parts {
            if let Err(error) = clear(part.version, &part.dir) {
                // The host's next start, or the instance's removal, tries again.
                eprintln!(
                    "vm-shim: {} could not be removed: {error}",
                    part.dir.display()
                );
            }
        }
    }
}

impl Part {
    fn make(parent: &Parent, name: &str, spec: &InstanceSpec) -> io::Result<(Self, Vec<String>)> {
        let dir = parent.dir.join(name);
        // Whatever an earlier life left would count as this one's.
        clear(parent.version, &dir)?;
        fs::create_dir(&dir)?;
        match Self::bounded(parent, &dir, spec) {
            Ok(made) => Ok(made),
            Err(error) => {
                let _ = clear(parent.version, &dir);
                Err(error)
            }
        }
    }

    fn bounded(
        parent: &Parent,
        dir: &Path,
        spec: &InstanceSpec,
    ) -> io::Result<(Self, Vec<String>)> {
        let (mut resources, mut complaints) = (Vec::new(), Vec::new());
        for resource in &parent.resources {
            match bound(parent.version, *resource, dir, spec) {
                Ok(()) => resources.push(*resource),
                Err(error) => complaints.push(format!("{resource} is not bounded: {error}")),
            }
        }
        if resources.is_empty() {
            return Err(io::Error::other(complaints.join("; ")));
        }
        let processes = File::options().write(true).open(dir.join(PROCESSES))?;
        let part = Self {
            version: parent.version,
            dir: dir.to_owned(),
            resources,
            processes,
        };
        try_entering(dir)?;
        Ok((part, complaints))
    }
}

/// Lets a child enter a group.
pub fn try_entering(dir: &Path) -> io::Result<()> {
    let processes = File::options().write(true).open(dir.join(PROCESSES))?;
    let mut entry = Entry::default();
    entry.processes[0] = Some(processes.as_raw_fd());
    entry.try_out()
}

impl Entry {
    #[allow(unsafe_code)]
    fn try_out(self) -> io::Result<()> {
        // SAFETY: the child makes only system calls that are async-signal-safe, and never returns.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
                _ => Err(Errno::EINTR.into()),
            },
            ForkResult::Child => {
                let code = self.enter().map_or_else(|e| e as i32, |()| 0);
                // SAFETY: ends this process without running what belongs to the one that it was forked from.
                unsafe { nix::libc::_exit(code) }
            }
        }
    }

    /// Moves this process, which must have one thread, into the group. Only system calls, no allocation.
    #[allow(unsafe_code)]
    pub fn enter(self) -> nix::Result<()> {
        for number in self.processes.into_iter().flatten() {
            // SAFETY: the descriptor belongs to the shim's `Group`, which outlives the child's start; it is only borrowed here.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            nix::unistd::write(file, b"0")?;
        }
        Ok(())
    }
}

fn bound(version: Version, resource: Resource, dir: &Path, spec: &InstanceSpec) -> io::Result<()> {
    for setting in settings(version, resource, spec) {
        let written = write_to(&dir.join(setting.file), &setting.value);
        if setting.needed {
            written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", setting.file)))?;
        }
    }
    Ok(())
}

/// Removes groups that no instance has any more: of those whose names begin with `prefix`, all for which `lives` is false.
pub fn sweep(parents: &[Parent], prefix: &str, lives: impl Fn(&str) -> bool) {
    for parent in parents {
        for entry in fs::read_dir(&parent.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if rest.is_some_and(|rest| !lives(rest))
                && let Err(error) = clear(parent.version, &entry.path())
            {
                let dir = entry.path();
                tracing::warn!(dir = %dir.display(), %error, "a guest's control group is left behind");
            }
        }
    }
}

/// Ends whatever is in a group and removes it; it need not be there.
pub fn clear(version: Version, dir: &Path) -> io::Result<()> {
    let since = Instant::now();
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if since.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
        // Anything that is left was started by an emulator that was taken over.
        if version == Version::V1 || write_to(&dir.join("cgroup.kill"), "1").is_err() {
            kill_each(dir);
        }
        sleep(Duration::from_millis(2));
    }
}

fn kill_each(dir: &Path) {
    let processes = fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    let numbers = processes.lines().filter_map(|line| line.parse().ok());
    // Zero stands for what this process cannot name.
    for number in numbers.filter(|number| *number > 0) {
        let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
