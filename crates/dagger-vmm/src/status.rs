//! What is observed of an instance: pure data, shared by shim, host and their callers.

use serde::{Deserialize, Serialize};

use crate::cgroup::Resource;
use crate::spec::{Accelerator, InstanceId};

/// Why an instance no longer runs. Stable: these appear on the ledger and in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCode {
    /// The guest powered itself off.
    GuestShutdown,
    /// The guest's kernel panicked.
    GuestPanic,
    /// Stopped gracefully on request.
    Stopped,
    /// Asked to stop gracefully, did not within its deadline, was stopped hard.
    StopDeadline,
    /// Stopped hard on request.
    Killed,
    /// The lease ran out and the shim's watchdog stopped it.
    LeaseExpired,
    /// QEMU was killed from outside with a signal other than by its shim.
    QemuKilled,
    /// QEMU was killed by the kernel for lack of memory.
    OutOfMemory,
    /// QEMU refused to start or ended with an error.
    QemuFailed,
    /// The host's disk is full.
    DiskFull,
    /// KVM was demanded and gave no sign of life.
    KvmUnusable,
    /// The shim itself was killed (QEMU dies with it).
    ShimDied,
    /// The host restarted.
    HostRebooted,
    /// Preparation was interrupted; nothing ran.
    Incomplete,
}

impl StopCode {
    /// The stable name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GuestShutdown => "guest_shutdown",
            Self::GuestPanic => "guest_panic",
            Self::Stopped => "stopped",
            Self::StopDeadline => "stop_deadline",
            Self::Killed => "killed",
            Self::LeaseExpired => "lease_expired",
            Self::QemuKilled => "qemu_killed",
            Self::OutOfMemory => "out_of_memory",
            Self::QemuFailed => "qemu_failed",
            Self::DiskFull => "disk_full",
            Self::KvmUnusable => "kvm_unusable",
            Self::ShimDied => "shim_died",
            Self::HostRebooted => "host_rebooted",
            Self::Incomplete => "incomplete",
        }
    }
}

impl std::fmt::Display for StopCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an instance stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// The shim lives; QEMU does not run yet, or its accelerator is still on trial.
    Starting,
    /// QEMU runs the guest. Says nothing of services within it.
    Up,
    /// Nothing runs; the disk is kept until `remove`.
    Stopped {
        /// Stable reason.
        code: StopCode,
        /// For people, with what to do.
        text: String,
    },
    /// The shim holds its lock but does not answer: it may run or not.
    Unknown {
        /// Since when, Unix ms.
        since_ms: u64,
    },
}

/// What a guest reaches of its own accord.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The internet, and nothing private.
    pub internet: bool,
    /// Why, for people.
    pub text: String,
}

/// What holds a guest that has broken out of its emulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// QEMU runs as a user of its own, who owns nothing.
    pub own_user: bool,
    /// As whom, for people.
    pub text: String,
    /// What a control group bounds.
    #[serde(default)]
    pub bounds: Vec<Resource>,
    /// How, or why something is not bounded, for people.
    #[serde(default)]
    pub bounds_text: String,
}

/// One instance as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Its state.
    pub state: InstanceState,
    /// What it runs on and why that was chosen; none before the choice is made.
    pub accelerator: Option<(Accelerator, String)>,
    /// What it reaches; none before it was started.
    #[serde(default)]
    pub network: Option<Network>,
    /// What holds QEMU; none before it was started.
    #[serde(default)]
    pub confinement: Option<Confinement>,
    /// QEMU's process, if it runs.
    pub qemu_pid: Option<u32>,
    /// The shim's process, if it lives.
    pub shim_pid: Option<u32>,
    /// When the shim started, Unix ms (0: never).
    pub shim_started_ms: u64,
    /// When QEMU was started, Unix ms.
    pub qemu_started_ms: Option<u64>,
    /// When the guest first wrote to its console, Unix ms.
    pub console_first_ms: Option<u64>,
    /// When the state became `Stopped`, Unix ms.
    pub stopped_ms: Option<u64>,
    /// Watchdog deadline on CLOCK_BOOTTIME, ms; none: no lease is watched.
    pub lease_deadline_boottime_ms: Option<u64>,
}

/// How to stop an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Press the ACPI power button; stop hard when the guest has not powered off `deadline_ms` later.
    Graceful {
        /// Milliseconds from now.
        deadline_ms: u64,
    },
    /// Stop hard at once.
    Kill,
}
