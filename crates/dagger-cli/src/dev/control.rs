//! `dagger dev down`, `clean`, `status`, `kill` and `start`.

use super::process::Kind;
use super::{Layout, MANIFEST, absolute, process, up};
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use dagger_client::api::NodeStatus;
use dagger_client::http::Client;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a node and then a VM may take to stop by itself.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Stops nodes, then VMs; what does not stop is killed.
pub async fn down(json: bool, layout: &Layout) -> Done {
    let stopped = stop(&layout.root).await?;
    match json {
        true => output::json(&serde_json::json!({ "stopped": stopped })),
        false => output::line(&format!(
            "stopped {stopped} nodes; `dagger dev up` goes on from there"
        )),
    }
}

async fn stop(root: &Path) -> Done<usize> {
    let nodes: Vec<_> = process::below(root)?
        .into_iter()
        .filter(|found| found.kind == Kind::Node)
        .collect();
    for node in &nodes {
        process::send(node, Signal::SIGTERM)?;
    }
    process::gone(root, |kind| kind == Kind::Node, STOP_WITHIN).await?;
    let shims = process::below(root)?;
    for shim in shims.iter().filter(|found| found.kind == Kind::Shim) {
        process::send(shim, Signal::SIGTERM)?;
    }
    if !process::gone(root, |_| true, STOP_WITHIN).await? {
        process::kill_all(root).await?;
    }
    Ok(nodes.len())
}

/// Ends everything and removes the directory; fine when there is nothing.
pub async fn clean(json: bool, data: &Path) -> Done {
    let root = absolute(data)?;
    process::kill_all(&root).await?;
    let removed = root.join(MANIFEST).exists();
    if removed {
        std::fs::remove_dir_all(&root).map_err(|error| Failure::file(root.display(), &error))?;
    } else if root.exists() && !is_unfinished(&root) {
        return Err(Failure::usage(format!(
            "{} holds no network; nothing was removed",
            root.display()
        )));
    } else if root.exists() {
        std::fs::remove_dir_all(&root).map_err(|error| Failure::file(root.display(), &error))?;
    }
    match json {
        true => output::json(&serde_json::json!({ "removed": removed })),
        false if removed => output::line(&format!("removed {}", root.display())),
        false => output::line(&format!("there is no network in {}", root.display())),
    }
}

/// Whether a directory is what an `up` that was killed early leaves: parts of a network and nothing else.
fn is_unfinished(root: &Path) -> bool {
    const PARTS: [&str; 5] = ["nodes", "logs", "pids", "client", "genesis.json"];
    let Ok(entries) = std::fs::read_dir(root) else {
        return false;
    };
    entries.flatten().all(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| PARTS.contains(&name))
    })
}

/// One node, as `status` shows it.
#[derive(Serialize)]
struct NodeLine {
    index: usize,
    name: String,
    running: bool,
    pid: Option<i32>,
    api: String,
    data: PathBuf,
    log: PathBuf,
    vms: usize,
    status: Option<NodeStatus>,
}

pub async fn status(json: bool, layout: &Layout) -> Done {
    let mut lines = Vec::new();
    for (index, node) in layout.manifest.nodes.iter().enumerate() {
        let data = layout.node_dir(&node.name);
        let processes = process::below(&data)?;
        let pid = processes
            .iter()
            .find(|found| found.kind == Kind::Node)
            .map(|found| found.pid.as_raw());
        let status = match pid {
            Some(_) => Client::new(&node.api_url())?.status().await.ok(),
            None => None,
        };
        lines.push(NodeLine {
            index,
            name: node.name.clone(),
            running: pid.is_some(),
            pid,
            api: node.api_url(),
            log: layout.log(&node.name),
            vms: processes
                .iter()
                .filter(|found| found.kind == Kind::Hypervisor)
                .count(),
            data,
            status,
        });
    }
    if json {
        return output::json(&serde_json::json!({
            "data": layout.root, "chain_id": layout.manifest.chain_id, "client": layout.client_dir(), "nodes": lines,
        }));
    }
    let columns = [
        ">#",
        "NODE",
        "STATE",
        ">PID",
        "API",
        ">ROUND",
        ">COMMIT",
        "STATE ROOT",
        ">VMS",
    ];
    let mut listing = Listing::new(&columns, "no nodes");
    for line in lines {
        listing.row(row(&line));
    }
    listing.print()
}

fn row(line: &NodeLine) -> [String; 9] {
    let status = line.status.as_ref();
    let dash = || "-".to_owned();
    [
        line.index.to_string(),
        line.name.clone(),
        match (status, line.running) {
            (Some(status), _) => crate::commands::state(status.state).to_owned(),
            (None, true) => "no answer".to_owned(),
            (None, false) => "down".to_owned(),
        },
        line.pid.map_or_else(dash, |pid| pid.to_string()),
        line.api.clone(),
        status.map_or_else(dash, |status| status.consensus.round.to_string()),
        status.map_or_else(dash, |status| status.ledger.commit.to_string()),
        status
            .and_then(|status| status.checkpoint.as_ref())
            .map_or_else(dash, |checkpoint| {
                let mark = if checkpoint.certified {
                    "certified"
                } else {
                    "not certified"
                };
                format!(
                    "{} at {} ({mark})",
                    output::short(&checkpoint.state_root),
                    checkpoint.commit
                )
            }),
        line.vms.to_string(),
    ]
}

/// Kills a node with its shims and QEMUs, as a power cut would.
pub async fn kill(json: bool, layout: &Layout, node: &str) -> Done {
    let node = layout.node(node)?;
    let directory = layout.node_dir(&node.name);
    let found = process::below(&directory)?;
    if found.is_empty() {
        let text = format!("node {} does not run", node.name);
        return Err(Failure::new(Exit::Failure, "E_NOT_RUNNING", text));
    }
    process::kill_all(&directory).await?;
    let vms = found
        .iter()
        .filter(|found| found.kind == Kind::Hypervisor)
        .count();
    match json {
        true => output::json(
            &serde_json::json!({"node": node.name, "processes": found.len(), "vms": vms}),
        ),
        false => output::line(&format!(
            "killed node {} with {} processes, {vms} VMs among them",
            node.name,
            found.len()
        )),
    }
}

/// Starts a node that is down.
pub async fn start(json: bool, layout: &Layout, node: &str) -> Done {
    let node = layout.node(node)?;
    if let Some(pid) = process::node(layout, node)? {
        let text = format!("node {} runs already (process {pid})", node.name);
        return Err(Failure::new(Exit::Failure, "E_RUNNING", text));
    }
    up::start_one(layout, node).await?;
    match json {
        true => output::json(&serde_json::json!({"node": node.name, "api": node.api_url()})),
        false => output::line(&format!(
            "node {} is back and commits with the others",
            node.name
        )),
    }
}
