//! What the ledger holds before signed transactions are measured: accounts, machines and running VMs of every member's, made by
//! transactions like anybody else's.
//!
//! Each member makes its own part and waits for the others' on the ledger. Keys follow from seats and numbers, so that each can sign
//! for the machines of all.

use crate::failure::{Done, Exit, Failure};
use bytes::Bytes;
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_ledger::{
    Accepted, AccountCreate, Action, Arch, Attest, Blob, Boot, Digest, DirectBoot, Failover,
    ImageManifest, ImagePublish, Key, Labels, Ledger, MachineAdd, MachineId, MachineState,
    NO_OVERCOMMIT, OnIsolation, Parameters, Phase, Placement, Report, Restart, Running, Starting,
    Transaction, VmCreate, VmId, VmReport,
};
use dagger_node::NodeHandle;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of each member.
const ACCOUNTS: usize = 128;
const MACHINES: usize = 64;
/// Transactions handed in together while all this is made.
const STEP: usize = 128;
const PATIENCE: Duration = Duration::from_secs(120);
const DAY_MS: u64 = 24 * 3_600_000;

/// Parameters under which nothing happens but what transactions say: no node here is a machine.
pub fn parameters() -> Parameters {
    Parameters {
        lease_ms: DAY_MS,
        hear_timeout_ms: DAY_MS,
        accept_ms: DAY_MS,
        start_ms: DAY_MS,
        stop_ms: DAY_MS,
        ..Parameters::default()
    }
}

/// A VM of this member's accounts.
pub struct Vm {
    pub id: VmId,
    pub lease_epoch: u64,
    /// The account's key and that of the machine it runs on.
    pub account: SecretKey,
    pub machine: SecretKey,
}

/// A member's part of the ledger.
pub struct Fleet<'a> {
    node: &'a NodeHandle,
    seat: u16,
    n: u16,
    /// VMs of each member.
    vms: usize,
    salt: u64,
    valid_until_ms: u64,
}

impl<'a> Fleet<'a> {
    /// Makes this member's part, with so many VMs, as many as everybody's; `dir` holds its keys. All members' parts are there when it returns.
    pub fn make(
        node: &'a NodeHandle,
        dir: &Path,
        (seat, n): (u16, u16),
        vms: usize,
    ) -> Done<(Self, Vec<Vm>)> {
        let key = |kind: KeyKind| {
            keys::read(&dir.join("keys").join(format!("{kind}.json")), kind).map_err(Failure::from)
        };
        let (operator, own_node) = (key(KeyKind::Operator)?, key(KeyKind::Node)?);
        let valid_until_ms = node.now_ms() + node.read(|l| l.parameters().horizon_ms) * 3 / 4;
        let mut fleet = Self {
            node,
            seat,
            n,
            vms,
            salt: 0,
            valid_until_ms,
        };
        fleet.make_machines(&operator, &own_node)?;
        let vms = fleet.make_vms()?;
        Ok((fleet, vms))
    }

    /// A transaction in its wire form.
    pub fn sign(&mut self, key: &SecretKey, action: Action) -> (Digest, Bytes) {
        self.salt += 1;
        let transaction = Transaction {
            chain: self.node.chain_id(),
            signer: Key(key.public()),
            salt: format!("{}-{}", self.seat, self.salt),
            valid_until_ms: self.valid_until_ms,
            action,
        };
        let signed = transaction.sign(key.signing());
        (signed.digest(), signed.to_wire().into())
    }

    fn make_machines(&mut self, operator: &SecretKey, own_node: &SecretKey) -> Done {
        let mut all = Vec::new();
        for number in 0..ACCOUNTS {
            let create = AccountCreate {
                account: account_name(self.seat, number),
                key: Key(made_key("account", self.seat, number).public()),
            };
            all.push(self.sign(operator, Action::AccountCreate(create)));
        }
        for number in 0..MACHINES {
            let add = MachineAdd {
                machine: machine_name(self.seat, number),
                node_key: Key(made_key("machine", self.seat, number).public()),
                arch: Arch::X86_64,
                vcpus: 256,
                memory_mib: 256 * 256,
                disk_mib: 256 * 1_024,
                cpu_permille: NO_OVERCOMMIT,
                labels: Labels::new(),
            };
            all.push(self.sign(operator, Action::MachineAdd(add)));
        }
        self.execute(all)?;
        let machines = MACHINES * usize::from(self.n);
        self.wait("all machines", |l| l.machines().count() == machines)?;
        let hears: Vec<MachineId> = self.node.read(|l| l.machines().map(|m| m.id).collect());
        let attest = Attest {
            hears,
            lost: Vec::new(),
        };
        let attest = self.sign(own_node, Action::Attest(attest));
        self.execute(vec![attest])?;
        if self.seat == 0 {
            let publish = ImagePublish {
                image: "micro".into(),
                manifest: manifest(),
                private: false,
            };
            let publisher = made_key("account", 0, 0);
            let publish = self.sign(&publisher, Action::ImagePublish(publish));
            self.execute(vec![publish])?;
        }
        self.wait("all machines up and the image", |l| {
            l.machines().all(|m| m.state == MachineState::Up) && l.images().next().is_some()
        })
    }

    fn make_vms(&mut self) -> Done<Vec<Vm>> {
        let creates = (0..self.vms).map(|number| {
            let create = VmCreate {
                name: vm_name(number, false),
                image: format!("{}/micro", account_name(0, 0)),
                image_digest: manifest().digest(),
                vcpus: 1,
                memory_mib: 256,
                disk_mib: 1_024,
                ssh_keys: Vec::new(),
                user_data: None,
                failover: Failover::Recreate,
                on_isolation: OnIsolation::Stop,
                restart: Restart::Never,
                spread: None,
                placement: Placement::default(),
                labels: Labels::new(),
                publish: Vec::new(),
            };
            let account = made_key("account", self.seat, number % ACCOUNTS);
            self.sign(&account, Action::VmCreate(create))
        });
        let creates = creates.collect();
        self.execute(creates)?;
        let vms = self.placed()?;
        let accepted = Accepted {
            ssh_host_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI".into(),
        };
        let starting = Starting {
            accelerator: "kvm".into(),
            reason: "works".into(),
            image_source: "cache".into(),
        };
        for report in [
            Report::Accepted(accepted),
            Report::Starting(starting),
            Report::Running(Running::default()),
        ] {
            let reports = vms
                .iter()
                .map(|vm| self.sign(&vm.machine, reported(vm, report.clone())))
                .collect();
            self.execute(reports)?;
        }
        let total = self.vms * usize::from(self.n);
        self.wait("all VMs", |l| {
            l.vms().filter(|vm| vm.phase == Phase::Running).count() == total
        })?;
        Ok(vms)
    }

    /// Where this member's VMs were placed.
    fn placed(&self) -> Done<Vec<Vm>> {
        let place = |ledger: &Ledger, number: usize| {
            let account = ledger.account_by_name(&account_name(self.seat, number % ACCOUNTS))?;
            let vm = ledger.vm_by_name(account.id, &vm_name(number, false))?;
            let machine = ledger.machine(vm.machine?)?;
            let (seat, of_seat) = machine.name.strip_prefix("machine-")?.split_once('-')?;
            Some(Vm {
                id: vm.id,
                lease_epoch: vm.lease_epoch,
                account: made_key("account", self.seat, number % ACCOUNTS),
                machine: made_key("machine", seat.parse().ok()?, of_seat.parse().ok()?),
            })
        };
        let vms: Option<Vec<Vm>> = self
            .node
            .read(|ledger| (0..self.vms).map(|number| place(ledger, number)).collect());
        vms.ok_or_else(|| failed("a VM was not placed"))
    }

    /// Has transactions executed, whatever it takes; their order does not matter.
    fn execute(&self, all: Vec<(Digest, Bytes)>) -> Done {
        let until = Instant::now() + PATIENCE;
        for some in all.chunks(STEP) {
            let wires: Vec<Bytes> = some.iter().map(|(_, wire)| wire.clone()).collect();
            let mut batch = self.node.submit_many(wires.clone());
            for (digest, _) in some {
                let outcome = loop {
                    let status = self.node.transaction(digest);
                    if let Some(outcome) = status.and_then(|status| status.outcome) {
                        break outcome;
                    }
                    if Instant::now() > until {
                        return Err(failed("a transaction was not executed in time"));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                    if batch.refused() > 0 {
                        // No room in the pool. What was taken is not proposed twice.
                        std::thread::sleep(Duration::from_millis(100));
                        batch = self.node.submit_many(wires.clone());
                    }
                };
                if !outcome.ok {
                    return Err(failed(&format!("{}: {}", outcome.code, outcome.detail)));
                }
            }
        }
        Ok(())
    }

    fn wait(&self, what: &str, done: impl Fn(&Ledger) -> bool) -> Done {
        let until = Instant::now() + PATIENCE;
        while !self.node.read(&done) {
            if Instant::now() > until {
                return Err(failed(&format!("waited in vain for {what}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A machine's word about a VM.
pub fn reported(vm: &Vm, report: Report) -> Action {
    Action::VmReport(VmReport {
        vm: vm.id,
        lease_epoch: vm.lease_epoch,
        report,
    })
}

/// A VM has two names in turn.
pub fn vm_name(number: usize, renamed: bool) -> String {
    let suffix = if renamed { "-b" } else { "-a" };
    format!("vm-{number}{suffix}")
}

fn account_name(seat: u16, number: usize) -> String {
    format!("account-{seat}-{number}")
}

fn machine_name(seat: u16, number: usize) -> String {
    format!("machine-{seat}-{number}")
}

/// Nothing hangs on such keys: they live as long as the benchmark.
fn made_key(what: &str, seat: u16, number: usize) -> SecretKey {
    SecretKey::from_bytes(
        *blake3::hash(format!("bench {what} {seat} {number}").as_bytes()).as_bytes(),
    )
}

fn manifest() -> ImageManifest {
    let kernel = Blob {
        digest: Digest([1; 32]),
        size_bytes: 1_000,
    };
    let boot = DirectBoot {
        kernel,
        initrd: None,
        cmdline: "quiet".into(),
    };
    ImageManifest {
        arch: Arch::X86_64,
        boot: Boot::Direct(boot),
    }
}

fn failed(text: &str) -> Failure {
    Failure::new(Exit::Failure, "E_BENCH", text.to_owned())
}
