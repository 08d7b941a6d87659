//! What the host has to do next, from what the ledger wants, what runs here and what is remembered.
//! Pure: no clock, no I/O. Doing it is `agent`'s and `steps`' business.
//!
//! The plan is level-triggered: it is made anew from the present whenever anything changed, holds at
//! most one action per VM, and forgets nothing that a crash of the daemon could lose, because nothing
//! is kept between two plans but what [`Memory`] says.

use std::collections::{BTreeMap, BTreeSet};

use dagger_ledger::{Duty, Phase, Published};
use dagger_vmm::{InstanceId, InstanceState, InstanceStatus, StopCode, StopMode};

/// A VM that the ledger places on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredVm {
    /// Its id on the ledger.
    pub vm: u64,
    /// The lease epoch under which this machine may act.
    pub lease_epoch: u64,
    /// The lease epoch in which its disk was made; that disk is used again if it is still here.
    pub disk_epoch: u64,
    /// What the machine has to do about it.
    pub duty: Duty,
    /// Its phase, which says what was reported already.
    pub phase: Phase,
    /// Goes up with every reboot that the customer asks for.
    pub boots: u64,
    /// The guest's public ssh host key of this lease epoch as the ledger has it.
    pub host_key: Option<String>,
    /// What the ledger knows of the ports that it publishes.
    pub published: Vec<Published>,
}

impl DesiredVm {
    /// The instance that may run for it here.
    pub fn instance(&self) -> InstanceId {
        InstanceId {
            vm: self.vm,
            lease_epoch: self.lease_epoch,
        }
    }
}

/// A failure as the customer will read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// What happened and what to do.
    pub text: String,
    /// Trying again cannot help.
    pub permanent: bool,
}

/// What this host remembers of an instance across restarts of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// The public ssh host key that was made for it.
    pub host_key: Option<String>,
    /// The ledger's boot counter at its last start.
    pub boots: u64,
    /// Failed starts and crashes in a row.
    pub failures: u32,
    /// When the last of them was seen, Unix ms.
    pub failed_ms: u64,
    /// The last of them.
    pub failure: Option<Failure>,
    /// `qemu_started_ms` of the start that the ledger knows of.
    pub reported_start_ms: Option<u64>,
    /// `stopped_ms` of the last end that was dealt with: counted as a failure, or known to the ledger.
    pub settled_stop_ms: Option<u64>,
    /// What has become of the ports that it publishes; found out anew by every daemon.
    #[serde(skip)]
    pub published: Vec<Published>,
}

/// Bounds of the host's own decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a guest has to power itself off.
    pub stop_deadline_ms: u64,
    /// Failures in a row after which the VM is reported failed.
    pub failures_max: u32,
    /// Wait before the second try; doubles with each further one.
    pub backoff_ms: u64,
    /// The longest such wait.
    pub backoff_max_ms: u64,
    /// A guest that ran this long had recovered: its next crash counts as the first.
    pub stable_ms: u64,
    /// Why this machine can run nothing at all, e.g. QEMU is missing.
    pub machine_off: Option<Failure>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            stop_deadline_ms: 20_000,
            failures_max: 5,
            backoff_ms: 1_000,
            backoff_max_ms: 60_000,
            stable_ms: 600_000,
            machine_off: None,
        }
    }
}

/// One thing to do about one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the guest's ssh host key and report `accepted` with its public half.
    Accept(InstanceId),
    /// Fetch the image and start the instance; `disk_of` names an older one whose disk it takes over.
    Start {
        /// What to start.
        id: InstanceId,
        /// Whose disk it takes over.
        disk_of: Option<InstanceId>,
    },
    /// Remember that it ended by itself; `fresh` when it had run stably before.
    NoteCrash {
        /// What crashed.
        id: InstanceId,
        /// How.
        failure: Failure,
        /// Its `stopped_ms`.
        stopped_ms: Option<u64>,
        /// Whether this is the first failure of a new row.
        fresh: bool,
    },
    /// Remember that the ledger knows of its end, so that a later start begins anew.
    Settle(InstanceId, Option<u64>),
    /// Report `starting`.
    ReportStarting(InstanceId),
    /// Wait for the guest's ssh server and report `running`.
    Probe(InstanceId),
    /// Stop it and keep its disk.
    Stop(InstanceId, StopMode),
    /// Stop it hard if it runs, and release its storage.
    Remove(InstanceId),
    /// Report `stopped`.
    ReportStopped(InstanceId, Failure, Option<u64>),
    /// Report `failed`.
    ReportFailed(InstanceId, Failure),
}

impl Action {
    /// The instance it is about.
    pub fn instance(&self) -> InstanceId {
        match self {
            Action::Accept(id)
            | Action::Start { id, .. }
            | Action::NoteCrash { id, .. }
            | Action::Settle(id, _)
            | Action::ReportStarting(id)
            | Action::Probe(id)
            | Action::Stop(id, _)
            | Action::Remove(id)
            | Action::ReportStopped(id, ..)
            | Action::ReportFailed(id, _) => *id,
        }
    }

    /// Whether doing `self` still serves when the plan now asks for `wanted`.
    pub fn still_serves(&self, wanted: Option<&Action>) -> bool {
        wanted.is_some_and(|wanted| {
            std::mem::discriminant(self) == std::mem::discriminant(wanted)
                && self.instance() == wanted.instance()
        })
    }
}

/// The next action for each VM that needs one, sorted by VM.
///
/// The caller makes a plan only while this machine holds its lease: then the ledger it reads is
/// younger than the lease, so what the plan stops or removes is truly no longer this machine's.
pub fn plan(
    desired: &[DesiredVm],
    observed: &[InstanceStatus],
    memory: &BTreeMap<InstanceId, Memory>,
    policy: &Policy,
    now_ms: u64,
) -> Vec<Action> {
    let vms: BTreeSet<u64> = desired
        .iter()
        .map(|desired| desired.vm)
        .chain(observed.iter().map(|status| status.id.vm))
        .collect();
    vms.into_iter()
        .filter_map(|vm| {
            let want = desired.iter().find(|desired| desired.vm == vm);
            let here: Vec<_> = observed
                .iter()
                .filter(|status| status.id.vm == vm)
                .collect();
            leftover(want, &here).or_else(|| {
                let want = want?;
                let own = here
                    .iter()
                    .find(|status| status.id == want.instance())
                    .copied();
                let memory = memory.get(&want.instance()).cloned().unwrap_or_default();
                Subject {
                    want,
                    own,
                    here: &here,
                    memory: &memory,
                    policy,
                    now_ms,
                }
                .next()
            })
        })
        .collect()
}

/// Instances that may not be here: fenced lease epochs and VMs of other machines. They come before
/// anything else, so that a VM never starts beside an older incarnation of itself.
fn leftover(want: Option<&DesiredVm>, here: &[&InstanceStatus]) -> Option<Action> {
    here.iter().find_map(|status| {
        let Some(want) = want else {
            return Some(Action::Remove(status.id));
        };
        if status.id == want.instance() {
            return None;
        }
        // The old incarnation holds the VM's disk: it may not run, but its disk is needed.
        if status.id.lease_epoch == want.disk_epoch && want.duty != Duty::Release {
            return (!is_stopped(status)).then_some(Action::Stop(status.id, StopMode::Kill));
        }
        Some(Action::Remove(status.id))
    })
}

fn is_stopped(status: &InstanceStatus) -> bool {
    matches!(status.state, InstanceState::Stopped { .. })
}

/// One VM that the ledger places here, with everything known of it.
struct Subject<'a> {
    want: &'a DesiredVm,
    /// Its instance of the current lease epoch.
    own: Option<&'a InstanceStatus>,
    /// All its instances on this host.
    here: &'a [&'a InstanceStatus],
    memory: &'a Memory,
    policy: &'a Policy,
    now_ms: u64,
}

impl Subject<'_> {
    fn next(&self) -> Option<Action> {
        let id = self.want.instance();
        match self.want.duty {
            Duty::Accept => Some(match &self.policy.machine_off {
                Some(failure) => Action::ReportFailed(id, failure.clone()),
                None => Action::Accept(id),
            }),
            Duty::Run => self.run(),
            Duty::Stop => Some(match self.own {
                Some(status) if !is_stopped(status) => self.stop(),
                Some(status) => report_stopped(status),
                None => Action::ReportStopped(id, ended("stopped", "it was not running"), None),
            }),
            // A guest that moves may want to finish what it is doing; one that is deleted may not.
            Duty::Release => Some(match self.own {
                Some(status) if self.want.phase == Phase::Moving && !is_stopped(status) => {
                    self.stop()
                }
                Some(_) => Action::Remove(id),
                None => Action::ReportStopped(id, ended("released", "its disk is released"), None),
            }),
            Duty::Keep => self.own.and_then(|status| {
                let settled =
                    self.memory.failures == 0 && self.memory.settled_stop_ms == status.stopped_ms;
                match is_stopped(status) {
                    false => Some(self.stop()),
                    true => (!settled).then_some(Action::Settle(id, status.stopped_ms)),
                }
            }),
        }
    }

    /// The VM should run: what brings it nearer, or says what was reached.
    fn run(&self) -> Option<Action> {
        let Some(status) = self.own else {
            if self.memory.host_key.is_none() || self.memory.host_key != self.want.host_key {
                let text =
                    "this host no longer has the guest's ssh host key; the VM is placed anew";
                return Some(Action::ReportFailed(
                    self.want.instance(),
                    ended("host_key_lost", text),
                ));
            }
            return self.start();
        };
        match &status.state {
            InstanceState::Unknown { .. } => None,
            InstanceState::Starting => self.report_progress(status),
            // Before it was up, a reboot asks for nothing that is not under way.
            InstanceState::Up if self.memory.boots < self.want.boots => Some(self.stop()),
            InstanceState::Up => self.report_progress(status),
            InstanceState::Stopped { .. } if self.memory.settled_stop_ms == status.stopped_ms => {
                self.start()
            }
            InstanceState::Stopped {
                code: StopCode::GuestShutdown,
                ..
            } => Some(report_stopped(status)),
            InstanceState::Stopped { code, .. } if is_crash(*code) => Some(Action::NoteCrash {
                id: status.id,
                failure: failure_of(status),
                stopped_ms: status.stopped_ms,
                fresh: ran_stably(status, self.policy),
            }),
            InstanceState::Stopped { .. } => self.start(),
        }
    }

    /// Starts it, unless it failed too often or too recently.
    fn start(&self) -> Option<Action> {
        let id = self.want.instance();
        if let Some(failure) = self
            .memory
            .failure
            .as_ref()
            .filter(|_| self.memory.failures > 0)
        {
            if failure.permanent || self.memory.failures >= self.policy.failures_max {
                return Some(Action::ReportFailed(id, failure.clone()));
            }
            let doublings = (self.memory.failures - 1).min(16);
            let wait_ms = self
                .policy
                .backoff_ms
                .saturating_mul(1 << doublings)
                .min(self.policy.backoff_max_ms);
            if self.now_ms < self.memory.failed_ms.saturating_add(wait_ms) {
                return None;
            }
        }
        let disk_of = self
            .here
            .iter()
            .map(|status| status.id)
            .find(|other| *other != id);
        Some(Action::Start { id, disk_of })
    }

    /// What the ledger does not know yet of a start. One within the running phase (a reboot, a restart
    /// after a crash) is said too: until the guest answers again, it is not running.
    fn report_progress(&self, status: &InstanceStatus) -> Option<Action> {
        let known = self.memory.reported_start_ms == status.qemu_started_ms;
        match self.want.phase {
            Phase::Running if known && self.memory.published == self.want.published => None,
            // It answered before, so that this takes a moment; the report says what became of its ports.
            Phase::Running if known => {
                (status.state == InstanceState::Up).then_some(Action::Probe(status.id))
            }
            // An accelerator that fails its trial makes a second start, which is said before `running`.
            Phase::Accepted | Phase::Starting | Phase::Running
                if !known || self.want.phase == Phase::Accepted =>
            {
                let chosen = status.accelerator.as_ref();
                chosen.map(|_| Action::ReportStarting(status.id))
            }
            Phase::Starting if status.state == InstanceState::Up => Some(Action::Probe(status.id)),
            _ => None,
        }
    }

    fn stop(&self) -> Action {
        Action::Stop(
            self.want.instance(),
            StopMode::Graceful {
                deadline_ms: self.policy.stop_deadline_ms,
            },
        )
    }
}

/// Ends that the guest, QEMU or the host's lack of something brought about, not a command or a lease.
fn is_crash(code: StopCode) -> bool {
    match code {
        StopCode::GuestPanic
        | StopCode::QemuKilled
        | StopCode::OutOfMemory
        | StopCode::QemuFailed
        | StopCode::DiskFull
        | StopCode::KvmUnusable
        | StopCode::ShimDied => true,
        StopCode::GuestShutdown
        | StopCode::Stopped
        | StopCode::StopDeadline
        | StopCode::Killed
        | StopCode::LeaseExpired
        | StopCode::HostRebooted
        | StopCode::Incomplete => false,
    }
}

fn ran_stably(status: &InstanceStatus, policy: &Policy) -> bool {
    let ran_ms = status
        .stopped_ms
        .zip(status.qemu_started_ms)
        .map(|(end, start)| end.saturating_sub(start));
    ran_ms.is_some_and(|ran_ms| ran_ms >= policy.stable_ms)
}

fn failure_of(status: &InstanceStatus) -> Failure {
    match &status.state {
        InstanceState::Stopped { code, text } => ended(code.as_str(), text),
        state => unreachable!("only a stopped instance has an end, not {state:?}"),
    }
}

fn report_stopped(status: &InstanceStatus) -> Action {
    Action::ReportStopped(status.id, failure_of(status), status.stopped_ms)
}

fn ended(code: &str, text: &str) -> Failure {
    Failure {
        code: code.to_owned(),
        text: text.to_owned(),
        permanent: false,
    }
}
