//! Transactions against a small ledger: whatever strangers, customers, operators and hosts sign, the ledger's own invariants hold,
//! and what is refused changes no record.

use crate::cloud::{
    Cloud, START_MS, account_key, failed, key, machine_key, manifest, node_key, operator_key,
    public, stopped, vm,
};
use dagger_ledger::*;
use ed25519_zebra::SigningKey;
use std::sync::OnceLock;

/// Steps of one input: each costs an execution and a look at everything.
const STEPS_MAX: usize = 48;
const OPERATORS: u64 = 4;

/// What a step does with its bytes. The number is the low bits of its kind; the rest choose who signs.
#[derive(Clone, Copy)]
pub enum Step {
    /// The bytes are an action, in a document that is otherwise good.
    Action,
    /// The bytes are the whole document.
    Document,
    /// The bytes are what came over the wire, with whatever signature.
    Wire,
    /// A good document, with bytes of it changed: pairs of a place and a byte.
    Mutated,
    /// A host's report on a VM: which VM, which report, which lease epoch too few.
    Report,
    /// Members' word on machines: who, which it hears, which it has lost, as bits.
    Attest,
    /// Time passes: how long, whose events stand in the commit, whether an epoch may end there.
    Time,
    /// A good transaction of the menu.
    Menu,
}

const STEPS: [Step; 8] = [
    Step::Action,
    Step::Document,
    Step::Wire,
    Step::Mutated,
    Step::Report,
    Step::Attest,
    Step::Time,
    Step::Menu,
];

/// One step as bytes: its kind with the signer, the length in two bytes, and its bytes.
pub fn step(step: Step, signer: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short step");
    let mut written = vec![step as u8 | signer << 3];
    written.extend_from_slice(&length.to_le_bytes());
    written.extend_from_slice(bytes);
    written
}

/// Executes an input.
///
/// # Panics
/// If the ledger does what it must not.
pub fn run(input: &[u8]) {
    let mut play = Play::new();
    let mut rest = input;
    for _ in 0..STEPS_MAX {
        let [kind, low, high, tail @ ..] = rest else {
            break;
        };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (bytes, tail) = tail.split_at(tail.len().min(length));
        rest = tail;
        play.step(STEPS[usize::from(kind & 7)], kind >> 3, bytes);
    }
    play.look_closely();
}

struct Play {
    cloud: Cloud,
}

impl Play {
    /// Four operators with a machine each, an account, an image, and VMs in several phases.
    fn new() -> Self {
        static START: OnceLock<(Ledger, Genesis, u64, u64, u64)> = OnceLock::new();
        let (ledger, genesis, next_commit, time_ms, salt) = START.get_or_init(|| {
            let mut cloud = Cloud::new(OPERATORS);
            let [running, placed, stopping] =
                ["running", "placed", "stopped"].map(|name| cloud.create(vm(name)));
            cloud.bring_up(running);
            cloud.bring_up(stopping);
            let stop = VmName {
                vm: "stopped".into(),
            };
            let stop = cloud.account(Action::VmStop(stop));
            cloud.ok(vec![stop]);
            let report = cloud.report(cloud.machine_of(stopping), stopping, stopped());
            cloud.ok(vec![report]);
            assert_eq!(cloud.phase(placed), Phase::Placed);
            let ledger = cloud.ledger;
            (
                ledger,
                cloud.genesis,
                cloud.next_commit,
                cloud.time_ms,
                cloud.salt,
            )
        });
        let mut cloud = Cloud::bare(OPERATORS, Parameters::default());
        cloud.ledger = ledger.clone();
        cloud.genesis = genesis.clone();
        (cloud.next_commit, cloud.time_ms, cloud.salt) = (*next_commit, *time_ms, *salt);
        Play { cloud }
    }

    fn step(&mut self, step: Step, signer: u8, bytes: &[u8]) {
        let key = signing_key(signer);
        match step {
            Step::Action => {
                let body = self.document(&key, bytes);
                self.body(&body, &key);
            }
            Step::Document => self.body(bytes, &key),
            Step::Wire => self.wire(bytes),
            Step::Mutated => {
                let Some((choice, changes)) = bytes.split_first() else {
                    return;
                };
                let action = serde_json::to_vec(&self.menu(*choice)).expect("it serialises");
                let mut body = self.document(&key, &action);
                for change in changes.chunks_exact(3) {
                    let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
                    let place = place % body.len();
                    body[place] = change[2];
                }
                self.body(&body, &key);
            }
            Step::Report => self.report(bytes),
            Step::Attest => {
                let [member, hears, lost] = [0, 1, 2].map(|at| byte(bytes, at));
                let bits = |set: u8| (0..8).filter(|bit| set >> bit & 1 == 1).collect::<Vec<_>>();
                let member = u64::from(member) % OPERATORS;
                let attest = self.cloud.attest(member, &bits(hears), &bits(lost));
                self.execute(attest);
            }
            Step::Time => {
                let [unit, units, awake] = [0, 1, 2].map(|at| byte(bytes, at));
                let passed_ms = u64::from(units) * [1, 100, 1_000, 60_000][usize::from(unit & 3)];
                for (seat, is_awake) in self.cloud.awake.iter_mut().enumerate() {
                    *is_awake = awake >> seat & 1 == 0;
                }
                self.cloud.checkpoint = unit & 4 != 0;
                self.cloud.commit(passed_ms, &[]);
            }
            Step::Menu => {
                let action = self.menu(byte(bytes, 0));
                let transaction = self.cloud.sign(&key, action);
                self.execute(transaction);
            }
        }
    }

    fn document(&mut self, signer: &SigningKey, action: &[u8]) -> Vec<u8> {
        self.cloud.salt += 1;
        let mut body = format!(
            r#"{{"chain":"{}","signer":"{}","salt":"{}","valid_until_ms":{},"action":"#,
            self.cloud.genesis.chain_id,
            public(signer),
            self.cloud.salt,
            self.cloud.time_ms + 60_000,
        )
        .into_bytes();
        body.extend_from_slice(action);
        body.push(b'}');
        body
    }

    fn body(&mut self, body: &[u8], signer: &SigningKey) {
        self.wire(&SignedTransaction::sign(body, signer).to_wire());
    }

    /// Alone or in a batch, it is judged alike.
    fn wire(&mut self, wire: &[u8]) {
        let chain = self.cloud.genesis.chain_id;
        let alone = CheckedTransaction::check(&chain, wire);
        for other in CheckedTransaction::check_batch(&chain, &[wire, wire]) {
            assert_eq!(
                (other.code(), other.digest()),
                (alone.code(), alone.digest())
            );
        }
        self.execute(alone);
    }

    fn report(&mut self, bytes: &[u8]) {
        let vms: Vec<_> = self.cloud.ledger.vms().collect();
        if vms.is_empty() {
            return;
        }
        let vm = vms[usize::from(byte(bytes, 0)) % vms.len()];
        let (id, lease_epoch) = (vm.id, vm.lease_epoch);
        let machine = vm.machine.map_or(0, |machine| machine.0);
        let report = match byte(bytes, 1) % 5 {
            0 => Report::Accepted(Accepted {
                ssh_host_key: "ssh-ed25519 AAAAhost".into(),
            }),
            1 => Report::Starting(Starting {
                accelerator: "tcg".into(),
                reason: "no kvm".into(),
                image_source: "cache".into(),
            }),
            2 => Report::Running(Running::default()),
            3 => stopped(),
            _ => failed(),
        };
        let lease_epoch = lease_epoch.saturating_sub((byte(bytes, 2) & 1).into());
        let machine = machine + u32::from(byte(bytes, 3) & 1);
        let report = self.cloud.report_at(machine, id, lease_epoch, report);
        self.execute(report);
    }

    /// What the good transactions are about.
    fn menu(&self, choice: u8) -> Action {
        let names = ["running", "placed", "stopped", "new"];
        let name = || VmName {
            vm: names[usize::from(choice >> 4) % 4].into(),
        };
        let machine = || MachineName {
            machine: format!("machine-{}", choice >> 4 & 3),
        };
        match choice & 15 {
            0 => Action::VmStop(name()),
            1 => Action::VmStart(name()),
            2 => Action::VmReboot(name()),
            3 => Action::VmDelete(name()),
            4 => Action::MachineDrain(machine()),
            5 => Action::MachineUndrain(machine()),
            6 => Action::MachineRemove(machine()),
            7 => Action::VmRename(VmRename {
                vm: name().vm,
                name: "new".into(),
            }),
            8 => Action::VmResize(VmResize {
                vm: name().vm,
                vcpus: 2,
                memory_mib: 512,
                disk_mib: 2_048,
            }),
            9 => Action::OperatorLeave(OperatorLeave {}),
            10 => Action::Vote(Vote {
                proposal: u64::from(choice >> 4),
                approve: true,
            }),
            11 => Action::ImagePublish(ImagePublish {
                image: name().vm,
                manifest: manifest(),
                private: true,
            }),
            12 => Action::AccountCreate(AccountCreate {
                account: name().vm,
                key: public(&key(5, 1 + u64::from(choice >> 4))),
            }),
            13 => Action::AccountAdopt(AccountName {
                account: "acme".into(),
            }),
            _ => Action::VmCreate(VmCreate {
                publish: vec![Publish {
                    guest_port: 80,
                    host_port: Some(8_080),
                }],
                spread: Some("group".into()),
                ..vm(&name().vm)
            }),
        }
    }

    /// One commit with the transaction, beside the same commit without: refused, it made no difference.
    fn execute(&mut self, transaction: CheckedTransaction) {
        let mut without = self.cloud.ledger.clone();
        let input = |ledger: &Ledger, transactions| {
            let index = self.cloud.next_commit;
            let mut digest = [0u8; 32];
            digest[..8].copy_from_slice(&index.to_le_bytes());
            CommitInput {
                index,
                digest,
                time_ms: self.cloud.time_ms,
                active_members: &[],
                transactions,
                epoch: ledger.epoch().number,
                is_checkpoint: false,
            }
        };
        let transactions = [transaction];
        let output = input(&self.cloud.ledger, &transactions[..]);
        let output = self.cloud.ledger.execute(&output);
        if !output.outcomes[0].code.is_ok() {
            let empty = input(&without, &[]);
            let expected = without.execute(&empty);
            assert_eq!(output.changes, expected.changes);
            assert_eq!(records(&self.cloud.ledger), records(&without));
        }
        self.cloud.next_commit += 1;
        self.cloud.ledger.invariants().expect("invariants");
    }

    /// What is too slow for every step: the root is that of the records, and a snapshot is the ledger.
    fn look_closely(&mut self) {
        let root = self.cloud.ledger.state_root();
        assert_eq!(root, self.cloud.ledger.recompute_state_root());
        let restored = Ledger::restore(&self.cloud.ledger.snapshot());
        assert_eq!(restored.expect("a good snapshot").state_root(), root);
        assert!(self.cloud.ledger.time_ms() >= START_MS);
    }
}

/// Everything that a transaction may change, but the memory that it was there and the chain of outcomes.
fn records(ledger: &Ledger) -> [String; 8] {
    fn text<T: std::fmt::Debug>(records: impl Iterator<Item = T>) -> String {
        format!("{:?}", records.collect::<Vec<_>>())
    }
    [
        text(ledger.operators()),
        text(ledger.machines()),
        text(ledger.accounts()),
        text(ledger.images()),
        text(ledger.vms()),
        text(ledger.proposals()),
        format!("{:?}", ledger.parameters()),
        format!("{:?}", ledger.committee()),
    ]
}

fn signing_key(signer: u8) -> SigningKey {
    let number = u64::from(signer & 3);
    match signer >> 2 & 7 {
        0..=2 => account_key(),
        3 | 4 => operator_key(number),
        5 => node_key(number),
        6 => machine_key(number),
        _ => key(9, number),
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}
