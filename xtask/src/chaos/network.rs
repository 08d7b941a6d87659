//! The nodes as processes: founded, started, struck, asked, stopped. Everything goes through the `dagger` command, as an
//! operator would do it; a fault that no signal can bring about is written to the node's faults file.

use super::ground;
use crate::shell;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to serve after a start, or a vote to take effect.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Transactions of an epoch: a run lives through many.
const EPOCH_TRANSACTIONS: u64 = 150;
/// Bytes of the small disk.
const SMALL_DISK: &str = "64m";
/// The version of the rules that a network starts with.
const FIRST_RULES: u32 = 1;

pub(super) struct Node {
    pub(super) name: String,
    data: PathBuf,
    address: SocketAddr,
    api: String,
    child: Option<Child>,
    /// The newest version of the rules that its program knows.
    pub(super) knows: u32,
    /// Milliseconds that its clock is off.
    clock_ms: i64,
}

/// A way for a client to open accounts: a node, and an operator that pays.
#[derive(Clone)]
pub struct Way {
    dagger: PathBuf,
    api: String,
    key: PathBuf,
}

impl Way {
    /// Whether the transaction was acknowledged as executed.
    pub fn open_account(&self, name: &str) -> bool {
        // Any key will do, as long as no other account has it.
        let key = hex_key(name);
        let mut command = Command::new(&self.dagger);
        command.args(["--api", &self.api, "--key"]).arg(&self.key);
        command.args(["operator", "sponsor", name, &key]);
        let done = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    }
}

/// The public key of a seed that follows from a name.
fn hex_key(name: &str) -> String {
    let seed = blake3::derive_key("dagger chaos account key v1", name.as_bytes());
    hex::encode(ed25519_zebra::SigningKey::from(seed).verification_key())
}

/// Where a node stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Point {
    pub epoch: u64,
    pub commit: u64,
    pub state_root: String,
    pub certified: bool,
}

/// The nodes of a run.
pub struct Network {
    dagger: PathBuf,
    dir: PathBuf,
    pub(super) nodes: Vec<Node>,
    /// Who has a seat.
    pub(super) members: Vec<usize>,
    /// The version of the rules that was decided on last.
    pub(super) rules: u32,
    small_disk: Option<usize>,
}

impl Network {
    /// Makes keys, genesis and settings of `count` operators.
    pub fn found(dagger: &Path, dir: &Path, count: usize) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut network = Self {
            dagger: dagger.to_owned(),
            dir: dir.to_owned(),
            nodes: Vec::new(),
            members: (0..count).collect(),
            rules: FIRST_RULES,
            small_disk: None,
        };
        network.make_small_disk()?;
        let mut create = network.dagger();
        create.args(["genesis", "create", "--network", "chaos", "--out"]);
        create.arg(dir.join("made.json"));
        for _ in 0..count {
            let card = network.make_node()?;
            create.arg(card);
        }
        shell::output(&mut create)?;
        let mut genesis: Value = serde_json::from_slice(&fs::read(dir.join("made.json"))?)?;
        genesis["parameters"]["epoch_transactions"] = json!(EPOCH_TRANSACTIONS);
        fs::write(network.genesis(), serde_json::to_vec_pretty(&genesis)?)?;
        for node in 0..count {
            network.init(node, true)?;
        }
        Ok(network)
    }

    fn dagger(&self) -> Command {
        let mut command = Command::new(&self.dagger);
        for name in ["DAGGER_API", "DAGGER_KEY", "DAGGER_CONFIG_DIR", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    fn genesis(&self) -> PathBuf {
        self.dir.join("genesis.json")
    }

    /// The first node's directory is a small file system.
    fn make_small_disk(&mut self) -> Result<()> {
        let dir = self.dir.join("node-0");
        fs::create_dir_all(&dir)?;
        ground::mount_small(&dir, SMALL_DISK)?;
        self.small_disk = Some(0);
        Ok(())
    }

    /// Makes one more data directory; returns its card.
    pub(super) fn make_node(&mut self) -> Result<PathBuf> {
        let at = self.nodes.len();
        let data = self.dir.join(format!("node-{at}"));
        let address = ground::address(at)?;
        self.nodes.push(Node {
            name: format!("op-{at}"),
            data: data.clone(),
            address,
            api: format!("http://{address}"),
            child: None,
            knows: self.rules,
            clock_ms: 0,
        });
        self.init(at, false)?;
        Ok(data.join("card.json"))
    }

    pub(super) fn init(&self, at: usize, with_genesis: bool) -> Result<()> {
        let node = &self.nodes[at];
        let address = node.address.to_string();
        let mut init = self.dagger();
        init.args(["node", "init", "--name", &node.name, "--data"])
            .arg(&node.data);
        init.args(["--address", &address, "--listen", &address]);
        init.args(["--api-listen", &address]);
        if with_genesis {
            init.arg("--genesis").arg(self.genesis());
        }
        shell::output(&mut init)?;
        if with_genesis {
            let file = node.data.join("node.toml");
            let text = fs::read_to_string(&file)?.replace("machine = true", "machine = false");
            fs::write(&file, format!("faults = \"faults.json\"\n{text}"))?;
            self.write_faults(at)?;
        }
        Ok(())
    }

    /// The nodes that have a seat.
    pub fn members(&self) -> Vec<usize> {
        self.members.clone()
    }

    /// The node whose disk can be filled.
    pub fn small_disk(&self) -> Option<usize> {
        self.small_disk.filter(|node| self.members.contains(node))
    }

    /// Every member's node, each with its operator's key.
    pub fn ways(&self) -> Vec<Way> {
        let way = |node: &usize| Way {
            dagger: self.dagger.clone(),
            api: self.nodes[*node].api.clone(),
            key: self.nodes[*node].data.join("keys/operator.json"),
        };
        self.members.iter().map(way).collect()
    }

    pub fn start_all(&mut self) -> Result<()> {
        for node in self.members() {
            self.start(node)?;
        }
        self.until_ready()
    }

    pub(super) fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for node in self.members() {
            while self.status(node).is_none_or(|s| s["state"] != "ready") {
                self.look_after()?;
                if Instant::now() > deadline {
                    bail!(
                        "node {node} does not get ready; see {}",
                        self.log(node).display()
                    );
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn log(&self, at: usize) -> PathBuf {
        self.dir.join(format!("node-{at}.log"))
    }

    pub fn start(&mut self, at: usize) -> Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(at))?;
        let mut run = self.dagger();
        run.args(["node", "run", "--data"])
            .arg(&self.nodes[at].data);
        let child = run.stdout(Stdio::null()).stderr(log).spawn();
        self.nodes[at].child = Some(child.context("cannot start a node")?);
        Ok(())
    }

    fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        let child = self.nodes[at]
            .child
            .as_ref()
            .context("the node does not run")?;
        let pid = i32::try_from(child.id()).context("a process id")?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.signal(at, Signal::SIGKILL)?;
        self.reap(at)
    }

    pub fn terminate(&mut self, at: usize) -> Result<()> {
        self.signal(at, Signal::SIGTERM)?;
        self.reap(at)
    }

    fn reap(&mut self, at: usize) -> Result<()> {
        if let Some(mut child) = self.nodes[at].child.take() {
            child.wait()?;
        }
        Ok(())
    }

    pub fn freeze(&self, at: usize, frozen: bool) -> Result<()> {
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        self.signal(at, signal)
    }

    /// Parts these nodes from all others, or only those from what these send; none of them: heals.
    pub fn part(&self, side: &[usize], one_way: bool) -> Result<()> {
        let mut lost = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for other in side.iter().filter(|_| !side.contains(&at)) {
                let parted = self.nodes[*other].address;
                lost.push((parted, node.address));
                if !one_way {
                    lost.push((node.address, parted));
                }
            }
        }
        ground::lose(&lost)
    }

    pub fn shift_clock(&mut self, at: usize, by_ms: i64) -> Result<()> {
        self.nodes[at].clock_ms = by_ms;
        self.write_faults(at)
    }

    pub(super) fn write_faults(&self, at: usize) -> Result<()> {
        let node = &self.nodes[at];
        let text = json!({
            "clock_ms": node.clock_ms,
            "newest_protocol_version": node.knows,
        })
        .to_string();
        // Beside the data: that disk may be full.
        let (file, new) = (
            self.faults_file(at),
            self.dir.join(format!("faults-{at}.new")),
        );
        fs::write(&new, text)?;
        fs::rename(&new, &file)?;
        let link = node.data.join("faults.json");
        if !link.exists() && node.data.join("node.toml").exists() {
            std::os::unix::fs::symlink(&file, &link)?;
        }
        Ok(())
    }

    fn faults_file(&self, at: usize) -> PathBuf {
        self.dir.join(format!("faults-{at}.json"))
    }

    pub fn fill_disk(&self, at: usize, full: bool) -> Result<()> {
        let ballast = self.nodes[at].data.join("ballast");
        if !full {
            return Ok(fs::remove_file(ballast)?);
        }
        let mut file = fs::File::create(ballast)?;
        let block = vec![1u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        Ok(())
    }

    /// A node that ended although nobody ended it, and its log.
    pub(super) fn ended_by_itself(&mut self) -> Result<Option<(usize, PathBuf)>> {
        for at in 0..self.nodes.len() {
            if let Some(child) = &mut self.nodes[at].child
                && child.try_wait()?.is_some()
            {
                return Ok(Some((at, self.log(at))));
            }
        }
        Ok(None)
    }

    /// Takes back whatever may be left of a fault.
    pub fn heal(&mut self) -> Result<()> {
        self.part(&[], false)?;
        ground::lose_some(0)?;
        for at in self.members() {
            self.shift_clock(at, 0)?;
        }
        Ok(())
    }

    pub(super) fn status(&self, at: usize) -> Option<Value> {
        self.ask(at, &["node", "status"]).ok()
    }

    pub(super) fn ask(&self, at: usize, words: &[&str]) -> Result<Value> {
        let mut command = self.dagger();
        command
            .args(["--output", "json", "--api", &self.nodes[at].api])
            .args(words);
        Ok(serde_json::from_str(&shell::output(&mut command)?)?)
    }

    pub(super) fn sign(&self, at: usize, words: &[&str]) -> Result<Value> {
        let mut command = self.dagger();
        command.args(["--output", "json", "--api", &self.nodes[at].api, "--key"]);
        command
            .arg(self.nodes[at].data.join("keys/operator.json"))
            .args(words);
        Ok(serde_json::from_str(&shell::output(&mut command)?)?)
    }

    /// Where a node stands.
    pub fn point(&self, at: usize) -> Option<Point> {
        let status = self.status(at)?;
        let checkpoint = &status["checkpoint"];
        Some(Point {
            epoch: status["consensus"]["epoch"].as_u64()?,
            commit: checkpoint["commit"].as_u64()?,
            state_root: checkpoint["state_root"].as_str()?.to_owned(),
            certified: checkpoint["certified"].as_bool()?,
        })
    }

    /// The names of all accounts that a node's ledger holds.
    pub fn accounts(&self, at: usize) -> Result<Vec<String>> {
        let accounts = self.ask(at, &["account", "list"])?;
        let names = accounts.as_array().context("a list of accounts")?.iter();
        Ok(names
            .filter_map(|a| Some(a["name"].as_str()?.to_owned()))
            .collect())
    }

    /// Ends all nodes.
    pub fn stop_all(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].child.is_some() {
                let _ = self.terminate(at);
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // The small disk ends with this process; what a failed run left on it is worth keeping.
        if let Some(at) = self.small_disk {
            let data = &self.nodes[at].data;
            let copy = self.dir.join("small-disk");
            let _ = Command::new("cp").arg("-a").arg(data).arg(copy).status();
            let _ = nix::mount::umount(data);
        }
    }
}
