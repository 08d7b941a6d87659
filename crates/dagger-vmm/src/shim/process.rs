//! QEMU as a child process: how it is started, so that it can never outlive its shim, and how its end is read.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, getppid};

use super::files::Files;
use super::user::{Become, User};
use crate::cgroup::{EMULATOR_THREADS, Entry};
use crate::qemu::args::{Handed, arguments};
use crate::record::{Launch, Lock};
use crate::spec::{Accelerator, InstanceSpec};

/// Guests give way to the daemon and the shims.
const NICENESS: i32 = 5;

/// A started QEMU and the shim's ends of its channels.
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// Control channel.
    pub qmp: UnixStream,
    /// Serial line.
    pub console: UnixStream,
    /// What it complains of.
    pub stderr: ChildStderr,
}

/// Starts QEMU in the current directory. It holds the lock too, so that a free lock proves that it is gone.
pub fn spawn(
    launch: &Launch,
    accelerator: Accelerator,
    lock: &Lock,
    internet: bool,
    user: &User,
    group: Entry,
) -> io::Result<Spawned> {
    let (qmp, qmp_theirs) = UnixStream::pair()?;
    let (console, console_theirs) = UnixStream::pair()?;
    let files = Files::open(&launch.spec)?;
    let handed = files.handed();
    let mut command = Command::new(&launch.qemu);
    command
        .args(arguments(
            &launch.spec,
            accelerator,
            internet,
            launch.aio,
            handed,
        ))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::from(OwnedFd::from(qmp_theirs)))
        .stdout(Stdio::from(OwnedFd::from(console_theirs)))
        .stderr(Stdio::piped());
    confine(
        &mut command,
        Confined {
            shim: getpid(),
            group,
            become_user: user.becoming(accelerator),
            most: Most::of(&launch.spec),
            lock: lock.raw_fd(),
            handed,
        },
    );
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().expect("it was asked for");
    qmp.set_nonblocking(true)?;
    console.set_nonblocking(true)?;
    fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Spawned {
        child,
        qmp,
        console,
        stderr,
    })
}

/// What a child needs to know to become QEMU. No memory of its own: it is used between fork and exec.
#[derive(Clone, Copy)]
struct Confined {
    shim: Pid,
    group: Entry,
    become_user: Become,
    most: Most,
    lock: RawFd,
    handed: Handed,
}

/// What an emulator may use at most, whoever is in charge of it. Wide enough that an honest one never gets there.
#[derive(Clone, Copy)]
struct Most {
    file_bytes: u64,
    memory_bytes: u64,
    threads: u64,
}

impl Most {
    fn of(spec: &InstanceSpec) -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            // Its disk, filled, with qcow2's tables (less than a thousandth), and UEFI's variables.
            file_bytes: spec.disk_mib * MIB + spec.disk_mib * 1024 + 64 * MIB,
            // Memory of its own that it can write to: the guest's, translated code, and its threads' stacks of 8 MiB.
            memory_bytes: (spec.memory_mib + 2048 + 8 * u64::from(spec.vcpus)) * MIB,
            threads: u64::from(spec.vcpus) + EMULATOR_THREADS,
        }
    }

    /// Only system calls. Threads are counted by user: where that is the daemon's, they are not bounded.
    fn set(self, own_user: bool) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_FSIZE, self.file_bytes, self.file_bytes)?;
        setrlimit(Resource::RLIMIT_DATA, self.memory_bytes, self.memory_bytes)?;
        if own_user {
            setrlimit(Resource::RLIMIT_NPROC, self.threads, self.threads)?;
        }
        Ok(())
    }
}

/// What happens in the child before it becomes QEMU.
#[allow(unsafe_code)]
fn confine(command: &mut Command, this: Confined) {
    let between_fork_and_exec = move || {
        step_back();
        // As the shim's user, for the guest's may not.
        this.group.enter()?;
        this.become_user.now()?;
        // QEMU dies with its shim, whatever ends the shim. Asked for here: becoming another user forgets it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != this.shim {
            // The shim died before the line above took hold.
            return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
        }
        prctl::set_no_new_privs()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        this.most.set(this.become_user.is_own())?;
        for number in this.handed.numbers().chain([this.lock]) {
            // SAFETY: the descriptor belongs to the shim's `Lock` or `Files`, which outlive the child's start; this copy of
            // it is the child's own and is only borrowed here.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the shim has one thread, so the child starts with consistent memory; the closure makes only system calls
    // that are async-signal-safe and does not allocate.
    unsafe {
        command.pre_exec(between_fork_and_exec);
    }
}

/// The daemon goes before guests: they are the first to be killed for lack of memory, and run when it does not.
/// Not being allowed to is no reason not to start. Only system calls, no allocation: this runs between fork and exec.
#[allow(unsafe_code)]
fn step_back() {
    if let Ok(file) = open("/proc/self/oom_score_adj", OFlag::O_WRONLY, Mode::empty()) {
        let _ = nix::unistd::write(&file, b"500");
    }
    // SAFETY: takes and touches no memory.
    let _ = unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICENESS) };
}

/// How QEMU ended, for people.
pub fn describe(exit: ExitStatus) -> String {
    match (exit.signal(), exit.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended".into(),
    }
}

/// Kernel's count of processes killed for lack of memory since boot: all that is known where QEMU's own are not counted.
pub fn oom_kills() -> u64 {
    let vmstat = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    vmstat
        .lines()
        .find_map(|l| l.strip_prefix("oom_kill "))
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}
