//! Who QEMU is: how it becomes a user of its own, with and without the daemon being root.
//!
//! Root simply becomes that user. Anybody else makes a user namespace that holds two users, himself and the guest's, which
//! the system's own `newuidmap` and `newgidmap` (Debian package `uidmap`) let into it: they know which ids are his to give.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, fork, getegid, geteuid, getpid, setgroups, setresgid, setresuid,
};

use crate::record::Launch;
use crate::spec::Accelerator;
use crate::uids::GuestUser;

/// Who QEMU will be.
#[derive(Clone)]
pub struct User {
    own: Option<u32>,
    text: String,
    in_namespace: bool,
}

/// What makes a child that user. Small and without memory of its own: it is used between fork and exec.
#[derive(Clone, Copy)]
pub struct Become {
    own: Option<(Uid, Gid)>,
    groups: Groups,
}

#[derive(Clone, Copy)]
enum Groups {
    None,
    One(Gid),
    /// KVM's, which a namespace cannot name.
    Keep,
}

impl User {
    /// As the host chose.
    pub fn of(launch: &Launch) -> Self {
        let (own, text) = match &launch.user {
            GuestUser::Own(user) => (Some(*user), format!("as user {user}, who owns nothing")),
            GuestUser::Daemons(why) => (None, as_daemon(why)),
        };
        Self {
            own,
            text,
            in_namespace: false,
        }
    }

    /// Whether it is a user of its own, and that in words.
    pub fn describe(&self) -> (bool, String) {
        (self.own.is_some(), self.text.clone())
    }

    /// Without root: moves this process, which must have one thread, into a user namespace in which it is itself and may
    /// do everything. Where the guest's user cannot be had, there is only this user in it. Once is enough.
    pub fn enter_namespace(&mut self) -> io::Result<()> {
        if self.in_namespace || geteuid().is_root() {
            return Ok(());
        }
        let (user, group) = (geteuid(), getegid());
        let mapper = self
            .own
            .map(|own| Mapper::fork(user, group, own))
            .transpose()?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        self.in_namespace = true;
        if let Some(mapper) = mapper {
            match mapper.finish() {
                Ok(()) => return Ok(()),
                Err(error) => self.give_up(&error.to_string()),
            }
        }
        map_alone(user, group)
    }

    /// Sees by trying whether QEMU can be its own user and use the accelerator; if not, it will be the daemon's. Containers may
    /// hold too few users or rights, and `/dev/kvm` may be open to some only.
    pub fn try_out(&mut self, accelerator: Accelerator) -> io::Result<()> {
        let Some(own) = self.own else {
            return Ok(());
        };
        if let Err(errno) = self.becoming(accelerator).trial(accelerator)? {
            self.give_up(&match accelerator {
                Accelerator::Tcg => format!("becoming user {own} fails: {}", errno.desc()),
                Accelerator::Kvm => format!("user {own} cannot use /dev/kvm: {}", errno.desc()),
            });
        }
        Ok(())
    }

    /// Its own user cannot be had.
    pub fn give_up(&mut self, why: &str) {
        self.own = None;
        self.text = as_daemon(why);
    }

    /// How a child becomes it.
    pub fn becoming(&self, accelerator: Accelerator) -> Become {
        let own = self.own.map(|own| (Uid::from_raw(own), Gid::from_raw(own)));
        let groups = match accelerator {
            Accelerator::Tcg => Groups::None,
            Accelerator::Kvm if self.in_namespace => Groups::Keep,
            Accelerator::Kvm => fs::metadata("/dev/kvm")
                .map_or(Groups::None, |m| Groups::One(Gid::from_raw(m.gid()))),
        };
        Become { own, groups }
    }
}

impl Become {
    /// Whether it is a user of its own.
    pub fn is_own(self) -> bool {
        self.own.is_some()
    }

    /// Lets a child become it, and open what the accelerator needs.
    #[allow(unsafe_code)]
    fn trial(self, accelerator: Accelerator) -> io::Result<nix::Result<()>> {
        // SAFETY: the child makes only system calls that are async-signal-safe, and never returns.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                WaitStatus::Exited(_, code) => Err(Errno::from_raw(code)),
                _ => Err(Errno::EINTR),
            }),
            ForkResult::Child => {
                let kvm = || match accelerator {
                    Accelerator::Kvm => open("/dev/kvm", OFlag::O_RDWR, Mode::empty()).map(drop),
                    Accelerator::Tcg => Ok(()),
                };
                let code = self
                    .now()
                    .and_then(|()| kvm())
                    .map_or_else(|e| e as i32, |()| 0);
                // SAFETY: ends this process without running what belongs to the shim.
                unsafe { nix::libc::_exit(code) }
            }
        }
    }

    /// Only system calls, no allocation. What the kernel clears at this moment (the signal at the parent's death) is to be
    /// asked for afterwards.
    pub fn now(self) -> nix::Result<()> {
        let Some((user, group)) = self.own else {
            return Ok(());
        };
        match self.groups {
            Groups::None => setgroups(&[])?,
            Groups::One(group) => setgroups(&[group])?,
            Groups::Keep => {}
        }
        setresgid(group, group, group)?;
        setresuid(user, user, user)
    }
}

fn as_daemon(why: &str) -> String {
    format!("as the daemon's user: {why}")
}

/// A process that stays outside, where this user may still give ids away, until the namespace is there.
struct Mapper {
    process: Pid,
    tell: PipeWriter,
}

impl Mapper {
    #[allow(unsafe_code)]
    fn fork(user: Uid, group: Gid, own: u32) -> io::Result<Self> {
        let (told, tell) = io::pipe()?;
        let shim = getpid();
        // SAFETY: the shim has one thread, so the child's memory is consistent and it may allocate; it never returns.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self {
                process: child,
                tell,
            }),
            ForkResult::Child => {
                // The child's copy would keep it from seeing that the shim is gone.
                let _ = nix::unistd::close(tell.as_raw_fd());
                let code = map(told, shim, user, group, own).map_or(1, |()| 0);
                // SAFETY: ends this process without running what belongs to the shim.
                unsafe { nix::libc::_exit(code) }
            }
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.tell.write_all(b"go")?;
        match waitpid(self.process, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(io::Error::other(
                "newuidmap and newgidmap (Debian package uidmap) did not give it one; the VM's log says why",
            )),
        }
    }
}

fn map(mut told: PipeReader, shim: Pid, user: Uid, group: Gid, own: u32) -> io::Result<()> {
    told.read_exact(&mut [0; 2])?;
    let give = |program: &str, this: u32| {
        let (this, own) = (this.to_string(), own.to_string());
        let status = Command::new(program)
            .arg(shim.to_string())
            .args([&this, &this, "1", &own, &own, "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("{program}: {status}")))
        }
    };
    give("newgidmap", group.as_raw())?;
    give("newuidmap", user.as_raw())
}

/// A namespace with this user alone, but for what an attempt before has written already.
fn map_alone(user: Uid, group: Gid) -> io::Result<()> {
    if fs::read_to_string("/proc/self/gid_map")?.is_empty() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    if fs::read_to_string("/proc/self/uid_map")?.is_empty() {
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    }
    Ok(())
}
