//! The parts of the command line's JSON that the demo reads. The repository's commands use no crate
//! of the product, so these are its own words; fields that it does not need are left out.

use serde::Deserialize;

/// `dagger dev status`.
#[derive(Debug, Clone, Deserialize)]
pub struct DevStatus {
    /// The nodes in the order of their seats.
    pub nodes: Vec<DevNode>,
}

/// One node of `dagger dev`.
#[derive(Debug, Clone, Deserialize)]
pub struct DevNode {
    /// Where its API listens, as a URL.
    pub api: String,
    /// Its data directory.
    pub data: std::path::PathBuf,
}

/// One line of `dagger machine list`.
#[derive(Debug, Clone, Deserialize)]
pub struct Machine {
    /// Name.
    pub name: String,
    /// Name of its operator.
    pub operator: String,
    /// `ready` once enough rivals hear it.
    pub state: String,
    /// Operators that attest to hearing it.
    pub heard_by: Vec<String>,
}

/// `dagger vm show`.
#[derive(Debug, Clone, Deserialize)]
pub struct Vm {
    /// `placed`, `accepted`, `starting`, `running` and others.
    pub phase: String,
    /// Why it is in that phase.
    pub reason: Option<Reason>,
    /// The machine that hosts it.
    pub machine: Option<String>,
    /// That machine's operator.
    pub operator: Option<String>,
    /// Counts the placements.
    pub lease_epoch: u64,
    /// The guest's ssh host key, from its host's signed report.
    pub ssh_host_key: Option<String>,
    /// Ports of the guest that its host opens to everybody.
    #[serde(default)]
    pub published: Vec<Published>,
    /// `kvm` or `tcg`.
    pub accelerator: Option<String>,
    /// Why that one.
    pub accelerator_reason: Option<String>,
    /// Where the host got the image.
    pub image_source: Option<String>,
    /// What happened to it, oldest first.
    #[serde(default)]
    pub history: Vec<VmEvent>,
}

/// A port of a guest and where it is open.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// The port that the guest listens on.
    pub guest_port: u16,
    /// Address and port of its host.
    pub address: Option<String>,
}

/// A stable code and a text.
#[derive(Debug, Clone, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
}

/// One thing that happened to a VM.
#[derive(Debug, Clone, Deserialize)]
pub struct VmEvent {
    /// Phase afterwards.
    pub phase: String,
    /// Lease epoch afterwards.
    pub lease_epoch: u64,
    /// Machine afterwards.
    pub machine: Option<String>,
    /// The cause in words.
    pub text: String,
}

/// `dagger node status`.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Name of its operator.
    pub name: String,
    /// `starting`, `catching_up`, `ready` or `halted`.
    pub state: String,
    /// Its last checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

/// A checkpoint as one node computed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Checkpoint {
    /// The commit after which it was taken.
    pub commit: u64,
    /// Root of the ledger's state.
    pub state_root: String,
    /// Whether a quorum has signed it.
    pub certified: bool,
}
