//! How QEMU reads and writes a disk's file: `io_uring` where program and kernel have it, for it gives a guest twice the synced writes
//! (docs/performance.md); else threads. Past the host's page cache nothing is gained, and reading loses.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// No QEMU has this device. That it is what QEMU complains of says that it had nothing against what came before.
const NO_DEVICE: &str = "no-such-device";

/// A way to read and write a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aio {
    /// Threads that wait.
    #[default]
    Threads,
    /// The kernel's rings.
    IoUring,
}

impl Aio {
    /// QEMU's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::IoUring => "io_uring",
        }
    }

    /// The best that this QEMU can use on this host: it is given a file to open that way, and a device to stumble over.
    pub async fn best(qemu: &Path) -> Self {
        let node = json!({
            "node-name": "trial", "driver": "file", "read-only": true,
            "filename": qemu.to_string_lossy(), "aio": Self::IoUring.as_str(),
        });
        let output = Command::new(qemu)
            .args(["-machine", "none", "-display", "none", "-nodefaults"])
            .args(["-no-user-config", "-blockdev", &node.to_string()])
            .args(["-device", NO_DEVICE])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match timeout(PATIENCE, output).await {
            Ok(Ok(output)) if String::from_utf8_lossy(&output.stderr).contains(NO_DEVICE) => {
                Self::IoUring
            }
            _ => Self::Threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_qemu_that_knows_no_rings_or_says_nothing_gets_threads() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, script, wanted) in [
            (
                "without",
                "echo \"Parameter 'aio' does not accept value 'io_uring'\" >&2; exit 1",
                Aio::Threads,
            ),
            ("silent", "exec sleep 1000", Aio::Threads),
            (
                "with",
                "echo \"'no-such-device' is not a valid device model name\" >&2; exit 1",
                Aio::IoUring,
            ),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it is written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("it may be run");
            assert_eq!(Aio::best(&path).await, wanted, "{name}");
        }
        assert_eq!(Aio::best(Path::new("/nonexistent")).await, Aio::Threads);
    }
}
