//! Measures the ledger on one core: `cargo run --release -p dagger-ledger --example bench [-- [--quick] [--json]]`.
//!
//! Signatures are checked elsewhere and in parallel, so transactions come in as verified bodies; they are parsed from JSON here, and
//! the state roots of checkpoints are part of the time. Prints a table, or one JSON object a line.

use std::time::Duration;

use dagger_ledger::*;
use ed25519_zebra::SigningKey;

const OPERATORS: u64 = 61;
const MACHINES_PER_OPERATOR: u64 = 100;
const ACCOUNTS: u64 = 100;
const COMMIT_TRANSACTIONS: usize = 2_500;
/// Commits per checkpoint: one a second at the target rate, ten commits a second.
const CHECKPOINT_COMMITS: u64 = 10;

fn key(role: u8, number: u64) -> Key {
    let mut seed = [role; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Key(SigningKey::from(seed).verification_key().into())
}

/// Time this thread was on a core, so that neighbours on the machine do not count.
struct Stopwatch(Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Self::now())
    }

    fn elapsed(&self) -> Duration {
        Self::now() - self.0
    }

    fn now() -> Duration {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos = line.split(' ').next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("this bench needs Linux's schedstat"))
    }
}

#[derive(Default)]
struct Spent {
    parse: Duration,
    decide: Duration,
    root: Duration,
    root_worst: Duration,
    commit_worst: Duration,
    transactions: u64,
}

impl Spent {
    fn all(&self) -> Duration {
        self.parse + self.decide + self.root
    }
}

struct Bench {
    ledger: Ledger,
    chain: Digest,
    keys: Keys,
    commit: u64,
    time_ms: u64,
    salt: u64,
    json: bool,
}

struct Keys {
    operators: Vec<Key>,
    nodes: Vec<Key>,
    machines: Vec<Key>,
    accounts: Vec<Key>,
}

impl Bench {
    fn new(json: bool) -> Self {
        let keys = Keys {
            operators: (0..OPERATORS).map(|i| key(1, i)).collect(),
            nodes: (0..OPERATORS).map(|i| key(2, i)).collect(),
            machines: (0..OPERATORS * MACHINES_PER_OPERATOR)
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
            json,
        }
    }

    fn body(&mut self, signer: Key, action: Action) -> Vec<u8> {
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
    fn run(&mut self, bodies: &[Vec<u8>], spent: &mut Spent) -> Vec<Outcome> {
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

    fn execute(&mut self, checked: &[CheckedTransaction], spent: &mut Spent) -> CommitOutput {
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
            spent.root_worst = spent.root_worst.max(rooted);
        }
        spent.commit_worst = spent.commit_worst.max(decided + rooted);
        output
    }

    fn all_ok(&mut self, bodies: &[Vec<u8>]) {
        for outcome in self.run(bodies, &mut Spent::default()) {
            assert_eq!(outcome.code, Code::Ok, "{}", outcome.detail);
        }
    }

    fn set_up(&mut self) {
        let mut bodies = Vec::new();
        for i in 0..OPERATORS * MACHINES_PER_OPERATOR {
            let operator = i / MACHINES_PER_OPERATOR;
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
            bodies.push(self.body(
                self.keys.operators[operator as usize],
                Action::MachineAdd(add),
            ));
        }
        for i in 0..ACCOUNTS {
            let key = self.keys.accounts[i as usize];
            let create = AccountCreate {
                account: format!("account-{i}"),
                key,
            };
            bodies.push(self.body(self.keys.operators[0], Action::AccountCreate(create)));
        }
        self.all_ok(&bodies);
        let publish = ImagePublish {
            image: "micro".into(),
            manifest: manifest(),
            private: false,
        };
        let publish = self.body(self.keys.accounts[0], Action::ImagePublish(publish));
        let hears: Vec<MachineId> = self.ledger.machines().map(|m| m.id).collect();
        let mut bodies = vec![publish];
        for member in 0..OPERATORS as usize {
            let attest = Attest {
                hears: hears.clone(),
                lost: Vec::new(),
            };
            bodies.push(self.body(self.keys.nodes[member], Action::Attest(attest)));
        }
        self.all_ok(&bodies);
        assert!(self.ledger.machines().all(|m| m.state == MachineState::Up));
    }

    fn create(&mut self, number: u64) -> Vec<u8> {
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
        };
        self.body(
            self.keys.accounts[(number % ACCOUNTS) as usize],
            Action::VmCreate(create),
        )
    }

    fn creates(&mut self, total: u64) {
        let mut spent = Spent::default();
        let mut last = Spent::default();
        let mut made = 0;
        while made < total {
            let batch = 25_000.min(total - made);
            let bodies: Vec<_> = (made..made + batch).map(|n| self.create(n)).collect();
            last = Spent::default();
            let outcomes = self.run(&bodies, &mut last);
            assert!(
                outcomes.iter().all(|o| o.code == Code::Ok),
                "{:?}",
                outcomes[0]
            );
            made += batch;
            add(&mut spent, &last);
            if !self.json && made.is_multiple_of(250_000) {
                let rate = batch as f64 / last.all().as_secs_f64();
                println!(
                    "  {made:>9} VMs: {rate:>9.0}/s, {} MiB resident",
                    resident_mib()
                );
            }
        }
        let rate = |n: u64, t: Duration| n as f64 / t.as_secs_f64();
        self.say(
            "creates, all parts",
            rate(total, spent.all()),
            "1/s",
            25_000.0,
        );
        self.say(
            "creates, the last 25,000",
            rate(last.transactions, last.all()),
            "1/s",
            25_000.0,
        );
        let decided = rate(total, spent.decide);
        self.say("creates, decisions only", decided, "1/s", 50_000.0);
        self.say(
            "ratio to Nomad's C2M (1,500/s)",
            decided / 1_500.0,
            "x",
            0.0,
        );
        let us = |t: Duration| t.as_secs_f64() * 1e6 / total as f64;
        self.say("parsing per create", us(spent.parse), "us", 0.0);
        self.say("roots per create", us(spent.root), "us", -3.0);
        self.say(
            "longest commit with root",
            spent.commit_worst.as_secs_f64() * 1e3,
            "ms",
            0.0,
        );
        self.say("resident memory", resident_mib() as f64, "MiB", -4_096.0);
    }

    /// Reports, stops, starts, reboots, renames, attestations, creates and deletes.
    fn mixed(&mut self, rounds: u64) {
        let mut spent = Spent::default();
        let ids: Vec<VmId> = self.ledger.vms().map(|vm| vm.id).collect();
        for round in 0..rounds {
            let mut bodies = Vec::new();
            for i in 0..2_500 {
                let vm = ids[((round * 2_500 + i) as usize * 7_919) % ids.len()];
                bodies.extend(self.life(vm, round * 10_000 + i));
            }
            let outcomes = self.run(&bodies, &mut spent);
            let bad = outcomes.iter().filter(|o| o.code != Code::Ok).count();
            assert!(bad * 20 < outcomes.len(), "{bad} of {}", outcomes.len());
        }
        let rate = spent.transactions as f64 / spent.all().as_secs_f64();
        self.say("mixed transactions, all parts", rate, "1/s", 100_000.0);
        let us = |t: Duration| t.as_secs_f64() * 1e6 / spent.transactions as f64;
        self.say("  parsing", us(spent.parse), "us", 0.0);
        self.say("  deciding", us(spent.decide), "us", 0.0);
        self.say("  roots", us(spent.root), "us", 0.0);
    }

    fn life(&mut self, vm: VmId, salt: u64) -> Vec<Vec<u8>> {
        let Some(record) = self.ledger.vm(vm) else {
            return Vec::new();
        };
        let Some(machine) = record.machine else {
            return Vec::new();
        };
        let (name, lease_epoch) = (record.spec.name.clone(), record.lease_epoch);
        let (node, account) = (
            self.keys.machines[machine.0 as usize],
            self.keys.accounts[record.account.0 as usize],
        );
        let report = |report| {
            Action::VmReport(VmReport {
                vm,
                lease_epoch,
                report,
            })
        };
        let ended = || Ended {
            code: "asked".into(),
            text: "Stopped as asked.".into(),
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
        let mut actions = vec![
            (node, report(Report::Accepted(accepted))),
            (node, report(Report::Starting(starting))),
            (node, report(Report::Running(Running::default()))),
            (account, Action::VmReboot(named())),
            (account, Action::VmStop(named())),
            (node, report(Report::Stopped(ended()))),
            (account, Action::VmStart(named())),
            (node, report(Report::Running(Running::default()))),
        ];
        if salt.is_multiple_of(5) {
            actions.push((account, Action::VmDelete(named())));
            actions.push((node, report(Report::Stopped(ended()))));
        }
        actions
            .into_iter()
            .map(|(key, action)| self.body(key, action))
            .collect()
    }

    /// A sixth of all machines goes silent at once, the brake opened by hand.
    fn failover(&mut self, machines: usize) {
        let gone: Vec<MachineId> = self
            .ledger
            .machines()
            .map(|m| m.id)
            .take(machines)
            .collect();
        let hosted: u64 = gone
            .iter()
            .map(|id| u64::from(self.ledger.machine(*id).unwrap().vms))
            .sum();
        let mut bodies = Vec::new();
        for member in 0..OPERATORS as usize {
            let attest = Attest {
                hears: Vec::new(),
                lost: gone.clone(),
            };
            bodies.push(self.body(self.keys.nodes[member], Action::Attest(attest)));
        }
        self.all_ok(&bodies);
        let mut spent = Spent::default();
        let mut moved = 0;
        let start = Stopwatch::start();
        let mut commits = 0;
        while moved < hosted && commits < 2_000 {
            commits += 1;
            let output = self.execute(&[], &mut spent);
            let placed = |change: &&Change| {
                matches!(
                    change,
                    Change::VmPlaced { .. }
                        | Change::VmPhase {
                            phase: Phase::Pending,
                            ..
                        }
                )
            };
            moved += output.changes.iter().filter(placed).count() as u64;
        }
        self.say("VMs re-placed after mass failure", moved as f64, "", 0.0);
        self.say(
            "  execution and roots",
            start.elapsed().as_secs_f64(),
            "s",
            -20.0,
        );
        self.say(
            "  longest commit with root",
            spent.commit_worst.as_secs_f64() * 1e3,
            "ms",
            -200.0,
        );
    }

    /// What liveness costs when nothing happens: commits with events of all members and no transaction.
    fn idle(&mut self) {
        let mut spent = Spent::default();
        for _ in 0..6_000 {
            self.execute(&[], &mut spent);
        }
        // 6,000 commits at 100 ms are 600 s.
        let share = (spent.decide + spent.root).as_secs_f64() / 600.0 * 100.0;
        self.say(
            "liveness of 6,100 machines, 10 commits/s",
            share,
            "% of a core",
            -1.0,
        );
    }

    /// Proofs of VMs under the present root.
    fn proofs(&mut self) {
        const COUNT: u64 = 2_000;
        let root = Digest(self.ledger.state_root());
        let vms: Vec<(String, String)> = self
            .ledger
            .vms()
            .take(COUNT as usize)
            .map(|vm| {
                let account = self.ledger.account(vm.account).expect("there").name.clone();
                (account, vm.spec.name.clone())
            })
            .collect();
        let start = Stopwatch::start();
        let keys = vms
            .into_iter()
            .map(|(account, name)| StateKey::Vm(account, name));
        let proofs: Vec<StateProof> = keys
            .map(|key| self.ledger.prove(&key).expect("unchanged"))
            .collect();
        let made = start.elapsed().as_secs_f64() * 1e3 / COUNT as f64;
        let start = Stopwatch::start();
        assert!(proofs.iter().all(|proof| proof.verify(&root).is_ok()));
        let verified = start.elapsed().as_secs_f64() * 1e3 / COUNT as f64;
        let size = |proof: &StateProof| borsh::to_vec(proof).expect("in memory").len();
        let largest = proofs.iter().map(size).max().unwrap_or(0);
        self.say("proof, made", made, "ms", -1.0);
        self.say("proof, verified", verified, "ms", -1.0);
        self.say("proof, largest of 2,000", largest as f64, "bytes", -4_096.0);
    }

    /// Signature checks in batches of 128, beside the library's own batch on the same bytes.
    fn signatures(&mut self) {
        const COUNT: u64 = 2_560;
        let seed = |i: u64| -> [u8; 32] {
            [i as u8, (i >> 8) as u8]
                .repeat(16)
                .try_into()
                .expect("32 bytes")
        };
        let keys: Vec<SigningKey> = (0..COUNT).map(|i| SigningKey::from(seed(i))).collect();
        let wires: Vec<Vec<u8>> = (0..COUNT)
            .map(|i| {
                let key = &keys[i as usize];
                let signer = Key(key.verification_key().into());
                let action = Action::VmStop(VmName {
                    vm: format!("vm-{i}"),
                });
                SignedTransaction::sign(self.body(signer, action), key).to_wire()
            })
            .collect();
        // Turn by turn, and the medians: whoever went first would pay for cold caches and for what else the machine does.
        let (mut ours, mut parsing, mut library) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SIGNATURE_ROUNDS {
            let start = Stopwatch::start();
            for batch in wires.chunks(128) {
                let checked = CheckedTransaction::check_batch(&self.chain, batch);
                assert!(checked.iter().all(|one| one.code().is_ok()));
            }
            ours.push(start.elapsed());
            let start = Stopwatch::start();
            for wire in &wires {
                CheckedTransaction::from_verified_body(&self.chain, &wire[64..]);
            }
            parsing.push(start.elapsed());
            let start = Stopwatch::start();
            for batch in wires.chunks(128) {
                let mut verifier = ed25519_zebra::batch::Verifier::new();
                for wire in batch {
                    let transaction = Transaction::parse(&wire[64..]).expect("good");
                    let signature: [u8; 64] = wire[..64].try_into().expect("64 bytes");
                    let message = [b"dagger transaction v1\0", &wire[64..]].concat();
                    let key = ed25519_zebra::VerificationKeyBytes::from(transaction.signer.0);
                    verifier.queue((key, ed25519_zebra::Signature::from(signature), &message[..]));
                }
                assert!(verifier.verify(Counter(0)).is_ok());
            }
            library.push(start.elapsed());
        }
        let [ours, parsing, library] = [ours, parsing, library].map(median);
        let us = |t: Duration| t.as_secs_f64() * 1e6 / COUNT as f64;
        self.say(
            "signature check with parsing, batches of 128",
            us(ours),
            "us",
            0.0,
        );
        self.say(
            "  the library's batch with the same parsing",
            us(library),
            "us",
            0.0,
        );
        self.say("  of which parsing", us(parsing), "us", 0.0);
        self.say(
            "  ratio",
            ours.as_secs_f64() / library.as_secs_f64(),
            "x",
            -1.1,
        );
    }

    /// Target above 0: at least; below 0: at most.
    fn say(&self, name: &str, value: f64, unit: &str, target: f64) {
        let ok = if target < 0.0 {
            value <= -target
        } else {
            value >= target
        };
        if self.json {
            let line = serde_json::json!({
                "bench": "ledger", "name": name.trim(), "value": value, "unit": unit,
                "target": target.abs(), "ok": ok,
            });
            println!("{line}");
        } else {
            let goal = match target {
                0.0 => String::new(),
                t if t < 0.0 => format!("<= {}", -t),
                t => format!(">= {t}"),
            };
            let mark = if target == 0.0 {
                ""
            } else if ok {
                "ok"
            } else {
                "MISSED"
            };
            println!("{name:<42} {value:>14.2} {unit:<12} {goal:<12} {mark}");
        }
    }
}

/// Weights for the library's own batch: any numbers do for a measurement.
/// Times that signatures are measured; an odd number.
const SIGNATURE_ROUNDS: usize = 15;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Counter(u64);

impl rand_core::TryRng for Counter {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.try_next_u64()? as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counter {}

fn add(sum: &mut Spent, more: &Spent) {
    sum.parse += more.parse;
    sum.decide += more.decide;
    sum.root += more.root;
    sum.root_worst = sum.root_worst.max(more.root_worst);
    sum.commit_worst = sum.commit_worst.max(more.commit_worst);
    sum.transactions += more.transactions;
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

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or("");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1_024
}

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let quick = has("--quick");
    let mut bench = Bench::new(has("--json"));
    bench.set_up();
    bench.creates(if quick { 250_000 } else { 2_000_000 });
    bench.mixed(if quick { 5 } else { 20 });
    bench.idle();
    bench.proofs();
    bench.signatures();
    bench.failover(if quick { 100 } else { 1_000 });
}
