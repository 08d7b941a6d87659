//! Control groups: what holds an emulator to what its guest was given, where the host has them.
//!
//! A guest's group is made only below one that was given to the daemon: by systemd (`Delegate=`), or by the operator who
//! names it. Where that is, `found.rs` says; which bounds follow from a specification, `limits.rs` (pure); one guest's group is in
//! `group.rs`. A bound is claimed only where the kernel took it.

mod found;
mod group;
mod limits;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use found::find;
pub use group::{Entry, Group, sweep};
pub use limits::EMULATOR_THREADS;

/// What a group bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Memory, with what the kernel holds for it.
    Memory,
    /// Processor time.
    Cpu,
    /// Processes and threads.
    Pids,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name of its controller.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A hierarchy for each controller, or for some together.
    V1,
    /// One hierarchy for all.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// A directory below which guests' groups are made, and what it can bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Which interface.
    pub version: Version,
    /// The directory.
    pub dir: PathBuf,
    /// What its groups can bound.
    pub resources: Vec<Resource>,
}

/// Where guests' groups are made; or why there are none, for people.
pub type Parents = Result<Vec<Parent>, String>;

/// What bounds can be had, in words.
pub fn describe(parents: &[Parent]) -> String {
    let one = |parent: &Parent| {
        let names: Vec<_> = parent.resources.iter().map(|r| r.as_str()).collect();
        let (what, dir) = (names.join(", "), parent.dir.display());
        format!("{what} (cgroup {}, {dir})", parent.version)
    };
    parents.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What the names of groups of instances below this directory begin with: daemons may share a parent.
pub fn prefix(instances: &Path) -> String {
    let hash = blake3::derive_key(
        "dagger guest cgroup v1",
        instances.as_os_str().as_encoded_bytes(),
    );
    format!("guest-{}-", hex::encode(&hash[..8]))
}

/// Writes to a file that is there: the kernel makes a group's files.
fn write_to(path: &Path, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(value.as_bytes())
}
