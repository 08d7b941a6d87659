//! What can be known of an instance whose shim does not answer: from its directory and its lock. Blocking.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Host;
use crate::clock::{boot_id, unix_ms};
use crate::record::{LAUNCH_FILE, Launch, Lock, STATE_FILE, State, read_json, write_atomically};
use crate::spec::InstanceId;
use crate::status::{InstanceState, InstanceStatus, StopCode};

/// What was found.
pub enum Read {
    /// Nothing runs.
    Dead(InstanceStatus),
    /// Something holds the lock; the state within is the last one known.
    Silent(InstanceStatus),
}

/// Reads the directory; none if it went away.
pub fn without_shim(dir: &Path, id: InstanceId) -> Option<Read> {
    if !dir.is_dir() {
        return None;
    }
    let kept = Host::kept_state(dir);
    match Lock::is_held(dir) {
        Ok(true) => return Some(Read::Silent(kept.map_or_else(|| unborn(id), |k| k.status))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // What cannot be looked at is not known to be dead.
        Err(_) => return Some(Read::Silent(kept.map_or_else(|| unborn(id), |k| k.status))),
        Ok(false) => {}
    }
    // The lock was let go after the last words were written: read them (again).
    let Some(State {
        boot_id: written_in,
        mut status,
    }) = Host::kept_state(dir)
    else {
        let mut status = unborn(id);
        let launchable = read_json::<Launch>(&dir.join(LAUNCH_FILE)).is_some();
        let (code, text) = if launchable {
            (
                StopCode::ShimDied,
                "the VM's shim ended before it started anything; start the VM again",
            )
        } else {
            (
                StopCode::Incomplete,
                "its preparation was interrupted; start the VM again or remove it",
            )
        };
        status.state = InstanceState::Stopped {
            code,
            text: text.into(),
        };
        return Some(Read::Dead(status));
    };
    if !matches!(status.state, InstanceState::Stopped { .. }) {
        let (code, text) = if written_in == boot_id() {
            (
                StopCode::ShimDied,
                "the VM's shim was killed, and the VM with it; start the VM again",
            )
        } else {
            (
                StopCode::HostRebooted,
                "the host restarted; start the VM again",
            )
        };
        status.state = InstanceState::Stopped {
            code,
            text: text.into(),
        };
        status.qemu_pid = None;
        status.shim_pid = None;
        status.stopped_ms = Some(unix_ms());
        // Kept so that the time of the discovery does not change with every look.
        let state = State {
            boot_id: boot_id(),
            status: status.clone(),
        };
        let _ =
            serde_json::to_vec(&state).map(|bytes| write_atomically(&dir.join(STATE_FILE), &bytes));
    }
    Some(Read::Dead(status))
}

fn unborn(id: InstanceId) -> InstanceStatus {
    InstanceStatus {
        id,
        state: InstanceState::Starting,
        accelerator: None,
        network: None,
        confinement: None,
        qemu_pid: None,
        shim_pid: None,
        shim_started_ms: 0,
        qemu_started_ms: None,
        console_first_ms: None,
        stopped_ms: None,
        lease_deadline_boottime_ms: None,
    }
}

/// Kills a shim that does not answer, if the process of the recorded number is still that shim. QEMU dies with it.
pub fn kill_shim(dir: &Path) {
    let Some(pid) = Host::kept_state(dir).and_then(|k| k.status.shim_pid) else {
        return;
    };
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_ours = words
        .split(|b| *b == 0)
        .any(|word| word == dir.as_os_str().as_encoded_bytes());
    if is_ours && words.split(|b| *b == 0).any(|word| word == b"vm-shim") {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}
