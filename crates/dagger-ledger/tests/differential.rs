//! The ledger against the naive model under random commits. A failure is a seed: rerun with `DAGGER_LEDGER_SEED=<seed>`; the number of commits
//! is `DAGGER_LEDGER_STEPS`.

mod cloud;
mod model;

use std::collections::BTreeMap;

use cloud::{Cloud, account_key, key, machine_key, manifest, node_key, operator_key, public, vm};
use dagger_ledger::*;
use model::{Model, Signer};

const OPERATORS: u32 = 5;
const MACHINES_MAX: usize = 14;
const NAMES: u64 = 24;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }
}

fn parameters() -> Parameters {
    Parameters {
        lease_ms: 4_000,
        margin_ms: 1_000,
        heartbeat_ms: 500,
        gap_cap_ms: 2_000,
        accept_ms: 3_000,
        start_ms: 6_000,
        stop_ms: 6_000,
        retry_ms: 1_500,
        failover_chunk_max: 3,
        brake_percent: 40,
        brake_window_ms: 10_000,
        brake_vms_per_s: 2,
        history_max: 6,
        dispute_ms: 6_000,
        ..Parameters::default()
    }
}

struct Match {
    cloud: Cloud,
    model: Model,
    dice: Dice,
    machines: u64,
    /// Bits of the machines that are down.
    down: u64,
    /// A state that was frozen, and its bytes at that time.
    frozen: Option<(FrozenLedger, Vec<u8>)>,
    seen: BTreeMap<String, u64>,
}

impl Match {
    fn new(seed: u64) -> Self {
        let mut cloud = Cloud::bare(OPERATORS.into(), parameters());
        let model = Model::new(parameters(), OPERATORS, cloud.time_ms);
        let keys = [account_key(), key(5, 1)];
        let mut batch = Vec::new();
        for (i, account) in ["acme", "blue"].iter().enumerate() {
            let create = AccountCreate {
                account: account.to_string(),
                key: public(&keys[i]),
            };
            batch.push(cloud.sign(&operator_key(0), Action::AccountCreate(create)));
        }
        let publish = ImagePublish {
            image: "micro".into(),
            manifest: manifest(),
            private: false,
        };
        batch.push(cloud.sign(&account_key(), Action::ImagePublish(publish)));
        cloud.commit(0, &batch);
        Self {
            cloud,
            model,
            dice: Dice(seed),
            machines: 0,
            down: 0,
            frozen: None,
            seen: BTreeMap::new(),
        }
    }

    fn account(&mut self, account: usize) -> ed25519_zebra::SigningKey {
        if account == 0 {
            account_key()
        } else {
            key(5, 1)
        }
    }

    fn names(&mut self, kind: &str, count: u64) -> Vec<String> {
        if !self.dice.one_in(6) {
            return Vec::new();
        }
        (0..1 + self.dice.roll(3))
            .map(|_| format!("{kind}-{}", self.dice.roll(count)))
            .collect()
    }

    fn create(&mut self) -> VmCreate {
        let failover = self
            .dice
            .pick(&[Failover::None, Failover::Recreate, Failover::Recreate]);
        let spread = self
            .dice
            .pick(&[None, Some("web".to_string()), Some("db".to_string())]);
        let restart = self
            .dice
            .pick(&[Restart::Never, Restart::OnFailure, Restart::Always]);
        let placement = self.placement();
        VmCreate {
            vcpus: 1 + self.dice.roll(3) as u32,
            memory_mib: 128 << self.dice.roll(4),
            disk_mib: 1_024 << self.dice.roll(3),
            failover,
            spread,
            restart,
            placement,
            ..vm(&format!("vm-{}", self.dice.roll(NAMES)))
        }
    }

    fn placement(&mut self) -> Placement {
        let machines = self.machines.max(1);
        Placement {
            machines: self.names("machine", machines),
            operators: self.names("operator", OPERATORS.into()),
            regions: self.names("region", 3),
            deny_machines: self.names("machine", machines),
            deny_operators: self.names("operator", OPERATORS.into()),
            deny_regions: self.names("region", 3),
        }
    }

    fn customer(&mut self) -> Action {
        let vm = format!("vm-{}", self.dice.roll(NAMES));
        let named = VmName { vm: vm.clone() };
        match self.dice.roll(15) {
            0..5 => Action::VmCreate(self.create()),
            6 => Action::VmDelete(named),
            5 | 7 => Action::VmStop(named),
            8 => Action::VmStart(named),
            9 => Action::VmReboot(named),
            10 => Action::VmRename(VmRename {
                vm,
                name: format!("vm-{}", self.dice.roll(NAMES)),
            }),
            13 | 14 => Action::VmDispute(VmDispute {
                vm,
                claim: String::new(),
            }),
            11 => Action::VmPlace(VmPlace {
                vm,
                placement: self.placement(),
            }),
            _ => Action::VmResize(VmResize {
                vm,
                vcpus: 1 + self.dice.roll(4) as u32,
                memory_mib: 128 << self.dice.roll(5),
                disk_mib: 1_024 << self.dice.roll(4),
            }),
        }
    }

    /// Mostly what the VM's machine would say next.
    fn report(&mut self) -> Option<(u32, VmReport)> {
        // Mostly about those that wait for their machine.
        let any = self.dice.one_in(15);
        let waits = |vm: &&VmRecord| any || !matches!(vm.duty(), Duty::Keep);
        let vms: Vec<VmRecord> = self.cloud.ledger.vms().filter(waits).cloned().collect();
        if vms.is_empty() {
            return None;
        }
        let vm = self.dice.pick(&vms);
        let machine = vm.machine.map_or(0, |machine| machine.0);
        let machine = if self.dice.one_in(20) {
            self.dice.roll(self.machines) as u32
        } else {
            machine
        };
        if self.down & 1 << machine != 0 && !self.dice.one_in(10) {
            return None;
        }
        let lease_epoch = vm.lease_epoch - u64::from(self.dice.one_in(20));
        let ended = Ended {
            code: "x".into(),
            text: "y".into(),
        };
        let accepted = Accepted {
            ssh_host_key: "ssh-ed25519 AAAA".into(),
        };
        let starting = Starting {
            accelerator: "tcg".into(),
            reason: "no kvm".into(),
            image_source: "cache".into(),
        };
        let port = |guest_port: u64| Published {
            guest_port: guest_port as u16,
            address: Some(format!("192.0.2.1:{}", 1_024 + guest_port)),
            problem: None,
        };
        let running = Running {
            published: (0..self.dice.roll(3)).map(port).collect(),
            ..Running::default()
        };
        let report = match (self.dice.roll(40), vm.phase) {
            (0, _) => Report::Failed(ended),
            (1, _) => Report::Stopped(ended),
            (2, _) => Report::Starting(starting),
            (_, Phase::Placed) => Report::Accepted(accepted),
            (3..15, Phase::Accepted) => Report::Starting(starting),
            (_, Phase::Accepted | Phase::Starting) | (15..18, Phase::Running) => {
                Report::Running(running)
            }
            (_, Phase::Stopping | Phase::Moving | Phase::Deleting) => Report::Stopped(ended),
            _ => return None,
        };
        Some((
            machine,
            VmReport {
                vm: vm.id,
                lease_epoch,
                report,
            },
        ))
    }

    /// What a member would say: the truth, but for a slip now and then.
    fn attest(&mut self) -> Attest {
        let mut attest = Attest::default();
        for machine in 0..self.machines {
            let down = self.down & 1 << machine != 0;
            let slip = self.dice.one_in(60);
            let list = if down != slip {
                &mut attest.lost
            } else {
                &mut attest.hears
            };
            list.push(MachineId(machine as u32));
        }
        attest
    }

    /// Now and then other machines are down: mostly none or few, sometimes most.
    fn change_weather(&mut self) {
        if self.dice.one_in(50) {
            self.down = match self.dice.roll(5) {
                0 | 1 => 0,
                2 | 3 => 1 << self.dice.roll(MACHINES_MAX as u64),
                _ => self.dice.roll(1 << MACHINES_MAX),
            };
        }
    }

    fn transaction(&mut self) -> Option<(Signer, ed25519_zebra::SigningKey, Action)> {
        match self.dice.roll(40) {
            0 if self.machines < MACHINES_MAX as u64 => {
                let number = self.machines;
                self.machines += 1;
                let operator = self.dice.roll(OPERATORS.into());
                let add = MachineAdd {
                    machine: format!("machine-{number}"),
                    node_key: public(&machine_key(number)),
                    arch: Arch::X86_64,
                    vcpus: 2 + self.dice.roll(7) as u32,
                    memory_mib: 2_048 + 512 * self.dice.roll(4),
                    disk_mib: 32_768,
                    cpu_permille: self.dice.pick(&[NO_OVERCOMMIT, 1_500, 2_333]),
                    labels: Labels::from([(
                        "region".into(),
                        format!("region-{}", self.dice.roll(3)),
                    )]),
                };
                let signer = Signer::Operator(operator as u32);
                Some((signer, operator_key(operator), Action::MachineAdd(add)))
            }
            1 => {
                let operator = self.dice.roll(OPERATORS.into());
                let machine = format!("machine-{}", self.dice.roll(self.machines + 1));
                let name = MachineName { machine };
                let action = match self.dice.roll(24) {
                    0 => Action::MachineRemove(name),
                    1..8 => Action::MachineDrain(name),
                    _ => Action::MachineUndrain(name),
                };
                Some((
                    Signer::Operator(operator as u32),
                    operator_key(operator),
                    action,
                ))
            }
            2..10 => {
                let member = self.dice.roll(OPERATORS.into());
                let attest = self.attest();
                Some((
                    Signer::Member(member as u16),
                    node_key(member),
                    Action::Attest(attest),
                ))
            }
            10 | 11 => {
                let disputed = |vm: &&VmRecord| vm.dispute.is_some();
                let ledger = &self.cloud.ledger;
                let vm = if self.dice.one_in(20) {
                    ledger.vms().find(disputed)
                } else {
                    ledger.disputed_vms().next()
                };
                let vm = vm?.clone();
                let probe = VmProbe {
                    vm: vm.id,
                    lease_epoch: vm.lease_epoch - u64::from(self.dice.one_in(20)),
                    reached: self.dice.one_in(2),
                    detail: String::new(),
                };
                let waits = vm.dispute.iter().flat_map(|d| d.waits_for());
                let waits: Vec<u64> = waits.map(|operator| operator.0.into()).collect();
                let member = if waits.is_empty() || self.dice.one_in(8) {
                    self.dice.roll(OPERATORS.into())
                } else {
                    self.dice.pick(&waits)
                };
                Some((
                    Signer::Member(member as u16),
                    node_key(member),
                    Action::VmProbe(probe),
                ))
            }
            12..18 => {
                let account = self.dice.roll(2) as usize;
                let mut action = self.customer();
                if let Action::VmCreate(create) = &mut action {
                    create.image = "acme/micro".into();
                }
                Some((Signer::Account(account), self.account(account), action))
            }
            _ => {
                let (machine, report) = self.report()?;
                let key = machine_key(machine.into());
                Some((Signer::Machine(machine), key, Action::VmReport(report)))
            }
        }
    }

    fn step(&mut self) {
        self.change_weather();
        let mut real = Vec::new();
        let mut naive = Vec::new();
        for _ in 0..self.dice.roll(12) {
            let Some((signer, key, action)) = self.transaction() else {
                continue;
            };
            self.cloud.salt += 1;
            let transaction = Transaction {
                chain: self.cloud.genesis.chain_id,
                signer: public(&key),
                salt: self.cloud.salt.to_string(),
                valid_until_ms: self.cloud.time_ms + 500_000,
                action: action.clone(),
            };
            let body = serde_json::to_vec(&transaction).unwrap();
            real.push(CheckedTransaction::from_verified_body(
                &self.cloud.genesis.chain_id,
                &body,
            ));
            naive.push((signer, action));
        }
        let passed = self.dice.pick(&[0, 40, 100, 300, 300, 700, 1_500, 2_500]);
        let passed = if self.dice.one_in(300) {
            400_000
        } else {
            passed
        };
        self.cloud.time_ms += passed;
        let index = self.cloud.next_commit;
        self.cloud.next_commit += 1;
        let silent = self.dice.roll(8);
        let active: Vec<(u16, u64)> = (0..OPERATORS as u16)
            .filter(|member| u64::from(*member) != silent && !self.dice.one_in(4))
            .map(|member| (member, index))
            .collect();
        let mut digest = [0u8; 32];
        digest[..8].copy_from_slice(&self.dice.roll(u64::MAX).to_le_bytes());
        let output = self.cloud.ledger.execute(&CommitInput {
            index,
            digest,
            time_ms: self.cloud.time_ms,
            active_members: &active,
            transactions: &real,
            epoch: 0,
            is_checkpoint: false,
        });
        self.note(&output);
        let codes: Vec<Code> = output.outcomes.iter().map(|outcome| outcome.code).collect();
        let expected = self
            .model
            .execute(digest, self.cloud.time_ms, &active, &naive);
        assert_eq!(codes, expected);
        self.compare();
    }

    /// Counts what was reached.
    fn note(&mut self, output: &CommitOutput) {
        let codes = output
            .outcomes
            .iter()
            .map(|outcome| format!("{:?}", outcome.code));
        let changes = output.changes.iter().filter_map(|change| match change {
            Change::VmPlaced { reason, .. } => Some(format!("Placed {reason:?}")),
            Change::VmPhase { phase, reason, .. } => Some(format!("{phase:?} {reason:?}")),
            Change::MachineState { state, .. } => Some(format!("{state:?}")),
            Change::Brake { on, .. } => Some(format!("Brake {on}")),
            Change::VmDispute { status, .. } => Some(format!("Dispute {status:?}")),
            _ => None,
        });
        for what in codes.chain(changes) {
            *self.seen.entry(what).or_default() += 1;
        }
    }

    fn compare(&self) {
        let ledger = &self.cloud.ledger;
        assert_eq!(ledger.active_ms(), self.model.active);
        assert_eq!(ledger.brake_is_on(), self.model.braked);
        let machines: Vec<_> = ledger
            .machines()
            .map(|m| {
                (
                    m.id.0,
                    m.state,
                    m.draining,
                    m.sweep.map(|s| (s.since_active_ms, s.next.0)),
                    (m.flaps, m.damped_until_active_ms, m.disputes_upheld),
                )
            })
            .collect();
        let naive = self.model.machines.iter().flatten();
        let naive: Vec<_> = naive
            .map(|m| {
                (
                    m.id,
                    m.state,
                    m.draining,
                    m.sweep,
                    (m.flaps, m.damped, m.upheld),
                )
            })
            .collect();
        assert_eq!(machines, naive);
        assert_eq!(ledger.vms().count(), self.model.vms.len());
        for vm in &self.model.vms {
            let real = ledger.vm(VmId(vm.id)).expect("the model has it");
            let refused: Vec<u32> = real.refused_by.iter().map(|m| m.0).collect();
            assert_eq!(
                (
                    real.phase,
                    real.reason,
                    real.machine.map(|m| m.0),
                    real.lease_epoch
                ),
                (vm.phase, vm.reason, vm.machine, vm.epoch),
                "VM {}",
                vm.id
            );
            assert_eq!(
                (
                    real.deadline_active_ms,
                    real.disk_epoch,
                    real.attempts,
                    real.ran,
                    (real.boots, real.restarts)
                ),
                (
                    vm.deadline,
                    vm.disk_epoch,
                    vm.attempts,
                    vm.ran,
                    (vm.boots, vm.restarts)
                ),
                "VM {}",
                vm.id
            );
            let dispute = real.dispute.as_deref().map(|d| {
                let rivals: Vec<u32> = d.rivals.iter().map(|o| o.0).collect();
                let probes = d.probes.iter().map(|p| (p.operator.0, p.reached));
                (d.status, d.deadline_active_ms, rivals, probes.collect())
            });
            let naive = vm.dispute.as_ref();
            let naive = naive.map(|d| (d.status, d.deadline, d.rivals.clone(), d.probes.clone()));
            assert_eq!(dispute, naive, "VM {}", vm.id);
            assert_eq!(
                (
                    refused,
                    real.power == Power::On,
                    real.ssh_host_key.is_some(),
                    &real.ports.opened,
                    &real.spec.name
                ),
                (
                    vm.refused.clone(),
                    vm.on,
                    vm.host_key,
                    &vm.published,
                    &vm.name
                ),
                "VM {}",
                vm.id
            );
        }
    }

    /// What is too slow for every step.
    fn look_closely(&mut self) {
        self.cloud.ledger.invariants().expect("invariants");
        let root = self.cloud.ledger.state_root();
        assert_eq!(root, self.cloud.ledger.recompute_state_root());
        let mut copy = Ledger::restore(&self.cloud.ledger.snapshot()).expect("a good snapshot");
        assert_eq!(copy.state_root(), root);
        for vm in self.cloud.ledger.vms() {
            let explained = self.cloud.ledger.explain(vm.id).expect("there");
            let first = explained.machines.iter().find(|m| m.filtered.is_empty());
            assert_eq!(explained.chosen, first.map(|m| m.machine));
        }
        // Go on with the copy: nothing may depend on how the state came about.
        self.cloud.ledger = copy;
        // What was frozen the last time has not moved since.
        let now = (self.cloud.ledger.freeze(), self.cloud.ledger.snapshot());
        if let Some((frozen, then)) = self.frozen.replace(now) {
            let mut bytes = Vec::new();
            frozen.write(&mut bytes).expect("memory takes it");
            assert!(bytes == then, "a frozen state went on");
        }
    }
}

fn play(seed: u64, steps: u64) -> BTreeMap<String, u64> {
    let mut game = Match::new(seed);
    for step in 0..steps {
        game.step();
        if step % 7 == 3 {
            // Nodes do so between any two commits, each when it likes.
            let ahead_ms = step % 5 * 6_000;
            let now_ms = game.cloud.ledger.time_ms() + ahead_ms;
            game.cloud.ledger.look_ahead(now_ms);
        }
        if step % 61 == 60 {
            game.look_closely();
        }
    }
    game.seen
}

#[test]
fn random_commits_do_not_tell_the_ledger_from_the_model() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let steps = number("DAGGER_LEDGER_STEPS").unwrap_or(12_000);
    if let Some(seed) = number("DAGGER_LEDGER_SEED") {
        play(seed, steps);
        return;
    }
    const GAME: u64 = 1_500;
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..steps.div_ceil(GAME) {
        println!("DAGGER_LEDGER_SEED={seed}");
        for (what, times) in play(seed, GAME.min(steps)) {
            *seen.entry(what).or_default() += times;
        }
    }
    println!("{seen:#?}");
    // What the play must have reached, or it tests too little.
    for what in [
        "Ok",
        "NameTaken",
        "NoMachineFits",
        "StaleEpoch",
        "WrongMachine",
        "WrongPhase",
        "MachineNotEmpty",
        "Placed LeaseLapsed",
        "Placed NotAccepted",
        "Placed NotStarted",
        "Placed MachineFailed",
        "Placed MachineReturned",
        "Placed RoomFound",
        "Placed Draining",
        "Pending NoMachineFits",
        "Lost LeaseLapsed",
        "Failed AttemptsExhausted",
        "Stopped LeaseLapsed",
        "Stopped NotStopped",
        "Moving Draining",
        "Moving Requested",
        "DiskStays",
        "Restarting Reported",
        "Placed Restarted",
        "Running Reported",
        "Dispute Open",
        "Dispute Upheld",
        "Dispute Dismissed",
        "Dispute Undecided",
        "Dispute Moot",
        "Moving DisputeUpheld",
        "Placed DisputeUpheld",
        "NoDispute",
        "AlreadyDone",
        "Brake true",
        "Brake false",
    ] {
        assert!(seen.contains_key(what), "{what} was never reached");
    }
}
