//! `dagger dev`: a whole network on this machine, of ordinary nodes with ordinary transactions.
//!
//! Everything lies in one directory: `dev.json` (what there is), `genesis.json`, `nodes/NAME/` (each a
//! node's data directory), `client/` (a client's configuration), `logs/` and `pids/`.

mod control;
mod network;
mod process;
mod up;

pub(crate) use process::{kill_all, node as node_process};
pub(crate) use up::bring_up;

use crate::args::{DevCommand, Durability, Global, Output};
use crate::failure::{Done, Exit, Failure};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub async fn run(global: &Global, command: DevCommand) -> Done {
    let json = global.output == Output::Json;
    match command {
        DevCommand::Up(args) => up::run(json, args).await,
        DevCommand::Down(data) => control::down(json, &Layout::open(&data.data)?).await,
        DevCommand::Clean(data) => control::clean(json, &data.data).await,
        DevCommand::Status(data) => control::status(json, &Layout::open(&data.data)?).await,
        DevCommand::Kill(node) => {
            control::kill(json, &Layout::open(&node.data.data)?, &node.node).await
        }
        DevCommand::Start(node) => {
            control::start(json, &Layout::open(&node.data.data)?, &node.node).await
        }
    }
}

/// Names of the operators, in the order of their seats.
const NAMES: [&str; 26] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
];

/// Name of the file that says what there is; only a directory that has it is ever removed.
const MANIFEST: &str = "dev.json";

/// Paths of sockets are limited to 108 bytes, and the deepest lies this far below the directory.
const DATA_PATH_BYTES_MAX: usize = 72;

/// What `dev.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub chain_id: String,
    pub nodes: Vec<NodePlan>,
}

/// One node of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub name: String,
    pub api: SocketAddr,
    pub listen: SocketAddr,
    pub durability: DurabilityWord,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_mib: u64,
}

/// When an event counts as stored, as `dev.json` has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DurabilityWord {
    Fsync,
    Os,
}

impl From<Durability> for DurabilityWord {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Fsync => Self::Fsync,
            Durability::Os => Self::Os,
        }
    }
}

impl NodePlan {
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    pub fn machine(&self) -> String {
        format!("{}-1", self.name)
    }
}

/// Where things lie.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub root: PathBuf,
    pub manifest: Manifest,
}

impl Layout {
    /// The network in `data`.
    pub fn open(data: &Path) -> Done<Self> {
        let root = absolute(data)?;
        let path = root.join(MANIFEST);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("there is no network in {}", root.display());
                return Err(Failure::new(Exit::Failure, "E_NO_NETWORK", text)
                    .hint("start one with `dagger dev up`, or name its directory with --data"));
            }
            Err(error) => return Err(Failure::file(path.display(), &error)),
        };
        let manifest =
            serde_json::from_str(&text).map_err(|error| Failure::file(path.display(), &error))?;
        Ok(Self { root, manifest })
    }

    pub fn node_dir(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.root.join("pids").join(format!("{name}.pid"))
    }

    pub fn client_dir(&self) -> PathBuf {
        self.root.join("client")
    }

    pub fn operator_key(&self, name: &str) -> PathBuf {
        self.node_dir(name).join("keys/operator.json")
    }

    /// The node of that name or number.
    pub fn node(&self, wanted: &str) -> Done<&NodePlan> {
        let nodes = &self.manifest.nodes;
        let by_number = wanted
            .parse()
            .ok()
            .and_then(|index: usize| nodes.get(index));
        by_number
            .or_else(|| nodes.iter().find(|node| node.name == wanted))
            .ok_or_else(|| {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                Failure::usage(format!("there is no node `{wanted}`")).hint(format!(
                    "there are {} (0 to {})",
                    names.join(", "),
                    nodes.len() - 1
                ))
            })
    }
}

/// The directory with every link resolved, as the processes' command lines have it.
pub(super) fn absolute(data: &Path) -> Done<PathBuf> {
    let path = std::path::absolute(data).map_err(|error| Failure::file(data.display(), &error))?;
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

/// Refuses a directory under which sockets would have no room.
pub(super) fn check_room_for_sockets(root: &Path) -> Done {
    match root.as_os_str().len() {
        0..=DATA_PATH_BYTES_MAX => Ok(()),
        _ => Err(Failure::usage(format!(
            "the path {} is too long: sockets below it would have no room",
            root.display()
        ))
        .hint("choose a shorter one with --data")),
    }
}
