//! The ledger that is measured: operators, machines and accounts, and commits executed one after the other with the time that
//! each part takes.

use super::stopwatch::Stopwatch;
use dagger_ledger::*;
use ed25519_zebra::SigningKey;
use std::time::Duration;

pub const OPERATORS: u64 = 61;
pub const ACCOUNTS: u64 = 100;
const COMMIT_TRANSACTIONS: usize = 2_500;
/// Machines in one attestation; more than 8,192 are refused.
const ATTESTED: usize = 4_096;
/// Commits per checkpoint: one a second at the target rate, ten commits a second.
const CHECKPOINT_COMMITS: u64 = 10;

fn key(role: u8, number: u64) -> Key {
    let mut seed = [role; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Key(SigningKey::from(seed).verification_key().into())
}

/// Where time went.
#[derive(Default)]
pub struct Spent {
    pub parse: Duration,
    pub decide: Duration,
    pub root: Duration,
    pub commit_worst: Duration,
    pub transactions: u64,
}

impl Spent {
    pub fn all(&self) -> Duration {
        self.parse + self.decide + self.root
    }

    pub fn add(&mut self, more: &Self) {
        self.parse += more.parse;
        self.decide += more.decide;
        self.root += more.root;
        self.commit_worst = self.commit_worst.max(more.commit_worst);
        self.transactions += more.transactions;
    }

    /// Transactions a second.
    pub fn rate(&self) -> f64 {
        self.transactions as f64 / self.all().as_secs_f64()
    }
}

/// A ledger under load.
pub struct World {
    pub ledger: Ledger,
    pub chain: Digest,
    pub keys: Keys,
    commit: u64,
    time_ms: u64,
    salt: u64,
}

/// Who signs; signatures are checked elsewhere, so only the public halves are needed.
pub struct Keys {
    operators: Vec<Key>,
    pub nodes: Vec<Key>,
    pub machines: Vec<Key>,
    pub accounts: Vec<Key>,
}

impl World {
    /// The operators, their machines and the accounts; every machine is heard by everybody.
    pub fn new(machines_per_operator: u64) -> Self {
        let mut world = Self::empty(machines_per_operator);
        world.add_machines(machines_per_operator);
        world.add_accounts();
        world.publish_and_attest();
        world
    }

    fn empty(machines_per_operator: u64) -> Self {
        let keys = Keys {
            operators: (0..OPERATORS).map(|i| key(1, i)).collect(),
            nodes: (0..OPERATORS).map(|i| key(2, i)).collect(),
            machines: (0..OPERATORS * machines_per_operator)
                .map(|i| key(4, i))
                .collect(),
            accounts: (0..ACCOUNTS).map(|i| key(5, i)).collect(),
        };
        let operator = |i: u64| GenesisOperator {
            name: format!("operator-{i}"),
            operator_key: keys.operators[i as usize],
            consensus_key: key(3, i),
            node_key: keys.nodes[i as usize],
            weight: 1,
            address: None,
        };
        let genesis = Genesis {
            network: "bench".into(),
            time_ms: 1_800_000_000_000,
            parameters: Parameters {
                accept_ms: 3_600_000,
                ..Parameters::default()
            },
            operators: (0..OPERATORS).map(operator).collect(),
            chain_id: Digest::default(),
        };
        let genesis = Genesis::from_json(genesis.to_json().as_bytes()).expect("a good genesis");
        let ledger = Ledger::from_genesis(&genesis);
        let (chain, time_ms) = (genesis.chain_id, genesis.time_ms);
        Self {
            ledger,
            chain,
            keys,
            commit: 0,
            time_ms,
            salt: 0,
        }
    }

    /// A transaction as its signer would write it.
    pub fn body(&mut self, signer: Key, action: Action) -> Vec<u8> {
        self.salt += 1;
        let valid_until_ms = self.time_ms + 300_000;
        let salt = self.salt.to_string();
        let transaction = Transaction {
            chain: self.chain,
            signer,
            salt,
            valid_until_ms,
            action,
        };
        serde_json::to_vec(&transaction).expect("it serialises")
    }

    /// Parses and executes bodies commit by commit, with a root at each checkpoint.
    pub fn run(&mut self, bodies: &[Vec<u8>], spent: &mut Spent) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(bodies.len());
        for chunk in bodies.chunks(COMMIT_TRANSACTIONS) {
            let start = Stopwatch::start();
            let checked: Vec<CheckedTransaction> = chunk
                .iter()
                .map(|body| CheckedTransaction::from_verified_body(&self.chain, body))
                .collect();
            spent.parse += start.elapsed();
            let output = self.execute(&checked, spent);
            spent.transactions += chunk.len() as u64;
            let start = Stopwatch::start();
            drop(checked);
            spent.parse += start.elapsed();
            outcomes.extend(output.outcomes);
        }
        outcomes
    }

    /// Executes one commit, 100 ms after the one before.
    pub fn execute(&mut self, checked: &[CheckedTransaction], spent: &mut Spent) -> CommitOutput {
        let active: Vec<(u16, u64)> = (0..OPERATORS as u16).map(|m| (m, self.commit)).collect();
        self.commit += 1;
        self.time_ms += 100;
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(
            &self
                .commit
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        );
        let start = Stopwatch::start();
        let output = self.ledger.execute(&CommitInput {
            index: self.commit,
            digest,
            time_ms: self.time_ms,
            active_members: &active,
            transactions: checked,
            epoch: self.ledger.epoch().number,
            is_checkpoint: false,
        });
        let decided = start.elapsed();
        spent.decide += decided;
        let mut rooted = Duration::ZERO;
        if self.commit.is_multiple_of(CHECKPOINT_COMMITS) {
            let start = Stopwatch::start();
            self.ledger.state_root();
            rooted = start.elapsed();
            spent.root += rooted;
        }
        spent.commit_worst = spent.commit_worst.max(decided + rooted);
        output
    }

    /// Runs bodies that all must succeed.
    pub fn all_ok(&mut self, bodies: &[Vec<u8>]) {
        for outcome in self.run(bodies, &mut Spent::default()) {
            assert_eq!(outcome.code, Code::Ok, "{}", outcome.detail);
        }
    }

    fn add_machines(&mut self, per_operator: u64) {
        let mut bodies = Vec::new();
        for i in 0..OPERATORS * per_operator {
            let operator = i / per_operator;
            let add = MachineAdd {
                machine: format!("machine-{i}"),
                node_key: self.keys.machines[i as usize],
                arch: Arch::X86_64,
                vcpus: 352,
                memory_mib: 352 * 256,
                disk_mib: 352 * 1_024,
                cpu_permille: NO_OVERCOMMIT,
                labels: Labels::from([("region".to_string(), format!("region-{}", operator % 10))]),
            };
            let signer = self.keys.operators[operator as usize];
            bodies.push(self.body(signer, Action::MachineAdd(add)));
        }
        self.all_ok(&bodies);
    }

    fn add_accounts(&mut self) {
        let mut bodies = Vec::new();
        for i in 0..ACCOUNTS {
            let create = AccountCreate {
                account: format!("account-{i}"),
                key: self.keys.accounts[i as usize],
            };
            bodies.push(self.body(self.keys.operators[0], Action::AccountCreate(create)));
        }
        self.all_ok(&bodies);
    }

    fn publish_and_attest(&mut self) {
        let publish = ImagePublish {
            image: "micro".into(),
            manifest: manifest(),
            private: false,
        };
        let publish = self.body(self.keys.accounts[0], Action::ImagePublish(publish));
        let hears: Vec<MachineId> = self.ledger.machines().map(|m| m.id).collect();
        let mut bodies = vec![publish];
        for member in 0..OPERATORS as usize {
            for hears in hears.chunks(ATTESTED) {
                let attest = Attest {
                    hears: hears.to_vec(),
                    lost: Vec::new(),
                };
                bodies.push(self.body(self.keys.nodes[member], Action::Attest(attest)));
            }
        }
        self.all_ok(&bodies);
        assert!(self.ledger.machines().all(|m| m.state == MachineState::Up));
    }
}

/// The one image.
pub fn manifest() -> ImageManifest {
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
