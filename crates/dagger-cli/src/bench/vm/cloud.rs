//! The network that is measured: made like any `dagger dev up`, used over its API like any other.

use super::guest::{self, Instance, Login};
use crate::args::{BenchVmArgs, DevData, DevUpArgs, Durability, Global, Output};
use crate::context::{Connection, Context, now_ms};
use crate::dev::{self, Layout};
use crate::failure::{Done, Exit, Failure};
use dagger_client::api::{TransactionStatus, VmView};
use dagger_client::http::{Client, CommitStream, Stage};
use dagger_client::keys::SecretKey;
use dagger_client::token::{self, Right, VmScope};
use dagger_ledger::{Action, Digest, Failover, OnIsolation, Placement, Restart, VmCreate, VmName};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Where the files of the micro guest are missing.
const HOW_TO_BUILD: &str =
    "build it with `cargo xtask guest micro`, or name its directory with --guest";
/// How long a VM may take to run: guests that are emulated and many are slow.
const RUN_WITHIN: Duration = Duration::from_secs(600);
/// How long it may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(120);
const IMAGE: &str = "micro";
const DISK_MIB: u64 = 64;

/// A network on this machine and its client.
pub struct Cloud {
    pub layout: Layout,
    pub connection: Connection,
    pub key: SecretKey,
    /// Private key that logs in to the guests.
    pub identity: PathBuf,
    ssh_key: String,
    account: String,
    image_digest: Digest,
    memory_mib: u64,
}

impl Cloud {
    /// Makes and starts it, and gives its first node the micro guest.
    pub async fn start(root: &Path, args: &BenchVmArgs) -> Done<Self> {
        let cmdline = read(&args.guest.join("micro-cmdline"))?;
        let up = DevUpArgs {
            data: DevData {
                data: root.to_owned(),
            },
            nodes: 4,
            // A machine this busy must not be taken for a lost one.
            lease_ms: 60_000,
            margin_ms: 5_000,
            durability: Durability::Os,
            vcpus: 256,
            memory: 64 * 1024,
            disk: 64 * 1024,
        };
        let layout = dev::bring_up(root, true, &up, |_| Ok(())).await?;
        let global = Global {
            api: Vec::new(),
            key: None,
            output: Output::Json,
            config_dir: Some(layout.client_dir()),
        };
        let part = |name: &str| args.guest.join(name).display().to_string();
        dagger(
            &global,
            &[
                "image",
                "add",
                IMAGE,
                "--kernel",
                &part("micro-kernel"),
                "--initrd",
                &part("micro-initrd"),
                "--cmdline",
                &cmdline,
            ],
        )
        .await?;
        let context = Context::new(&global)?;
        let connection = context.connect().await?;
        let (key, account) = context.account(&connection).await?;
        let image = connection.client.image(&account.name, IMAGE).await?;
        let image_digest = image
            .digest
            .parse()
            .map_err(|_| not_understood("the image"))?;
        let (identity, ssh_key) = make_identity(&layout.client_dir().join("id"))?;
        Ok(Self {
            layout,
            connection,
            key,
            identity,
            ssh_key,
            account: account.name,
            image_digest,
            memory_mib: args.memory,
        })
    }

    /// Hands in the creation of a VM on the first machine.
    pub async fn submit(&self, name: &str) -> Done<String> {
        let create = Action::VmCreate(VmCreate {
            name: name.to_owned(),
            image: format!("{}/{IMAGE}", self.account),
            image_digest: self.image_digest,
            vcpus: 1,
            memory_mib: self.memory_mib,
            disk_mib: DISK_MIB,
            ssh_keys: vec![self.ssh_key.clone()],
            user_data: None,
            failover: Failover::None,
            on_isolation: OnIsolation::Stop,
            restart: Restart::Never,
            spread: None,
            placement: Placement {
                machines: vec![self.layout.manifest.nodes[0].machine()],
                ..Placement::default()
            },
            labels: std::collections::BTreeMap::new(),
            publish: Vec::new(),
        });
        self.hand_in(create).await
    }

    async fn hand_in(&self, action: Action) -> Done<String> {
        let valid_until_ms = now_ms() + dagger_client::transaction::VALID_FOR_MS;
        let signed = dagger_client::transaction::sign(
            &self.key,
            self.connection.chain,
            action,
            valid_until_ms,
        );
        Ok(self.connection.client.submit(&signed).await?.digest)
    }

    /// What became of a transaction, once it was executed.
    pub async fn executed(&self, digest: &str) -> Done<TransactionStatus> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = self
            .connection
            .client
            .wait_transaction(digest, Stage::Executed, deadline)
            .await?;
        match status.refusal() {
            Some(refusal) => Err(Failure::new(Exit::Refused, &refusal.code, refusal.text)),
            None => Ok(status),
        }
    }

    /// Commits as they are executed, from now.
    pub async fn commits(&self) -> Done<CommitStream> {
        let now = self.connection.client.status().await?.ledger.commit;
        Ok(self.connection.client.follow(now, false).await?)
    }

    /// Waits, by `commits`, until the VM runs; gives it and the moment by this machine's clock.
    pub async fn running(&self, name: &str, commits: &mut CommitStream) -> Done<(VmView, u64)> {
        let wait = async {
            loop {
                let vm = self.vm(name).await?;
                match vm.phase.as_str() {
                    "running" => return Ok((vm, now_ms())),
                    "failed" => {
                        return Err(Failure::new(
                            Exit::Failure,
                            &vm.reason.code,
                            format!("vm {name} failed: {}", vm.reason.text),
                        ));
                    }
                    _ => {}
                }
                if commits.next().await?.is_none() {
                    return Err(not_understood("the stream of commits ended"));
                }
            }
        };
        tokio::time::timeout(RUN_WITHIN, wait)
            .await
            .unwrap_or_else(|_| Err(late(&format!("vm {name} to run"))))
    }

    pub async fn vm(&self, name: &str) -> Done<VmView> {
        Ok(self.connection.client.vm(&self.account, name).await?)
    }

    /// Deletes VMs and waits until their machine has nothing of them.
    pub async fn delete(&self, names: &[String]) -> Done {
        let mut instances = Vec::new();
        for name in names {
            instances.push(self.instance(&self.vm(name).await?));
            self.hand_in(Action::VmDelete(VmName { vm: name.clone() }))
                .await?;
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while instances.iter().any(|instance| instance.dir.exists()) {
            if Instant::now() >= deadline {
                return Err(late("deleted VMs to be gone"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// A VM as its host has it.
    pub fn instance(&self, vm: &VmView) -> Instance {
        let node = &self.layout.manifest.nodes[0].name;
        Instance {
            dir: self
                .layout
                .node_dir(node)
                .join("vms")
                .join(format!("{}-{}", vm.id, vm.lease_epoch)),
        }
    }

    /// Process of the daemon of the node of that number.
    pub fn daemon(&self, node: usize) -> Done<u32> {
        let process = dev::node_process(&self.layout, &self.layout.manifest.nodes[node])?;
        process
            .map(|pid| pid.as_raw().unsigned_abs())
            .ok_or_else(|| not_understood(&format!("node {node} does not run")))
    }

    /// CPU time of all nodes and of this process so far, ms.
    pub fn cpu_ms(&self) -> Done<u64> {
        let mut spent = guest::cpu_ms(std::process::id())?;
        for node in &self.layout.manifest.nodes {
            if let Some(pid) = dev::node_process(&self.layout, node)? {
                spent += guest::cpu_ms(pid.as_raw().unsigned_abs())?;
            }
        }
        Ok(spent)
    }

    /// How ssh gets to a VM.
    pub fn login(&self, name: &str) -> Done<Login> {
        let program =
            std::env::current_exe().map_err(|error| Failure::file("this program", &error))?;
        let (program, config) = (program.display(), self.layout.client_dir());
        Ok(Login::Through(format!(
            "'{program}' --config-dir '{}' vm proxy {name}",
            config.display()
        )))
    }

    /// Opens a TCP port of a guest as a customer does, through the node of that number, and hands its bytes over.
    pub async fn open(&self, vm: &VmView, port: u16, node: usize) -> Done<tokio::io::DuplexStream> {
        let scope = VmScope {
            chain: self.connection.chain.0,
            vm: vm.id,
        };
        let token = token::issue(&self.key, scope, &[Right::Tunnel], now_ms() + 120_000)?;
        let client = Client::new(&self.layout.manifest.nodes[node].api_url())?;
        let tunnel = client.tunnel(&vm.account, &vm.name, port, &token).await?;
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (output, input) = tokio::io::split(theirs);
        tokio::spawn(async move {
            // Its end is the end of what is read from it.
            let _ = tunnel.carry(output, input).await;
        });
        Ok(ours)
    }
}

/// Runs this very program for what is not measured.
async fn dagger(global: &Global, words: &[&str]) -> Done {
    let program = std::env::current_exe().map_err(|error| Failure::file("this program", &error))?;
    let output = tokio::process::Command::new(program)
        .arg("--config-dir")
        .args(&global.config_dir)
        .args(words)
        .env_remove("DAGGER_API")
        .env_remove("DAGGER_KEY")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| Failure::file("this program", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(
        Exit::Failure,
        "E_BENCH",
        format!("`dagger {} {}` failed: {said}", words[0], words[1]),
    ))
}

fn make_identity(path: &Path) -> Done<(PathBuf, String)> {
    let mut seed = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut seed);
    let (pem, public) = dagger_vmm::new_ssh_host_key(seed);
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(pem.as_bytes()))
        .map_err(|error| Failure::file(path.display(), &error))?;
    Ok((path.to_owned(), public.trim().to_owned()))
}

fn read(path: &Path) -> Done<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::file(path.display(), &error).hint(HOW_TO_BUILD))
}

/// Something is not as it must be to be measured.
pub fn not_understood(what: &str) -> Failure {
    Failure::new(
        Exit::Failure,
        "E_BENCH",
        format!("nothing can be measured: {what}"),
    )
}

/// Something did not come in time.
pub fn late(what: &str) -> Failure {
    Failure::new(
        Exit::TimedOut,
        "E_TIMED_OUT",
        format!("gave up waiting for {what}"),
    )
}
