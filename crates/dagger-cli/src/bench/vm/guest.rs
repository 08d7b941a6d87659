//! What a host's directory and the kernel tell of one VM, read from outside: nothing is asked of what is measured.

use super::cloud::{late, not_understood};
use crate::context::now_ms;
use crate::failure::{Done, Exit, Failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// What dropbear says once it listens (and is kept from the background).
pub const LISTENING: &str = "Not backgrounding";
/// Between two looks at a file.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// How long a guest may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(600);

/// An instance of a VM on its host.
pub struct Instance {
    pub dir: PathBuf,
}

impl Instance {
    /// When QEMU was started, Unix ms.
    pub fn qemu_started_ms(&self) -> Done<u64> {
        self.status("qemu_started_ms")
    }

    /// QEMU's process.
    pub fn qemu(&self) -> Done<u32> {
        Ok(self.status("qemu_pid")? as u32)
    }

    /// The shim's process.
    pub fn shim(&self) -> Done<u32> {
        Ok(self.status("shim_pid")? as u32)
    }

    fn status(&self, field: &str) -> Done<u64> {
        let text = std::fs::read_to_string(self.dir.join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        state["status"][field]
            .as_u64()
            .ok_or_else(|| not_understood(&format!("the host keeps no {field} of a VM")))
    }

    /// Waits until the guest's ssh server listens; Unix ms. The shim writes what the guest says at once.
    pub async fn listening(&self) -> Done<u64> {
        let console = self.dir.join("console.log");
        let wait = async {
            while !std::fs::read(&console).is_ok_and(|said| says(&said, LISTENING)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            now_ms()
        };
        tokio::time::timeout(LISTENS_WITHIN, wait)
            .await
            .map_err(|_| late("a guest to listen"))
    }
}

/// Whether a guest has said something.
pub fn says(said: &[u8], wanted: &str) -> bool {
    said.windows(wanted.len())
        .any(|window| window == wanted.as_bytes())
}

/// Memory of a process, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, what is shared with others included.
    pub rss: u64,
    /// Resident, of what is shared only the process' part.
    pub pss: u64,
    /// Resident and its own alone.
    pub private: u64,
}

/// Reads `smaps_rollup`.
pub fn memory(pid: u32) -> Done<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(path, &error))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Memory {
        rss: field("Rss:"),
        pss: field("Pss:"),
        private: field("Private_Clean:") + field("Private_Dirty:"),
    })
}

/// CPU time of a process so far, ms.
pub fn cpu_ms(pid: u32) -> Done<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(path, &error))?;
    // After the name, which may hold anything, `utime` and `stime` are the 12th and 13th word.
    let words: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        words
            .get(at)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok((ticks(11) + ticks(12)) * 10)
}

/// How ssh gets to a guest.
pub enum Login {
    /// By a port of this machine.
    Port(u16),
    /// By a command that carries the connection.
    Through(String),
}

/// Runs a script in a guest as root; what it printed. What is measured does not depend on how fast this is.
pub async fn run(identity: &Path, login: &Login, script: &str) -> Done<String> {
    let mut words: Vec<OsString> = [
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-i",
    ]
    .map(OsString::from)
    .into();
    words.push(identity.into());
    words.extend(
        match login {
            Login::Port(port) => ["-p".to_owned(), port.to_string()],
            Login::Through(command) => ["-o".to_owned(), format!("ProxyCommand={command}")],
        }
        .map(OsString::from),
    );
    let output = tokio::process::Command::new("ssh")
        .args(words)
        .arg("root@127.0.0.1")
        .arg(script)
        .env_remove("DAGGER_API")
        .env_remove("DAGGER_KEY")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            Failure::file("ssh cannot be run", &error)
                .hint("install an ssh client (Debian package openssh-client)")
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(
        Exit::Failure,
        "E_BENCH",
        format!("a script in a guest failed: {said}"),
    ))
}
