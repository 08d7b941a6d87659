//! A small network for scenario tests: operators, machines, an account and an image, driven commit by commit.
#![allow(dead_code, missing_docs)]

use dagger_ledger::*;
use ed25519_zebra::SigningKey;

pub struct Cloud {
    pub ledger: Ledger,
    pub genesis: Genesis,
    pub next_commit: u64,
    pub time_ms: u64,
    pub salt: u64,
    /// Members whose events stand in the next commits.
    pub awake: Vec<bool>,
    pub changes: Vec<Change>,
    /// Whether commits are checkpoints, at which alone an epoch ends.
    pub checkpoint: bool,
}

pub const START_MS: u64 = 1_800_000_000_000;

/// A key that differs by its role and number.
pub fn key(role: u8, number: u64) -> SigningKey {
    let mut seed = [role; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SigningKey::from(seed)
}

pub fn public(key: &SigningKey) -> Key {
    Key(key.verification_key().into())
}

pub fn operator_key(number: u64) -> SigningKey {
    key(1, number)
}
pub fn node_key(number: u64) -> SigningKey {
    key(2, number)
}
pub fn machine_key(number: u64) -> SigningKey {
    key(4, number)
}
pub fn account_key() -> SigningKey {
    key(5, 0)
}

pub fn genesis(operators: u64, parameters: Parameters) -> Genesis {
    let operators = (0..operators).map(|i| GenesisOperator {
        name: format!("operator-{i}"),
        operator_key: public(&operator_key(i)),
        consensus_key: public(&key(3, i)),
        node_key: public(&node_key(i)),
        weight: 1,
        address: None,
    });
    let genesis = Genesis {
        network: "test".to_string(),
        time_ms: START_MS,
        parameters,
        operators: operators.collect(),
        chain_id: Digest::default(),
    };
    Genesis::from_json(genesis.to_json().as_bytes()).expect("a good genesis")
}

pub fn blob(byte: u8) -> Blob {
    Blob {
        digest: Digest([byte; 32]),
        size_bytes: 1_000,
    }
}

pub fn manifest() -> ImageManifest {
    let boot = DirectBoot {
        kernel: blob(1),
        initrd: Some(blob(2)),
        cmdline: "quiet".to_string(),
    };
    ImageManifest {
        arch: Arch::X86_64,
        boot: Boot::Direct(boot),
    }
}

pub fn vm(name: &str) -> VmCreate {
    VmCreate {
        name: name.to_string(),
        image: "acme/micro".to_string(),
        image_digest: manifest().digest(),
        vcpus: 1,
        memory_mib: 256,
        disk_mib: 1_024,
        ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHh4 me@example".to_string()],
        user_data: None,
        failover: Failover::Recreate,
        on_isolation: OnIsolation::Stop,
        restart: Restart::Never,
        spread: None,
        placement: Placement::default(),
        labels: Labels::new(),
        publish: Vec::new(),
    }
}

impl Cloud {
    /// Operators with nothing else.
    pub fn bare(operators: u64, parameters: Parameters) -> Self {
        let genesis = genesis(operators, parameters);
        Self {
            ledger: Ledger::from_genesis(&genesis),
            genesis,
            next_commit: 1,
            time_ms: START_MS,
            salt: 0,
            awake: vec![true; operators as usize],
            changes: Vec::new(),
            checkpoint: false,
        }
    }

    /// `operators` with one machine each that all others hear, account `acme` and its image `micro`.
    pub fn new(operators: u64) -> Self {
        Self::with_parameters(operators, Parameters::default())
    }

    /// Twenty VMs that publish a port each; every other one runs.
    pub fn busy() -> Self {
        let mut cloud = Self::new(4);
        for i in 0..20 {
            let publish = Publish {
                guest_port: 80,
                host_port: Some(8_080 + i),
            };
            let id = cloud.create(VmCreate {
                publish: vec![publish],
                ..vm(&format!("web-{i}"))
            });
            if i % 2 == 0 {
                cloud.bring_up(id);
            }
        }
        cloud
    }

    pub fn with_parameters(operators: u64, parameters: Parameters) -> Self {
        let mut cloud = Self::bare(operators, parameters);
        let mut batch: Vec<_> = (0..operators)
            .map(|i| cloud.machine_add(i, i, 8, 8_192))
            .collect();
        let create = AccountCreate {
            account: "acme".into(),
            key: public(&account_key()),
        };
        batch.push(cloud.sign(&operator_key(0), Action::AccountCreate(create)));
        cloud.ok(batch);
        let publish = ImagePublish {
            image: "micro".into(),
            manifest: manifest(),
            private: false,
        };
        let publish = cloud.sign(&account_key(), Action::ImagePublish(publish));
        cloud.ok(vec![publish]);
        let all: Vec<u32> = (0..operators as u32).collect();
        let attests = (0..operators).map(|m| cloud.attest(m, &all, &[])).collect();
        cloud.ok(attests);
        cloud
    }

    pub fn machine_add(
        &mut self,
        operator: u64,
        number: u64,
        vcpus: u32,
        memory_mib: u64,
    ) -> CheckedTransaction {
        let add = MachineAdd {
            machine: format!("machine-{number}"),
            node_key: public(&machine_key(number)),
            arch: Arch::X86_64,
            vcpus,
            memory_mib,
            disk_mib: 100_000,
            cpu_permille: NO_OVERCOMMIT,
            labels: Labels::from([("region".to_string(), format!("region-{operator}"))]),
        };
        self.sign(&operator_key(operator), Action::MachineAdd(add))
    }

    pub fn attest(&mut self, member: u64, hears: &[u32], lost: &[u32]) -> CheckedTransaction {
        let ids = |ids: &[u32]| ids.iter().map(|id| MachineId(*id)).collect();
        let attest = Attest {
            hears: ids(hears),
            lost: ids(lost),
        };
        self.sign(&node_key(member), Action::Attest(attest))
    }

    pub fn sign(&mut self, key: &SigningKey, action: Action) -> CheckedTransaction {
        let wire = self.wire(key, action);
        CheckedTransaction::check(&self.genesis.chain_id, &wire)
    }

    pub fn wire(&mut self, key: &SigningKey, action: Action) -> Vec<u8> {
        self.salt += 1;
        let transaction = Transaction {
            chain: self.genesis.chain_id,
            signer: public(key),
            salt: self.salt.to_string(),
            valid_until_ms: self.time_ms + 60_000,
            action,
        };
        transaction.sign(key).to_wire()
    }

    pub fn account(&mut self, action: Action) -> CheckedTransaction {
        self.sign(&account_key(), action)
    }

    pub fn report(&mut self, machine: u32, vm: VmId, report: Report) -> CheckedTransaction {
        let lease_epoch = self.ledger.vm(vm).expect("the VM exists").lease_epoch;
        self.report_at(machine, vm, lease_epoch, report)
    }

    pub fn report_at(
        &mut self,
        machine: u32,
        vm: VmId,
        lease_epoch: u64,
        report: Report,
    ) -> CheckedTransaction {
        let report = VmReport {
            vm,
            lease_epoch,
            report,
        };
        self.sign(&machine_key(machine.into()), Action::VmReport(report))
    }

    /// One commit after `passed_ms`, with the events of every awake member.
    pub fn commit(
        &mut self,
        passed_ms: u64,
        transactions: &[CheckedTransaction],
    ) -> Vec<(Code, Option<Subject>)> {
        self.time_ms += passed_ms;
        let awake = (0..).zip(&self.awake).filter(|(_, awake)| **awake);
        let active: Vec<(u16, u64)> = awake
            .map(|(member, _)| (member, self.next_commit))
            .collect();
        let mut digest = [0u8; 32];
        digest[..8].copy_from_slice(&self.next_commit.wrapping_mul(0x9e37_79b9).to_le_bytes());
        let output = self.ledger.execute(&CommitInput {
            index: self.next_commit,
            digest,
            time_ms: self.time_ms,
            active_members: &active,
            transactions,
            epoch: self.ledger.epoch().number,
            is_checkpoint: self.checkpoint,
        });
        self.next_commit += 1;
        if output.next_epoch.is_some() {
            self.awake = vec![true; self.ledger.committee().len()];
        }
        self.changes.extend(output.changes);
        self.ledger.invariants().expect("invariants");
        output
            .outcomes
            .iter()
            .map(|outcome| (outcome.code, outcome.subject))
            .collect()
    }

    /// A commit at which an epoch may end.
    pub fn checkpoint(&mut self) {
        self.checkpoint = true;
        self.commit(10, &[]);
        self.checkpoint = false;
    }

    /// A commit in which everything must be executed.
    pub fn ok(&mut self, transactions: Vec<CheckedTransaction>) -> Vec<Option<Subject>> {
        let outcomes = self.commit(10, &transactions);
        outcomes
            .into_iter()
            .map(|(code, subject)| {
                assert_eq!(code, Code::Ok);
                subject
            })
            .collect()
    }

    /// The code of a single transaction.
    pub fn code(&mut self, transaction: CheckedTransaction) -> Code {
        self.commit(10, &[transaction])[0].0
    }

    /// Commits every second for `span_ms`.
    pub fn run(&mut self, span_ms: u64) {
        for _ in 0..span_ms / 1_000 {
            self.commit(1_000, &[]);
        }
    }

    pub fn create(&mut self, create: VmCreate) -> VmId {
        let create = self.account(Action::VmCreate(create));
        match self.ok(vec![create])[0] {
            Some(Subject::Vm(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn machine_of(&self, vm: VmId) -> u32 {
        self.ledger
            .vm(vm)
            .expect("the VM exists")
            .machine
            .expect("placed")
            .0
    }

    pub fn phase(&self, vm: VmId) -> Phase {
        self.ledger.vm(vm).expect("the VM exists").phase
    }

    pub fn accept(&mut self, vm: VmId) {
        let report = Report::Accepted(Accepted {
            ssh_host_key: "ssh-ed25519 AAAAhost".into(),
        });
        let report = self.report(self.machine_of(vm), vm, report);
        self.ok(vec![report]);
    }

    /// Accepted and up.
    pub fn bring_up(&mut self, vm: VmId) {
        self.accept(vm);
        let report = self.report(self.machine_of(vm), vm, Report::Running(Running::default()));
        self.ok(vec![report]);
        assert_eq!(self.phase(vm), Phase::Running);
    }

    /// Every rival says that it no longer hears the machine.
    pub fn all_lose(&mut self, machine: u32) {
        let members = self.awake.len() as u64;
        let lost = (0..members)
            .map(|m| self.attest(m, &[], &[machine]))
            .collect();
        self.ok(lost);
    }

    pub fn all_hear(&mut self, machine: u32) {
        let members = self.awake.len() as u64;
        let hears = (0..members)
            .map(|m| self.attest(m, &[machine], &[]))
            .collect();
        self.ok(hears);
    }
}

pub fn stopped() -> Report {
    Report::Stopped(Ended {
        code: "guest_off".into(),
        text: "The guest powered off.".into(),
    })
}

pub fn failed() -> Report {
    Report::Failed(Ended {
        code: "qemu_died".into(),
        text: "QEMU died.".into(),
    })
}
