//! The shim's loop: waits for QEMU, the host, signals and the clock, and carries out what `guard.rs` decides.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::Value;

use super::connections::{Connections, Input, Token};
use super::console::ConsoleRing;
use super::egress::Egress;
use super::guard::{Action, Ending, Guard, judge};
use super::process;
use super::running::{Running, Waiting};
use super::user::User;
use crate::cgroup::Group;
use crate::clock::{boot_id, boottime_ms, unix_ms};
use crate::control::{Request, Response};
use crate::qemu::accel;
use crate::record::{
    CONSOLE_FILE, CONTROL_SOCKET, Launch, Lock, STATE_FILE, State, write_atomically,
};
use crate::status::{InstanceState, InstanceStatus, Network, StopCode, StopMode};

/// Most bytes of QEMU's complaints that are kept.
const COMPLAINTS_BYTES_MAX: usize = 4096;
/// From SIGTERM (the host goes down) to a hard stop.
const SIGTERM_GRACE_MS: u64 = 10_000;

/// The shim's whole state.
pub struct Watch {
    pub(super) launch: Launch,
    pub(super) lock: Lock,
    pub(super) guard: Guard,
    pub(super) status: InstanceStatus,
    pub(super) connections: Connections,
    ring: ConsoleRing,
    pub(super) egress: Option<Egress>,
    pub(super) user: User,
    /// What holds QEMU, while it runs.
    pub(super) group: Option<Group>,
    pub(super) running: Option<Running>,
    /// Those who wait for the end.
    mourners: Vec<Token>,
    signals: SignalFd,
    timer: TimerFd,
}

#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Timer,
    Qmp,
    Console,
    Stderr,
    Connection(Token),
}

impl Watch {
    /// Takes over an instance whose lock is held; listens, starts nothing.
    pub fn new(
        launch: Launch,
        lock: Lock,
        egress: Result<Egress, String>,
        user: User,
    ) -> io::Result<Self> {
        let network = describe(&egress);
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
        )?;
        match fs::remove_file(CONTROL_SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let connections = Connections::bind(CONTROL_SOCKET)?;
        // A deadline of an earlier boot means nothing on this one's clock: its lease is over.
        let stale = launch.boot_id != boot_id();
        let deadline = launch
            .lease_deadline_boottime_ms
            .map(|deadline| if stale { 0 } else { deadline });
        let status = InstanceStatus {
            id: launch.spec.id,
            state: InstanceState::Starting,
            accelerator: None,
            network: Some(network),
            confinement: None,
            qemu_pid: None,
            shim_pid: Some(std::process::id()),
            shim_started_ms: unix_ms(),
            qemu_started_ms: None,
            console_first_ms: None,
            stopped_ms: None,
            lease_deadline_boottime_ms: deadline,
        };
        let ring = ConsoleRing::open(Path::new(CONSOLE_FILE))?;
        let guard = Guard::new(deadline);
        Ok(Self {
            launch,
            lock,
            guard,
            status,
            connections,
            ring,
            egress: egress.ok(),
            user,
            group: None,
            running: None,
            mourners: Vec::new(),
            signals,
            timer,
        })
    }

    /// Serves until QEMU has ended and its end is written down.
    pub fn run(&mut self) -> io::Result<()> {
        while !matches!(self.status.state, InstanceState::Stopped { .. }) {
            self.act();
            if matches!(self.status.state, InstanceState::Stopped { .. }) {
                break;
            }
            self.set_timer()?;
            for (source, readable) in self.wait()? {
                self.handle(source, readable);
            }
            self.reap();
        }
        for token in std::mem::take(&mut self.mourners) {
            self.connections.reply(token, &Response::Done);
        }
        let _ = fs::remove_file(CONTROL_SOCKET);
        Ok(())
    }

    fn set_timer(&self) -> io::Result<()> {
        match self.guard.next_deadline() {
            Some(at) => {
                let at = TimeSpec::from_duration(Duration::from_millis(
                    at.clamp(1, i64::MAX as u64 / 1000),
                ));
                self.timer.set(
                    Expiration::OneShot(at),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )?;
            }
            None => self.timer.unset()?,
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<(Source, bool)>> {
        let mut sources = vec![Source::Listener, Source::Signals, Source::Timer];
        let input = PollFlags::POLLIN;
        let mut fds = vec![
            PollFd::new(self.connections.listener().as_fd(), input),
            PollFd::new(self.signals.as_fd(), input),
            PollFd::new(self.timer.as_fd(), input),
        ];
        if let Some(running) = &self.running {
            if !running.qmp_closed {
                sources.push(Source::Qmp);
                fds.push(PollFd::new(running.process.qmp.as_fd(), input));
            }
            if !running.console_closed {
                sources.push(Source::Console);
                fds.push(PollFd::new(running.process.console.as_fd(), input));
            }
            if !running.stderr_closed {
                sources.push(Source::Stderr);
                fds.push(PollFd::new(running.process.stderr.as_fd(), input));
            }
        }
        for (token, stream, wants_to_write) in self.connections.sockets() {
            sources.push(Source::Connection(token));
            let flags = if wants_to_write {
                input | PollFlags::POLLOUT
            } else {
                input
            };
            fds.push(PollFd::new(stream.as_fd(), flags));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            result => result?,
        };
        let events = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let ready = sources
            .into_iter()
            .zip(events)
            .filter(|(_, events)| !events.is_empty());
        let not_only_writable = |events: PollFlags| events != PollFlags::POLLOUT;
        Ok(ready
            .map(|(source, events)| (source, not_only_writable(events)))
            .collect())
    }

    fn handle(&mut self, source: Source, readable: bool) {
        match source {
            Source::Listener => self.connections.accept(),
            Source::Signals => self.read_signals(),
            Source::Timer => {
                let _ = self.timer.wait();
            }
            Source::Qmp => self.read_qmp(),
            Source::Console => self.read_console(),
            Source::Stderr => self.read_stderr(),
            Source::Connection(token) => {
                self.connections.flush(token);
                if readable {
                    for input in self.connections.read(token) {
                        match input {
                            Input::Request(request) => self.serve(token, request),
                            Input::Keys(bytes) => self.type_in(&bytes),
                        }
                    }
                }
            }
        }
    }

    fn serve(&mut self, token: Token, request: Request) {
        let now = boottime_ms();
        match request {
            Request::Status => {
                let status = self.current();
                self.connections
                    .reply(token, &Response::Status(Box::new(status)));
            }
            Request::Renew {
                deadline_boottime_ms,
            } => {
                self.guard.renew(deadline_boottime_ms);
                self.connections.reply(token, &Response::Done);
            }
            Request::Stop(mode) => {
                self.guard.stop(now, mode);
                match mode {
                    StopMode::Graceful { .. } => self.connections.reply(token, &Response::Done),
                    StopMode::Kill => self.mourners.push(token),
                }
            }
            Request::Dial { guest_port } => {
                let waiting = Waiting::Dial {
                    token,
                    guest_port,
                    asked_to_add: false,
                };
                if !self.ask_human_monitor("info usernet", waiting) {
                    self.connections.reply(
                        token,
                        &Response::Error {
                            text: "QEMU does not answer".into(),
                        },
                    );
                }
            }
            Request::Taken { guest_port } => {
                let waiting = Waiting::Taken { token, guest_port };
                if !self.ask_human_monitor("info usernet", waiting) {
                    let text = "QEMU does not answer".into();
                    self.connections.reply(token, &Response::Error { text });
                }
            }
            Request::Console => self.connections.attach_console(token),
        }
    }

    /// The status as it is now.
    fn current(&self) -> InstanceStatus {
        let mut status = self.status.clone();
        status.lease_deadline_boottime_ms = self.guard.lease_deadline();
        if let Some(running) = &self.running {
            status.state = match running.silent_since_ms {
                Some(since_ms) => InstanceState::Unknown { since_ms },
                None if running.negotiated && !self.guard.on_trial() => InstanceState::Up,
                None => InstanceState::Starting,
            };
        }
        status
    }

    pub(super) fn keep_status(&self) {
        let state = State {
            boot_id: boot_id(),
            status: self.current(),
        };
        if let Err(error) = serde_json::to_vec(&state)
            .map_err(Into::into)
            .and_then(|b| write_atomically(Path::new(STATE_FILE), &b))
        {
            eprintln!("vm-shim: the state could not be written: {error}");
        }
    }

    fn act(&mut self) {
        for action in self.guard.due(boottime_ms()) {
            match action {
                Action::PressPower => {
                    let _ = self.send("system_powerdown", Value::Null, Waiting::Nobody);
                }
                Action::Quit => {
                    if !self.send("quit", Value::Null, Waiting::Nobody) {
                        self.kill();
                    }
                }
                Action::Kill => self.kill(),
                Action::TrialOver => self.trial_failed("no sign of life on its console"),
                Action::Ping => self.ping(),
            }
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.process.child.kill();
        }
    }

    fn read_console(&mut self) {
        let mut buffer = [0; 8192];
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(length) = running.process.console.read(&mut buffer) else {
            return;
        };
        if length == 0 {
            running.console_closed = true;
            return;
        }
        let accelerator = running.accelerator;
        if self.guard.on_trial() {
            self.guard.end_trial();
            let reason = "a guest showed life under KVM since this host booted";
            accel::remember(&self.launch.accel_file, true, reason);
            self.status.accelerator = Some((accelerator, reason.into()));
        }
        if self.status.console_first_ms.is_none() {
            self.status.console_first_ms = Some(unix_ms());
            self.keep_status();
        }
        self.ring.write(&buffer[..length]);
        self.connections.broadcast_console(&buffer[..length]);
    }

    /// Keys for the guest; what its serial line does not take is lost, as on a real one.
    fn type_in(&mut self, bytes: &[u8]) {
        if let Some(running) = &mut self.running {
            let _ = running.process.console.write(bytes);
        }
    }

    fn read_stderr(&mut self) {
        let mut buffer = [0; 4096];
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(length) = running.process.stderr.read(&mut buffer) else {
            return;
        };
        running.stderr_closed |= length == 0;
        running.complaints.extend_from_slice(&buffer[..length]);
        let excess = running
            .complaints
            .len()
            .saturating_sub(COMPLAINTS_BYTES_MAX);
        running.complaints.drain(..excess);
    }

    /// Notices that the guest has lost its way out. Its connections are gone with it; the guest goes on.
    fn watch_egress(&mut self) {
        if self.egress.as_mut().is_some_and(Egress::ended) {
            self.egress = None;
            self.status.network = Some(Network {
                internet: false,
                text: "pasta ended; the next start of the VM starts it again".into(),
            });
            self.keep_status();
        }
    }

    fn read_signals(&mut self) {
        self.watch_egress();
        while let Ok(Some(info)) = self.signals.read_signal() {
            if matches!(
                Signal::try_from(info.ssi_signo as i32),
                Ok(Signal::SIGTERM | Signal::SIGINT)
            ) {
                self.guard.stop(
                    boottime_ms(),
                    StopMode::Graceful {
                        deadline_ms: SIGTERM_GRACE_MS,
                    },
                );
            }
        }
    }

    /// If QEMU has ended: reads its last words, then either tries another accelerator or writes down the end.
    fn reap(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(Some(exit)) = running.process.child.try_wait() else {
            return;
        };
        // What it still had to say lies in the sockets' buffers, which are bounded.
        for _ in 0..64 {
            self.read_qmp();
            self.read_console();
            self.read_stderr();
        }
        let Some(running) = self.running.take() else {
            return;
        };
        let complaints = String::from_utf8_lossy(&running.complaints)
            .trim()
            .to_owned();
        if !complaints.is_empty() {
            eprintln!("{complaints}");
        }
        self.status.qemu_pid = None;
        if let Some(reason) = running
            .trial_failed
            .filter(|_| self.guard.stopping().is_none())
        {
            self.fall_back(reason);
        } else if self.guard.on_trial() && self.guard.stopping().is_none() {
            let complaint = complaints.lines().next().unwrap_or_default();
            self.fall_back(&format!(
                "QEMU was {}: {complaint}",
                process::describe(exit)
            ));
        } else {
            let (code, text) = judge(&self.ending(&running, exit, complaints));
            self.end(code, text);
        }
    }

    fn ending(&self, running: &Running, exit: ExitStatus, complaints: String) -> Ending {
        Ending {
            stopping: self.guard.stopping(),
            panicked: running.panicked,
            shutdown: running.shutdown.clone(),
            sigkill: exit.signal() == Some(Signal::SIGKILL as i32),
            success: exit.success(),
            out_of_memory: match self.group.as_ref().and_then(Group::oom_kills) {
                Some(own) => own > 0,
                None => process::oom_kills() > running.oom_kills,
            },
            memory_mib: self.group.as_ref().and_then(Group::memory_mib),
            exit: process::describe(exit),
            complaints,
        }
    }

    /// Writes down the end. Durable before anybody is told.
    pub(super) fn end(&mut self, code: StopCode, text: String) {
        self.running = None;
        self.status.qemu_pid = None;
        self.status.shim_pid = None;
        self.status.stopped_ms = Some(unix_ms());
        self.status.state = InstanceState::Stopped { code, text };
        self.keep_status();
        // Whatever else is still in it ends with it.
        self.group = None;
    }
}

fn describe(egress: &Result<Egress, String>) -> Network {
    match egress {
        Ok(_) => Network {
            internet: true,
            text: "through a namespace of its own".into(),
        },
        Err(why) => Network {
            internet: false,
            text: format!("reaches nothing: {why}"),
        },
    }
}
