//! The member: a whole node, with as many machines on its ledger as are to be heard.

use super::{PATIENCE, Sample, account_key, failed, machine_key};
use crate::bench::process::{cpu_seconds, say, told};
use crate::bench::recorder::now_ns;
use crate::failure::{Done, Exit, Failure};
use bytes::Bytes;
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_ledger::{
    AccountCreate, Action, Arch, Key, Labels, MachineAdd, MachineState, NO_OVERCOMMIT, Transaction,
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
    /// Transactions a second, that it has something to order.
    pub rate: u64,
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
    let operator = keys::read(
        &plan.data.join("keys").join("operator.json"),
        KeyKind::Operator,
    )?;
    say(&add_machines(node.handle(), &operator, plan.machines)?)?;
    let (loaded, rate) = (node.handle().clone(), plan.rate);
    if rate > 0 {
        std::thread::spawn(move || load(&loaded, &operator, rate));
    }
    loop {
        let _: String = told()?;
        say(&sample(node.handle())?)?;
    }
}

/// Ids in the order of the machines' numbers.
fn add_machines(node: &NodeHandle, operator: &SecretKey, machines: u32) -> Done<Vec<u32>> {
    let add = |number: u32| {
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
        signed(node, operator, Action::MachineAdd(add))
    };
    node.submit_many((0..machines).map(add).collect());
    let ids = || -> Option<Vec<u32>> {
        node.read(|ledger| {
            (0..machines as usize)
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

fn signed(node: &NodeHandle, operator: &SecretKey, action: Action) -> Bytes {
    let transaction = Transaction {
        chain: node.chain_id(),
        signer: Key(operator.public()),
        salt: rand::random::<u64>().to_string(),
        valid_until_ms: node.now_ms() + node.read(|l| l.parameters().horizon_ms) / 2,
        action,
    };
    transaction.sign(operator.signing()).to_wire().into()
}

/// Hands in transactions evenly, for as long as the process lives: each makes an account.
fn load(node: &NodeHandle, operator: &SecretKey, rate: u64) {
    let start = Instant::now();
    for number in 0.. {
        let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let account = Action::AccountCreate(AccountCreate {
            account: format!("account-{number}"),
            key: Key(account_key(number).public()),
        });
        node.submit_many(vec![signed(node, operator, account)]);
    }
}

fn sample(node: &NodeHandle) -> Done<Sample> {
    let (up, lapses, accounts) = node.read(|ledger| {
        let up = ledger.machines().filter(|m| m.state == MachineState::Up);
        let lapses = ledger.machines().map(|m| u64::from(m.lapses)).sum();
        (up.count() as u32, lapses, ledger.accounts().count() as u64)
    });
    let metrics = node.metrics();
    let mut lines = metrics.lines();
    let subscribers = lines.find_map(|line| line.strip_prefix("dagger_subscribers "));
    Ok(Sample {
        at_s: now_ns() as f64 / 1e9,
        cpu_s: cpu_seconds(),
        resident_bytes: resident_bytes()?,
        up,
        lapses,
        accounts,
        subscribers: subscribers.map_or(0, |n| n.parse().expect("a gauge of whole numbers")),
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
