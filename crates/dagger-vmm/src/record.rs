//! The files of an instance's directory, shared by host and shim: what to run, what became of it, and the lock that says
//! whether anything still runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::cgroup::Parent;
use crate::qemu::aio::Aio;
use crate::spec::InstanceSpec;
use crate::status::InstanceStatus;
use crate::uids::GuestUser;

/// What to run: written by the host before the shim starts. Holds secrets (mode 0600).
pub const LAUNCH_FILE: &str = "launch.json";
/// What became of it: written by the shim at every change.
pub const STATE_FILE: &str = "state.json";
/// Locked by the shim and inherited by QEMU: free means that neither lives.
pub const LOCK_FILE: &str = "lock";
/// The shim's unix socket.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Newest part of the serial output.
pub const CONSOLE_FILE: &str = "console.log";
/// What the shim and QEMU complained of.
pub const LOG_FILE: &str = "shim.log";

/// What the host tells a shim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The instance.
    pub spec: InstanceSpec,
    /// QEMU.
    pub qemu: PathBuf,
    /// What connects the guest to the internet; none: nothing does.
    #[serde(default)]
    pub pasta: Option<PathBuf>,
    /// How QEMU reads and writes the disk.
    #[serde(default)]
    pub aio: Aio,
    /// Who QEMU runs as.
    #[serde(default)]
    pub user: GuestUser,
    /// The control group that QEMU is put into.
    #[serde(default)]
    pub group: GuestGroup,
    /// Where this host's verdict on KVM is kept.
    pub accel_file: PathBuf,
    /// First deadline of the watchdog, CLOCK_BOOTTIME ms.
    pub lease_deadline_boottime_ms: Option<u64>,
    /// Boot of the host to which the deadline belongs.
    pub boot_id: String,
}

/// Where a shim makes its instance's control group.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestGroup {
    /// Below these, by this name.
    Below {
        /// The groups that were given to the daemon.
        parents: Vec<Parent>,
        /// The instance's own.
        name: String,
    },
    /// Nowhere, and why.
    None(String),
}

impl Default for GuestGroup {
    fn default() -> Self {
        Self::None("it was prepared by an older program".into())
    }
}

/// What a shim leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Boot of the host in which this was written.
    pub boot_id: String,
    /// The instance.
    pub status: InstanceStatus,
}

/// Replaces a file so that a crash leaves the old or the new one, whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is durable only once the directory is.
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// Reads a JSON file; none if it is missing or was never written whole.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The lock of an instance's directory, an open-file-description lock: it lives as long as any process that inherited it.
pub struct Lock {
    file: File,
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Lock {
    /// Takes the lock if nobody has it.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        let file = open_lock(dir)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => Ok(Some(Self { file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody has it; looking does not take it.
    pub fn is_held(dir: &Path) -> io::Result<bool> {
        let file = open_lock(dir)?;
        let mut probe = whole_file(libc::F_WRLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut probe))?;
        Ok(i32::from(probe.l_type) != libc::F_UNLCK)
    }

    /// The descriptor, to be inherited.
    pub fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

fn open_lock(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_seen_without_taking() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(!Lock::is_held(dir.path()).expect("it looks"));
        let lock = Lock::take(dir.path())
            .expect("it tries")
            .expect("it is free");
        assert!(Lock::is_held(dir.path()).expect("it looks"));
        assert!(Lock::take(dir.path()).expect("it tries").is_none());
        drop(lock);
        assert!(Lock::take(dir.path()).expect("it tries").is_some());
    }

    #[test]
    fn a_half_written_file_is_no_record() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join(STATE_FILE);
        fs::write(&path, "{\"boot_id\":\"x\",").expect("it is written");
        assert!(read_json::<State>(&path).is_none());
        write_atomically(&path, b"7").expect("it is written");
        assert_eq!(read_json::<u32>(&path), Some(7));
    }
}
