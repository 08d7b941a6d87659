//! A ledger with a long history: blocks that nobody ordered, executed straight away, and the proof of the epoch's end.

use dagger_ledger::{
    Accepted, AccountCreate, Action, Arch, Attest, CheckedTransaction, Code, CommitInput, Ended,
    Failover, Genesis, GenesisOperator, ImageManifest, ImagePublish, Key, Labels, Ledger,
    MachineAdd, MachineId, NO_OVERCOMMIT, OnIsolation, Parameters, Placement, Report, Restart,
    Running, Starting, Transaction, VmCreate, VmId, VmName, VmReport,
};
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, CommitIndex, Committee, Digest, Epoch, EpochEnd,
    Member, MemberIndex, PublicKey, SigningKey,
};

pub const OPERATORS: usize = 4;
const MACHINES: usize = 800;
const ACCOUNTS: usize = 100;
const COMMIT_TRANSACTIONS: usize = 2_500;
/// Ledger time between two commits: transactions come at 2,500 a second.
const COMMIT_MS: u64 = 1_000;
/// VMs that live.
const VMS: u64 = 250_000;

pub fn secret(role: u8, number: usize) -> [u8; 32] {
    let mut seed = [role; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    seed
}

pub fn key(role: u8, number: usize) -> Key {
    let key = ed25519_zebra::SigningKey::from(secret(role, number));
    Key(key.verification_key().into())
}

const OPERATOR: u8 = 1;
pub const NODE: u8 = 2;
pub const CONSENSUS: u8 = 3;
const MACHINE: u8 = 4;
const ACCOUNT: u8 = 5;

pub fn genesis(transactions: u64) -> Genesis {
    let operator = |i: usize| GenesisOperator {
        name: format!("operator-{i}"),
        operator_key: key(OPERATOR, i),
        consensus_key: key(CONSENSUS, i),
        node_key: key(NODE, i),
        weight: 1,
        address: None,
    };
    let genesis = Genesis {
        network: "recovery".into(),
        time_ms: 1_700_000_000_000,
        parameters: Parameters {
            accept_ms: 3_600_000,
            epoch_transactions: transactions,
            epoch_ms: 366 * 24 * 3_600_000,
            ..Parameters::default()
        },
        operators: (0..OPERATORS).map(operator).collect(),
        chain_id: dagger_ledger::Digest::default(),
    };
    Genesis::from_json(genesis.to_json().as_bytes()).expect("a good genesis")
}

/// A ledger on its way through blocks that nobody ordered.
pub struct History {
    pub ledger: Ledger,
    pub chain: dagger_ledger::Digest,
    pub commit: u64,
    pub time_ms: u64,
    salt: u64,
    pub executed: u64,
    pub refused: u64,
    pub body_bytes: u64,
}

impl History {
    fn body(&mut self, signer: Key, action: Action) -> Vec<u8> {
        self.salt += 1;
        let transaction = Transaction {
            chain: self.chain,
            signer,
            salt: self.salt.to_string(),
            valid_until_ms: self.time_ms + 300_000,
            action,
        };
        serde_json::to_vec(&transaction).expect("it serialises")
    }

    fn run(&mut self, bodies: &[Vec<u8>]) {
        for chunk in bodies.chunks(COMMIT_TRANSACTIONS) {
            let checked: Vec<CheckedTransaction> = chunk
                .iter()
                .map(|body| CheckedTransaction::from_verified_body(&self.chain, body))
                .collect();
            self.execute(&checked);
            self.body_bytes += chunk.iter().map(|b| b.len() as u64).sum::<u64>();
        }
    }

    fn execute(&mut self, checked: &[CheckedTransaction]) {
        self.commit += 1;
        self.time_ms += COMMIT_MS;
        let active: Vec<(u16, u64)> = (0..OPERATORS as u16).map(|m| (m, self.commit)).collect();
        let output = self.ledger.execute(&CommitInput {
            index: self.commit,
            digest: self.digest(),
            time_ms: self.time_ms,
            active_members: &active,
            transactions: checked,
            epoch: 0,
            is_checkpoint: true,
        });
        self.executed += checked.len() as u64;
        let refused = output.outcomes.iter().filter(|o| o.code != Code::Ok);
        self.refused += refused.count() as u64;
    }

    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.commit.to_le_bytes()).as_bytes()
    }

    fn set_up(&mut self) {
        let mut bodies = Vec::new();
        for i in 0..MACHINES {
            let add = MachineAdd {
                machine: format!("machine-{i}"),
                node_key: key(MACHINE, i),
                arch: Arch::X86_64,
                vcpus: 352,
                memory_mib: 352 * 256,
                disk_mib: 352 * 1_024,
                cpu_permille: NO_OVERCOMMIT,
                labels: Labels::new(),
            };
            bodies.push(self.body(key(OPERATOR, i % OPERATORS), Action::MachineAdd(add)));
        }
        for i in 0..ACCOUNTS {
            let create = AccountCreate {
                account: format!("account-{i}"),
                key: key(ACCOUNT, i),
            };
            bodies.push(self.body(key(OPERATOR, 0), Action::AccountCreate(create)));
        }
        self.run(&bodies);
        let publish = ImagePublish {
            image: "micro".into(),
            manifest: manifest(),
            private: false,
        };
        let mut bodies = vec![self.body(key(ACCOUNT, 0), Action::ImagePublish(publish))];
        let hears: Vec<MachineId> = self.ledger.machines().map(|m| m.id).collect();
        for member in 0..OPERATORS {
            let attest = Attest {
                hears: hears.clone(),
                lost: Vec::new(),
            };
            bodies.push(self.body(key(NODE, member), Action::Attest(attest)));
        }
        self.run(&bodies);
        assert_eq!(self.refused, 0, "the network was not set up");
    }

    pub fn create(&mut self, number: u64) -> Vec<u8> {
        let create = VmCreate {
            name: format!("vm-{number}"),
            image: "account-0/micro".into(),
            image_digest: manifest().digest(),
            vcpus: 1,
            memory_mib: 256,
            disk_mib: 1_024,
            ssh_keys: vec![
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC2iCsKP6fWsjH8dfAAAAAAAAAAAAAAAAAAAAAA c@x"
                    .into(),
            ],
            user_data: None,
            failover: Failover::Recreate,
            on_isolation: OnIsolation::Stop,
            restart: Restart::Never,
            spread: None,
            placement: Placement::default(),
            labels: Labels::new(),
            publish: Vec::new(),
        };
        let account = key(ACCOUNT, usize::try_from(number).expect("small") % ACCOUNTS);
        self.body(account, Action::VmCreate(create))
    }

    /// Starts, reboots and stops of VMs that live, as their hosts and owners sign them.
    fn life(&mut self, vm: VmId) -> Vec<Vec<u8>> {
        let Some(record) = self.ledger.vm(vm) else {
            return Vec::new();
        };
        let Some(machine) = record.machine else {
            return Vec::new();
        };
        let (name, lease_epoch) = (record.spec.name.clone(), record.lease_epoch);
        let node = key(MACHINE, machine.0 as usize);
        let account = key(ACCOUNT, record.account.0 as usize);
        let report = |report| {
            Action::VmReport(VmReport {
                vm,
                lease_epoch,
                report,
            })
        };
        let named = || VmName { vm: name.clone() };
        let accepted = Accepted {
            ssh_host_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI".into(),
        };
        let starting = Starting {
            accelerator: "kvm".into(),
            reason: "works".into(),
            image_source: "cache".into(),
        };
        let ended = Ended {
            code: "asked".into(),
            text: "Stopped as asked.".into(),
        };
        let actions = [
            (node, report(Report::Accepted(accepted))),
            (node, report(Report::Starting(starting))),
            (node, report(Report::Running(Running::default()))),
            (account, Action::VmReboot(named())),
            (account, Action::VmStop(named())),
            (node, report(Report::Stopped(ended))),
            (account, Action::VmStart(named())),
            (node, report(Report::Running(Running::default()))),
        ];
        let sign = |(key, action)| self.body(key, action);
        actions.into_iter().map(sign).collect()
    }
}

fn manifest() -> ImageManifest {
    let kernel = dagger_ledger::Blob {
        digest: dagger_ledger::Digest([1; 32]),
        size_bytes: 1_000,
    };
    ImageManifest {
        arch: Arch::X86_64,
        boot: dagger_ledger::Boot::Direct(dagger_ledger::DirectBoot {
            kernel,
            initrd: None,
            cmdline: "quiet".into(),
        }),
    }
}

/// Executes so many transactions; the last block ends the epoch.
pub fn history(genesis: &Genesis, transactions: u64) -> History {
    let mut history = History {
        ledger: Ledger::from_genesis(genesis),
        chain: genesis.chain_id,
        commit: 0,
        time_ms: genesis.time_ms,
        salt: 0,
        executed: 0,
        refused: 0,
        body_bytes: 0,
    };
    history.set_up();
    let vms = VMS.min(transactions / 4);
    for first in (0..vms).step_by(COMMIT_TRANSACTIONS) {
        let last = vms.min(first + COMMIT_TRANSACTIONS as u64);
        let bodies: Vec<_> = (first..last).map(|n| history.create(n)).collect();
        history.run(&bodies);
    }
    let ids: Vec<VmId> = history.ledger.vms().map(|vm| vm.id).collect();
    let mut at = 0;
    while history.ledger.epoch().number == 0 {
        let mut bodies = Vec::new();
        while bodies.len() < COMMIT_TRANSACTIONS {
            bodies.extend(history.life(ids[at % ids.len()]));
            at += 7_919;
        }
        bodies.truncate(COMMIT_TRANSACTIONS);
        history.run(&bodies);
    }
    history
}

/// The proof that the first epoch ended with the history's last block.
pub fn end(history: &mut History) -> EpochEnd {
    let member = |i: usize| Member {
        key: PublicKey(key(CONSENSUS, i).0),
        weight: 1,
    };
    let next = Committee::new(Epoch(1), (0..OPERATORS).map(member).collect()).expect("four seats");
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(history.commit),
        commit_digest: Digest(history.digest()),
        outcomes_root: Digest(history.ledger.outcomes_root()),
        state_root: Digest(history.ledger.state_root()),
        time_ms: history.time_ms,
        next_committee: Some(next.digest()),
    };
    let chain = ChainId(history.chain.0);
    let sign = |i: usize| {
        let vote = checkpoint.sign(&chain, &SigningKey::from_bytes(secret(CONSENSUS, i)));
        (MemberIndex(i as u16), vote.signature)
    };
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: (0..OPERATORS - 1).map(sign).collect(),
    };
    EpochEnd { certificate, next }
}
