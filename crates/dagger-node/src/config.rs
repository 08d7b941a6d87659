//! `node.toml`: what an operator may choose for one node, with defaults that suit most.
//!
//! Rules of the network (leases, heartbeats, committee) are in the genesis file and on the ledger,
//! never here: two nodes with different settings must still agree.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use dagger_ledger::Key;
use serde::{Deserialize, Serialize};

use crate::{error::NodeError, host::Offer, images::ImagesLimits};

/// How much a write must survive before a node counts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the device before anything is sent: survives a power cut.
    #[default]
    Fsync,
    /// With the kernel: survives a crash of the process only. For `dagger dev` and benchmarks.
    Os,
}

/// The settings of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Where everything of this node lives. Not in the file: it is where the file is.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Name in logs and `status`; nothing depends on it.
    #[serde(default = "default_name")]
    pub name: String,
    /// UDP address of the node's one socket.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// TCP address of the HTTP API; absent means no API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<SocketAddr>,
    /// What a write must survive.
    #[serde(default)]
    pub durability: Durability,
    /// The least time between two rounds of this member on average, in milliseconds: a smaller one answers sooner and costs
    /// more of a core. Under load rounds take longer by themselves.
    #[serde(default = "default_round_interval_ms")]
    pub round_interval_ms: u64,
    /// Run VMs on this host, if the ledger knows a machine with this node's key.
    #[serde(default = "default_true")]
    pub machine: bool,
    /// The program that is started as a VM's shim; absent means this program itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shim_exe: Option<PathBuf>,
    /// The control group below which guests' own are made, from the root of the host's hierarchies; absent means the one that
    /// systemd delegated, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// For tests: a file in the data directory that says which faults to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<PathBuf>,
    /// Addresses of other nodes by node key (hex), besides those in the genesis file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, Vec<SocketAddr>>,
    /// The newest version of the network's rules that the program knows. Not in the file, for an operator cannot teach it one:
    /// tests play an older or a newer program with it.
    #[serde(skip, default = "newest_protocol_version")]
    pub newest_protocol_version: u32,
    /// Ports that VMs publish on this host.
    #[serde(default)]
    pub publish: PublishConfig,
    /// Bounds on disk use.
    #[serde(default)]
    pub store: StoreConfig,
    /// Bounds on images.
    #[serde(default)]
    pub images: ImagesConfig,
}

/// Settings of the store of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Room for images, in GiB; the least recently used go first.
    #[serde(default = "default_cache_gib")]
    pub cache_gib: u64,
    /// The largest file that may be uploaded, in GiB.
    #[serde(default = "default_upload_gib")]
    pub upload_gib: u64,
    /// What other nodes are sent of images, all together, in MiB a second; 0 for no bound.
    #[serde(default)]
    pub serve_mib_per_s: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            cache_gib: default_cache_gib(),
            upload_gib: default_upload_gib(),
            serve_mib_per_s: 0,
        }
    }
}

impl ImagesConfig {
    /// The same in bytes.
    pub fn limits(&self) -> ImagesLimits {
        ImagesLimits {
            cache_bytes_max: self.cache_gib.saturating_mul(1 << 30),
            upload_bytes_max: self.upload_gib.saturating_mul(1 << 30),
            serve_bytes_per_s: self.serve_mib_per_s.saturating_mul(1 << 20),
        }
    }
}

/// What customers' VMs may open on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    /// Whether any port is opened.
    #[serde(default = "default_true")]
    pub open: bool,
    /// Where they are opened; absent means the address of `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The address that customers are told, where it is another: this host is behind one that translates, or listens at all of its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<IpAddr>,
    /// The first and the last port that may be opened.
    #[serde(default = "default_publish_ports")]
    pub ports: (u16, u16),
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            open: true,
            address: None,
            shown: None,
            ports: default_publish_ports(),
        }
    }
}

/// Settings of the event log and the state on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// A segment of the event log is closed once it is this large.
    #[serde(default = "default_segment_bytes")]
    pub segment_bytes: u64,
    /// Commits between two snapshots of the ledger at most.
    #[serde(default = "default_snapshot_commits")]
    pub snapshot_commits: u64,
    /// How many ended epochs' event logs are kept.
    #[serde(default)]
    pub retain: Retain,
    /// How many transactions' outcomes are kept on disk.
    #[serde(default)]
    pub outcomes: Outcomes,
}

/// How many of the newest transactions' outcomes, with what proves them, a node keeps on disk: a number, or `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcomes {
    /// So many; 0 for none but the newest ones in memory.
    Newest(u64),
    /// All that it executes.
    All(AllWord),
}

impl Default for Outcomes {
    fn default() -> Self {
        Self::Newest(10_000_000)
    }
}

impl Outcomes {
    /// How many are kept.
    pub fn transactions(self) -> u64 {
        match self {
            Self::Newest(count) => count,
            Self::All(AllWord::All) => u64::MAX,
        }
    }
}

/// How many ended epochs' event logs a node keeps: a number, or `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Retain {
    /// So many besides the present one.
    Epochs(u64),
    /// All: the node can prove the whole history.
    All(AllWord),
}

/// The word `"all"` of [`Retain`] and [`Outcomes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllWord {
    /// It.
    All,
}

impl Default for Retain {
    fn default() -> Self {
        Self::Epochs(2)
    }
}

impl Retain {
    /// The first epoch whose log is kept while `present` is the present one.
    pub fn first_kept(self, present: u64) -> u64 {
        match self {
            Self::Epochs(count) => present.saturating_sub(count),
            Self::All(AllWord::All) => 0,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            segment_bytes: default_segment_bytes(),
            snapshot_commits: default_snapshot_commits(),
            retain: Retain::default(),
            outcomes: Outcomes::default(),
        }
    }
}

fn default_name() -> String {
    "node".into()
}
fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 7400).into()
}
fn default_round_interval_ms() -> u64 {
    3
}
fn newest_protocol_version() -> u32 {
    dagger_ledger::NEWEST_PROTOCOL_VERSION
}
fn default_publish_ports() -> (u16, u16) {
    // Those below are the operator's.
    (1024, u16::MAX)
}
fn default_cache_gib() -> u64 {
    64
}
fn default_upload_gib() -> u64 {
    16
}
fn default_true() -> bool {
    true
}
fn default_segment_bytes() -> u64 {
    64 << 20
}
fn default_snapshot_commits() -> u64 {
    10_000
}

impl NodeConfig {
    /// Defaults for a node in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let mut config: Self = toml::from_str("").expect("every setting has a default");
        config.data_dir = data_dir.into();
        config.api = Some((Ipv4Addr::LOCALHOST, 7480).into());
        config
    }

    /// Reads `<data_dir>/node.toml`.
    ///
    /// # Errors
    /// `E_CONFIG_INVALID` with the line and what is wrong with it.
    pub fn load(data_dir: &Path) -> Result<Self, NodeError> {
        let path = data_dir.join("node.toml");
        let invalid = |detail: String| NodeError::ConfigInvalid {
            path: path.clone(),
            detail,
        };
        let text = fs::read_to_string(&path).map_err(|e| {
            invalid(format!(
                "cannot read it ({e}); make a node directory with `dagger node init`"
            ))
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        data_dir.clone_into(&mut config.data_dir);
        for key in config.peers.keys() {
            key.parse::<Key>().map_err(|_| {
                invalid(format!(
                    "[peers] {key:?} is not a node key of 64 lower-case hex digits"
                ))
            })?;
        }
        let (first, last) = config.publish.ports;
        if first == 0 || first > last {
            return Err(invalid(format!(
                "[publish] ports = [{first}, {last}]: give the first and the last one, from 1 to 65535; to open none, say open = false"
            )));
        }
        Ok(config)
    }

    /// The further peers, by key; what is not a key was refused when the file was read.
    pub fn peer_keys(&self) -> impl Iterator<Item = (Key, &Vec<SocketAddr>)> {
        self.peers
            .iter()
            .filter_map(|(key, addresses)| Some((key.parse().ok()?, addresses)))
    }

    /// What customers' VMs may open on this host.
    pub(crate) fn offer(&self) -> Offer {
        let (first, last) = self.publish.ports;
        let ip = self.publish.address.unwrap_or(self.listen.ip());
        Offer {
            ip,
            shown: self.publish.shown.unwrap_or(ip),
            ports: self.publish.open.then_some(first..=last),
            ..Offer::default()
        }
    }

    /// Writes `<data_dir>/node.toml`.
    ///
    /// # Errors
    /// `E_IO`, `E_DISK_FULL`.
    pub fn save(&self) -> Result<(), NodeError> {
        let path = self.data_dir.join("node.toml");
        let text = toml::to_string_pretty(self).expect("the configuration is plain data");
        fs::create_dir_all(&self.data_dir)
            .map_err(|e| NodeError::io("create", &self.data_dir, e))?;
        fs::write(&path, text).map_err(|e| NodeError::io("write", &path, e))
    }
}
