//! The shim: one small process per instance that owns QEMU, its exit, its console and its lease.
//!
//! Started by the host, it lives until QEMU has ended; the daemon may come and go. One thread, one `poll` loop
//! (`watch.rs`), no runtime. What it decides is in `guard.rs`; as what QEMU is started, in `start.rs`, and how, in `process.rs`; the
//! conversation with it, in `running.rs`; who it is, in `user.rs`, and what it is given, in `files.rs`; the host's connections, in `connections.rs`; the
//! guest's way out, in `egress.rs`.

mod connections;
mod console;
mod egress;
mod files;
mod guard;
mod process;
mod routes;
mod running;
mod start;
mod user;
mod watch;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::record::{LAUNCH_FILE, Launch, Lock, read_json};
use egress::Egress;
use user::User;

/// How long another holder of the lock (a host that prepares) is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Entry of `dagger vm-shim --dir DIR`. Runs until QEMU has ended. Starts no runtime and no thread: call it first.
///
/// Writes `ready` to standard output once the instance is in its care, and complaints to standard error.
pub fn shim_main(dir: &Path) -> ExitCode {
    match serve(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-shim {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn serve(dir: &Path) -> io::Result<()> {
    // Paths to sockets are short this way, however deep the data directory lies.
    std::env::set_current_dir(dir)?;
    // A session of its own: neither the daemon's terminal nor its process group reaches it. Fails only if it leads one.
    let _ = nix::unistd::setsid();
    let lock = take_lock()?;
    let launch: Launch = read_json(Path::new(LAUNCH_FILE))
        .ok_or_else(|| io::Error::other("no launch file; start the VM again"))?;
    // Before there is anything that another namespace, or a fork, would have to share.
    let mut user = User::of(&launch);
    let egress = enter(&launch, &mut user);
    if let Err(error) = user.enter_namespace() {
        user.give_up(&format!("this host forbids user namespaces: {error}"));
    }
    let mut watch = watch::Watch::new(launch, lock, egress, user)?;
    watch.begin();
    say_ready();
    watch.run()
}

/// The guest's way out, or why there is none.
fn enter(launch: &Launch, user: &mut User) -> Result<Egress, String> {
    let pasta = launch
        .pasta
        .as_ref()
        .ok_or("this host has no `pasta` (Debian package passt)")?;
    Egress::enter(pasta, user).map_err(|error| format!("its network could not be made: {error}"))
}

fn take_lock() -> io::Result<Lock> {
    let since = Instant::now();
    loop {
        if let Some(lock) = Lock::take(Path::new("."))? {
            return Ok(lock);
        }
        if since.elapsed() > LOCK_PATIENCE {
            return Err(io::Error::other("another shim has this instance"));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Tells the host, then lets go of its pipe.
fn say_ready() {
    let mut out = io::stdout();
    let _ = out.write_all(b"ready\n");
    let _ = out.flush();
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
