//! What a shim decides, as pure functions of time: when to stop a guest and how hard, and how to read its end.
//!
//! All times are CLOCK_BOOTTIME in ms and come in as arguments.

use crate::status::{StopCode, StopMode};

/// A guest on KVM that has not written to its console for this long is taken for dead.
pub const TRIAL_MS: u64 = 5_000;
/// The power button is pressed again this often: a guest that still boots does not hear the first time.
const PRESS_AGAIN_MS: u64 = 2_000;
/// From asking QEMU to quit to killing it.
const QUIT_MS: u64 = 1_000;
/// QEMU is asked this often whether it still answers.
const PING_MS: u64 = 10_000;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Press the guest's power button.
    PressPower,
    /// Ask QEMU to quit.
    Quit,
    /// Kill QEMU.
    Kill,
    /// The accelerator on trial showed no sign of life.
    TrialOver,
    /// Ask QEMU whether it is there.
    Ping,
}

#[derive(Clone, Copy)]
struct Graceful {
    press_at: u64,
    hard_at: u64,
}

/// Deadlines of one instance.
#[derive(Default)]
pub struct Guard {
    lease_deadline: Option<u64>,
    /// Why it is being stopped, once it is.
    reason: Option<StopCode>,
    graceful: Option<Graceful>,
    kill_at: Option<u64>,
    trial_ends: Option<u64>,
    ping_at: Option<u64>,
}

impl Guard {
    /// A guard with the lease that the host handed over.
    pub fn new(lease_deadline: Option<u64>) -> Self {
        Self {
            lease_deadline,
            ..Self::default()
        }
    }

    /// The watchdog's deadline.
    pub fn lease_deadline(&self) -> Option<u64> {
        self.lease_deadline
    }

    /// Moves the lease on, never back: messages may arrive late.
    pub fn renew(&mut self, deadline: u64) {
        self.lease_deadline = self.lease_deadline.max(Some(deadline));
    }

    /// Why the instance is being stopped, if it is.
    pub fn stopping(&self) -> Option<StopCode> {
        self.reason
    }

    /// QEMU was started; on trial, it must show life within [`TRIAL_MS`].
    pub fn started(&mut self, now: u64, on_trial: bool) {
        self.trial_ends = on_trial.then_some(now + TRIAL_MS);
        if self.reason.is_none() {
            // What was due to the QEMU before this one (its accelerator failed) is not due to this one.
            self.kill_at = None;
        }
        self.ping_at = Some(now + PING_MS);
    }

    /// Whether an accelerator is on trial.
    pub fn on_trial(&self) -> bool {
        self.trial_ends.is_some()
    }

    /// The trial ended, one way or the other.
    pub fn end_trial(&mut self) {
        self.trial_ends = None;
    }

    /// Somebody wants it stopped. A harder wish overrides a softer one, never the other way round.
    pub fn stop(&mut self, now: u64, mode: StopMode) {
        match mode {
            StopMode::Graceful { deadline_ms } => {
                let hard_at = now.saturating_add(deadline_ms);
                match &mut self.graceful {
                    Some(graceful) => graceful.hard_at = graceful.hard_at.min(hard_at),
                    None if self.reason.is_none() => {
                        self.reason = Some(StopCode::Stopped);
                        self.graceful = Some(Graceful {
                            press_at: now,
                            hard_at,
                        });
                    }
                    None => {}
                }
            }
            StopMode::Kill => {
                if matches!(self.reason, None | Some(StopCode::Stopped)) {
                    self.harden(now, StopCode::Killed);
                }
            }
        }
    }

    /// It cannot go on: stops it hard for this reason, unless it is being stopped already.
    pub fn fail(&mut self, now: u64, reason: StopCode) {
        if self.reason.is_none() {
            self.harden(now, reason);
        }
    }

    /// QEMU hung up its control channel: it may take a moment to end, not more.
    pub fn close(&mut self, now: u64) {
        self.kill_at = Some(
            self.kill_at
                .map_or(now + QUIT_MS, |at| at.min(now + QUIT_MS)),
        );
    }

    fn harden(&mut self, now: u64, reason: StopCode) {
        self.reason = Some(reason);
        // Asks QEMU to quit at once, by way of `due`.
        self.graceful = Some(Graceful {
            press_at: u64::MAX,
            hard_at: now,
        });
        self.trial_ends = None;
    }

    /// What is due, in order.
    pub fn due(&mut self, now: u64) -> Vec<Action> {
        let mut out = Vec::new();
        if self.lease_deadline.is_some_and(|d| d <= now)
            && self.reason != Some(StopCode::LeaseExpired)
        {
            // Another host may own this VM by now: no time for courtesy.
            *self = Self {
                lease_deadline: self.lease_deadline,
                reason: Some(StopCode::LeaseExpired),
                ..Self::default()
            };
            return vec![Action::Kill];
        }
        if let Some(graceful) = &mut self.graceful {
            if graceful.hard_at <= now {
                if self.reason == Some(StopCode::Stopped) {
                    self.reason = Some(StopCode::StopDeadline);
                }
                self.graceful = None;
                self.kill_at = Some(now + QUIT_MS);
                out.push(Action::Quit);
            } else if graceful.press_at <= now {
                graceful.press_at = now + PRESS_AGAIN_MS;
                out.push(Action::PressPower);
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            out.push(Action::Kill);
        }
        if self.trial_ends.is_some_and(|at| at <= now) {
            self.trial_ends = None;
            out.push(Action::TrialOver);
        }
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = Some(now + PING_MS);
            out.push(Action::Ping);
        }
        out
    }

    /// When to ask again.
    pub fn next_deadline(&self) -> Option<u64> {
        let lease = self
            .lease_deadline
            .filter(|_| self.reason != Some(StopCode::LeaseExpired));
        let graceful = self.graceful.map(|g| g.press_at.min(g.hard_at));
        [lease, graceful, self.kill_at, self.trial_ends, self.ping_at]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What is known of an end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Why the shim was stopping it, if it was.
    pub stopping: Option<StopCode>,
    /// The guest said that it panicked.
    pub panicked: bool,
    /// QEMU's reason of its last SHUTDOWN event.
    pub shutdown: Option<String>,
    /// QEMU was killed by SIGKILL.
    pub sigkill: bool,
    /// QEMU ended with status 0.
    pub success: bool,
    /// The kernel killed QEMU for lack of memory; where its own kills are not counted, it killed some process lately.
    pub out_of_memory: bool,
    /// Most memory that QEMU could have, if a control group bounds it.
    pub memory_mib: Option<u64>,
    /// How the process ended, in words.
    pub exit: String,
    /// QEMU's last complaints.
    pub complaints: String,
}

/// The stable code of an end, and a text that says what to do.
pub fn judge(ending: &Ending) -> (StopCode, String) {
    let Ending {
        exit, complaints, ..
    } = ending;
    let complaints = complaints.trim();
    if let Some(code) = ending.stopping {
        let text = match code {
            StopCode::LeaseExpired => {
                "the lease ran out: the ledger was not heard to renew it, so the VM was stopped for its successor"
            }
            StopCode::StopDeadline => {
                "the guest did not power off in time after its power button was pressed, and was stopped hard"
            }
            StopCode::Killed => "stopped hard on request",
            StopCode::DiskFull => {
                "the host's disk is full: free space there, then start the VM again"
            }
            _ => "stopped on request",
        };
        return (code, text.into());
    }
    if ending.panicked {
        return (
            StopCode::GuestPanic,
            "the guest's kernel panicked; read the end of its console".into(),
        );
    }
    if ending.sigkill && ending.out_of_memory {
        let text = match ending.memory_mib {
            None => "the host ran out of memory and its kernel killed the VM; run fewer or smaller VMs there".into(),
            Some(most) => format!(
                "the kernel killed the VM for lack of memory: its emulator wanted more than its bound of {most} MiB, or the host had \
                 none left; the host's kernel log says which"
            ),
        };
        return (StopCode::OutOfMemory, text);
    }
    if complaints.contains("No space left on device") {
        return (
            StopCode::DiskFull,
            format!(
                "the host's disk is full: free space there, then start the VM again ({complaints})"
            ),
        );
    }
    match ending.shutdown.as_deref() {
        Some("guest-shutdown") => {
            return (
                StopCode::GuestShutdown,
                "the guest powered itself off".into(),
            );
        }
        Some("host-signal") => {
            return (
                StopCode::QemuKilled,
                "somebody on the host ended QEMU with a signal".into(),
            );
        }
        _ => {}
    }
    if !ending.success && complaints.is_empty() {
        return (
            StopCode::QemuKilled,
            format!("QEMU was {exit} from outside; start the VM again"),
        );
    }
    (StopCode::QemuFailed, format!("QEMU {exit}: {complaints}"))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
