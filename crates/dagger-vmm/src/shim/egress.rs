//! The guest's way out: a network namespace of the shim's own, and `pasta` as the only thing that connects it.
//!
//! QEMU's user network opens its sockets in that namespace, where the routes of `routes.rs` refuse what a guest must not
//! reach: there is nothing of the host in it. `pasta` (Debian package `passt`) carries the rest out through ordinary
//! sockets, without privileges. Where namespaces or `pasta` are missing the guest stays without a network but for the
//! ports that the shim connects to.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, geteuid, getpid};

use super::routes::{PROHIBITED, Routes};
use super::user::User;

/// Name of the namespace's one interface.
const INTERFACE: &str = "egress";
/// Addresses of the link between namespace and `pasta`: for documentation (RFC 5737), so that they shadow nobody's.
const OWN_ADDRESS: &str = "192.0.2.2";
const GATEWAY: &str = "192.0.2.1";
const LINK_BITS: &str = "30";
/// How long `pasta` may take to connect the namespace.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether `pasta` still lives.
const ATTEND_MS: u16 = 5_000;

/// A namespace that is connected. Its attendant ends `pasta` when the shim is gone, whatever ended the shim.
pub struct Egress {
    attendant: Pid,
    /// Held open: its end is how the attendant learns of the shim's.
    _tie: io::PipeWriter,
}

impl Egress {
    /// Moves this process, which must have one thread, into a namespace and connects it. On failure the process may be
    /// in a namespace that is not connected; its loopback works.
    pub fn enter(pasta: &Path, user: &mut User) -> io::Result<Self> {
        let unprivileged = !geteuid().is_root();
        // Read before the namespace hides them. Addresses that the host gets later are not known here.
        let own = host_addresses(&fs::read_to_string("/proc/self/net/fib_trie")?);
        let (told, mut tie) = io::pipe()?;
        let attendant = attendant(pasta, arguments(getpid(), unprivileged), told, &tie)?;
        let mut this = Self {
            attendant,
            _tie: tie.try_clone()?,
        };
        user.enter_namespace()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let routes = Routes::open()?;
        routes.loopback_up()?;
        for (network, bits) in PROHIBITED
            .into_iter()
            .chain(own.into_iter().map(|a| (a, 32)))
        {
            routes.prohibit(network, bits)?;
        }
        tie.write_all(b"go")?;
        let since = Instant::now();
        while !connected() {
            if this.ended() {
                return Err(io::Error::other("pasta did not start"));
            }
            if since.elapsed() > PATIENCE {
                return Err(io::Error::other("pasta did not connect the namespace"));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(this)
    }

    /// Whether `pasta` is gone, and with it the guest's way out.
    pub fn ended(&mut self) -> bool {
        !matches!(
            waitpid(self.attendant, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        )
    }
}

/// IPv4 addresses of the host's network: what its kernel takes for its own. A line names an address, the next its kind.
pub(super) fn host_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let lines = fib_trie.lines().zip(fib_trie.lines().skip(1));
    let own = lines.filter(|(_, kind)| kind.trim() == "/32 host LOCAL");
    own.filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .collect()
}

fn arguments(shim: Pid, unprivileged: bool) -> Vec<OsString> {
    let mut out: Vec<OsString> = [
        "--foreground",
        "--quiet",
        "--config-net",
        "--no-map-gw",
        "--ipv4-only",
        "--address",
        OWN_ADDRESS,
        "--netmask",
        LINK_BITS,
        "--gateway",
        GATEWAY,
        "--ns-ifname",
        INTERFACE,
        "--tcp-ports",
        "none",
        "--udp-ports",
        "none",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ]
    .map(OsString::from)
    .into();
    out.extend(["--netns".into(), "/proc/self/fd/0".into()]);
    if unprivileged {
        out.extend(["--userns".into(), format!("/proc/{shim}/ns/user").into()]);
    } else {
        // As root it would become `nobody`, who may not enter the shim's namespace.
        out.extend(["--runas".into(), "0".into()]);
    }
    out
}

/// Forks a process that stays in the host's namespace, waits for a word, runs `pasta`, and ends it with the shim.
#[allow(unsafe_code)]
fn attendant(
    pasta: &Path,
    arguments: Vec<OsString>,
    told: PipeReader,
    tie: &io::PipeWriter,
) -> io::Result<Pid> {
    let theirs = tie.as_fd();
    // SAFETY: the shim has one thread, so the child's memory is consistent and it may allocate; it never returns.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // The child's copy of the tie would keep it from ever seeing the end of it.
            let _ = nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&theirs));
            let code = attend(pasta, &arguments, told).map_or(1, |()| 0);
            // SAFETY: ends this process without running what belongs to the shim.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

fn attend(pasta: &Path, arguments: &[OsString], mut told: PipeReader) -> io::Result<()> {
    let mut word = [0; 2];
    told.read_exact(&mut word)?;
    // Handed over open: `pasta` gives up the rights that it would take to look into the shim's process.
    let namespace = fs::File::open(format!("/proc/{}/ns/net", nix::unistd::getppid()))?;
    let mut child = Command::new(pasta)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(namespace))
        .stdout(Stdio::null())
        // It complains of what guests do: an unbounded log is not theirs to fill.
        .stderr(Stdio::null())
        .spawn()?;
    // Nothing of the shim's is kept open here, least of all its lock and its host's pipe.
    if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
    loop {
        let mut fds = [PollFd::new(told.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, PollTimeout::from(ATTEND_MS));
        if ended.is_ok_and(|ready| ready > 0) {
            let _ = child.kill();
            child.wait()?;
            return Ok(());
        }
        if child.try_wait()?.is_some() {
            return Ok(());
        }
    }
}

/// Whether the interface has its default route.
fn connected() -> bool {
    let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    routes.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(INTERFACE) && words.next() == Some("00000000")
    })
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
