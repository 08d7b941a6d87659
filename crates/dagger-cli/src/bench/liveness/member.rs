//! The member: a whole node, with as many machines on its ledger as are to be heard.

use super::{PATIENCE, Sample, failed, machine_key};
use crate::bench::process::{cpu_seconds, say, told};
use crate::bench::recorder::now_ns;
use crate::failure::{Done, Exit, Failure};
use bytes::Bytes;
use dagger_client::keys::{self, KeyKind};
use dagger_ledger::{
    Action, Arch, Key, Labels, MachineAdd, MachineState, NO_OVERCOMMIT, Transaction,
};
use dagger_node::NodeHandle;
use dagger_node::config::{Durability, NodeConfig};
use dagger_node::node::Node;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize)]
pub struct Plan {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub machines: u32,
}

/// Says the machines' ids, and then how it stands whenever it is asked; until it is killed.
pub fn run(plan: &Plan) -> Done {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    let mut config = NodeConfig::new(&plan.data);
    config.listen = plan.listen;
    config.api = None;
    config.machine = false;
    config.durability = Durability::Os;
    let node = runtime
        .block_on(Node::start(config))
        .map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))?;
    say(&add_machines(node.handle(), plan)?)?;
    loop {
        let _: String = told()?;
        say(&sample(node.handle())?)?;
    }
}

/// Ids in the order of the machines' numbers.
fn add_machines(node: &NodeHandle, plan: &Plan) -> Done<Vec<u32>> {
    let operator = keys::read(
        &plan.data.join("keys").join("operator.json"),
        KeyKind::Operator,
    )?;
    let valid_until_ms = node.now_ms() + node.read(|l| l.parameters().horizon_ms) / 2;
    let add = |number: u32| -> Bytes {
        let add = MachineAdd {
            machine: format!("machine-{number}"),
            node_key: Key(machine_key(number as usize).public()),
            arch: Arch::X86_64,
            vcpus: 64,
            memory_mib: 256 * 1_024,
            disk_mib: 1_024 * 1_024,
            cpu_permille: NO_OVERCOMMIT,
            labels: Labels::new(),
        };
        let transaction = Transaction {
            chain: node.chain_id(),
            signer: Key(operator.public()),
            salt: number.to_string(),
            valid_until_ms,
            action: Action::MachineAdd(add),
        };
        transaction.sign(operator.signing()).to_wire().into()
    };
    node.submit_many((0..plan.machines).map(add).collect());
    let ids = || -> Option<Vec<u32>> {
        node.read(|ledger| {
            (0..plan.machines as usize)
                .map(|number| {
                    let key = Key(machine_key(number).public());
                    Some(ledger.machine_by_node_key(&key)?.id.0)
                })
                .collect()
        })
    };
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(ids) = ids() {
            return Ok(ids);
        }
        if Instant::now() > until {
            return Err(failed("the machines did not get on the ledger in time"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sample(node: &NodeHandle) -> Done<Sample> {
    let (up, lapses) = node.read(|ledger| {
        let up = ledger.machines().filter(|m| m.state == MachineState::Up);
        let lapses = ledger.machines().map(|m| u64::from(m.lapses)).sum();
        (up.count() as u32, lapses)
    });
    Ok(Sample {
        at_s: now_ns() as f64 / 1e9,
        cpu_s: cpu_seconds(),
        resident_bytes: resident_bytes()?,
        up,
        lapses,
    })
}

/// What this process has in memory now.
fn resident_bytes() -> Done<u64> {
    let path = "/proc/self/statm";
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    let pages = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten().unwrap_or(4_096).unsigned_abs();
    Ok(pages.map_or(0, |pages: u64| pages * page))
}
