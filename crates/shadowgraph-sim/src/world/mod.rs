//! The world of a run: all nodes, the network between them, the clients, and the loop that moves virtual time. Carries out a
//! plan; decides nothing itself.

mod delivery;
mod faults;
mod finish;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use shadowgraph::{ChainId, Epoch, EpochEnd, Input};

use crate::adversary::{Behaviour, Puppet, Seat};
use crate::checkers::clients::ClientChecker;
use crate::checkers::ledger::{Finding, LedgerChecker};
use crate::checkers::limits::LimitChecker;
use crate::checkers::naive::NaiveGraph;
use crate::checkers::schedule::{Cited, Reputation};
use crate::epochs::Epochs;
pub use crate::epochs::member_key;
use crate::network::Network;
use crate::node::{Identity, Node};
use crate::packet::Packet;
use crate::plan::{Action, Plan};
use crate::queue::{MS, Queue, SkewedClock};
use crate::report::{Latency, Report, Violation};
use crate::rng::SimRng;
use crate::toy_ledger::Executed;
use crate::trace::Trace;
use crate::verifier::Verifier;

/// Unix time at the start of every run, in ms.
pub const START_MS: u64 = 1_750_000_000_000;
/// The least time between looks at every node's size, in microseconds, and how many looks a long run gets.
const SAMPLE_US: u64 = 100 * MS;
const SAMPLES: u64 = 20_000;
/// Time between disturbances by an adversary, in microseconds.
const DISTURB_US: u64 = 100 * MS;
/// How long the toy execution of a checkpoint takes, in microseconds.
const EXECUTION_US: u64 = MS;

/// Something that happens at a moment.
enum Happening {
    Deliver {
        from: usize,
        to: usize,
        packet: Rc<Packet>,
    },
    Process {
        node: usize,
        incarnation: u64,
        from: usize,
        packet: Rc<Packet>,
    },
    Timer {
        node: usize,
        incarnation: u64,
    },
    Synced {
        node: usize,
        incarnation: u64,
        position: usize,
    },
    Executed {
        node: usize,
        incarnation: u64,
        executed: Box<Executed>,
    },
    Action(Action),
    Submit,
    Disturb(usize),
    CrashLoop(usize),
    Sample,
    Heal,
}

/// An honest node or a puppet.
enum Slot {
    Honest(Box<Node>),
    Puppet(Box<Puppet>),
}

/// A run in progress.
pub struct World {
    plan: Plan,
    chain_id: ChainId,
    epochs: Arc<Epochs>,
    seed: u64,
    queue: Queue<Happening>,
    network: Network,
    slots: Vec<Slot>,
    verifier: Verifier,
    trace: Trace,
    ledger: LedgerChecker,
    clients: ClientChecker,
    limits: LimitChecker,
    /// Every event that an honest node has persisted, by epoch.
    graphs: BTreeMap<Epoch, NaiveGraph>,
    /// Who leads, as the commits so far tell: for adversaries that care. And the epoch that is of.
    schedule: Reputation,
    schedule_epoch: Epoch,
    /// The epoch that adversaries are in.
    puppet_epoch: Epoch,
    /// Snapshots on their way to nodes that asked for one.
    snapshots: Vec<(usize, Vec<EpochEnd>)>,
    /// Transactions that nobody with a seat has taken back yet.
    returned: Vec<Bytes>,
    /// How often a node refused to start from its disk.
    refusals: u64,
    load: bool,
    healed: bool,
    clients_rng: SimRng,
    faults_rng: SimRng,
    report: Report,
}

/// The votes in an epoch, by seat.
fn weights(epochs: &Epochs, epoch: Epoch) -> Vec<u64> {
    let committee = epochs.committee(epoch).expect("a planned epoch");
    committee
        .members()
        .map(|(_, member)| member.weight)
        .collect()
}

/// The schedule before any commit of an epoch.
fn naive_schedule(plan: &Plan, epochs: &Epochs, epoch: Epoch) -> Reputation {
    let parameters = &plan.parameters;
    Reputation::new(
        weights(epochs, epoch),
        parameters.leaders_per_round,
        parameters.schedule_interval_rounds,
    )
}

impl World {
    /// Sets a run up. With `keep_lines` the report holds every step as text.
    pub fn new(plan: Plan, seed: u64, keep_lines: bool) -> Self {
        let chain_id = ChainId(blake3::derive_key(
            "dagger simulator chain v1",
            b"one for all runs",
        ));
        let epochs = Arc::new(Epochs::new(&plan));
        let network = Network::new(
            plan.nodes(),
            &plan.latency,
            plan.faults.clone(),
            SimRng::stream(seed, "network", 0),
        );
        let mut world = Self {
            chain_id,
            verifier: Verifier::new(chain_id, epochs.committees().to_vec()),
            ledger: LedgerChecker::new(
                chain_id,
                Arc::clone(&epochs),
                plan.parameters.gc_depth_rounds,
                plan.nodes(),
            ),
            clients: ClientChecker::new(plan.expect.commit_within_rounds),
            limits: LimitChecker::new(&plan),
            graphs: BTreeMap::new(),
            schedule: naive_schedule(&plan, &epochs, Epoch(0)),
            schedule_epoch: Epoch(0),
            puppet_epoch: Epoch(0),
            snapshots: Vec::new(),
            returned: Vec::new(),
            epochs,
            seed,
            queue: Queue::new(),
            network,
            slots: Vec::new(),
            trace: Trace::new(keep_lines),
            refusals: 0,
            load: true,
            healed: false,
            clients_rng: SimRng::stream(seed, "clients", 0),
            faults_rng: SimRng::stream(seed, "faults", 0),
            report: Report::default(),
            plan,
        };
        for node in 0..world.plan.nodes() {
            let slot = world.make_slot(node);
            world.slots.push(slot);
        }
        world.schedule_plan();
        world
    }

    fn make_slot(&self, node: usize) -> Slot {
        if let Some(puppet) = self.make_puppet(node, Epoch(0)) {
            return Slot::Puppet(Box::new(puppet));
        }
        let skew = self.plan.skews.get(node).copied().unwrap_or_default();
        let clock = SkewedClock::new(
            START_MS.saturating_add_signed(skew.offset_ms),
            skew.drift_ppm,
        );
        let identity = Identity {
            node,
            chain_id: self.chain_id,
            parameters: self.plan.parameters.clone(),
            epochs: Arc::clone(&self.epochs),
            retain: self.plan.retain,
        };
        Slot::Honest(Box::new(Node::new(identity, clock)))
    }

    /// A node that breaks the rules, in the seat it has in an epoch. Puppets keep their seat numbers over epochs.
    fn make_puppet(&self, node: usize, epoch: Epoch) -> Option<Puppet> {
        let behaviours = self.plan.behaviours(node);
        if behaviours.is_empty() || behaviours.contains(&Behaviour::CrashLooper) {
            return None;
        }
        let (member, key) = self.epochs.seat(epoch, node)?;
        assert_eq!(usize::from(member.0), node, "adversaries keep their seats");
        let seat = Seat {
            member: member.0,
            key,
            chain_id: self.chain_id,
            committee: self.epochs.committee(epoch).expect("it has a seat").clone(),
            nodes: self.plan.nodes(),
        };
        let stream = node as u64 + epoch.0 * 1_000;
        let rng = SimRng::stream(self.seed, "puppet", stream);
        Some(Puppet::new(seat, behaviours, rng))
    }

    fn schedule_plan(&mut self) {
        for (at_us, action) in self.plan.actions.clone() {
            self.queue.push(at_us, Happening::Action(action));
        }
        for (member, behaviours) in self.plan.adversaries.clone() {
            let looper = behaviours.contains(&Behaviour::CrashLooper);
            self.queue.push(
                DISTURB_US,
                if looper {
                    Happening::CrashLoop(member)
                } else {
                    Happening::Disturb(member)
                },
            );
        }
        self.queue.push(0, Happening::Submit);
        self.queue.push(SAMPLE_US, Happening::Sample);
        self.queue.push(self.plan.chaos_us, Happening::Heal);
    }

    /// Runs to the end: through the chaos phase, then until everything accepted is committed, or time is up.
    pub fn run(mut self) -> Report {
        for node in 0..self.slots.len() {
            if self.plan.original(node) == node {
                self.start(node);
            }
        }
        let end_us = self.plan.chaos_us + self.plan.settle_us;
        while self.report.violations.is_empty() && !self.is_settled() {
            let Some(happening) = self.queue.pop(end_us) else {
                self.check_liveness();
                break;
            };
            self.happen(happening);
        }
        self.finish()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Happening::Process {
                node,
                incarnation,
                from,
                packet,
            } => {
                if self.runs(node, incarnation) {
                    self.process(from, node, &packet);
                }
            }
            Happening::Timer { node, incarnation } => self.timer(node, incarnation),
            Happening::Synced {
                node,
                incarnation,
                position,
            } => {
                if self.runs(node, incarnation) && !self.honest(node).disk_full {
                    let effects = self.honest(node).synced(position);
                    self.carry_out(node, effects);
                }
            }
            Happening::Executed {
                node,
                incarnation,
                executed,
            } => {
                if self.runs(node, incarnation) {
                    let Executed {
                        commit,
                        outcomes_root,
                        state_root,
                        next,
                    } = *executed;
                    self.input(
                        node,
                        Input::Executed {
                            commit,
                            outcomes_root,
                            state_root,
                            next,
                        },
                    );
                }
            }
            Happening::Action(action) => self.act(action),
            Happening::Submit => self.submit_next(),
            Happening::Disturb(member) => self.disturb(member),
            Happening::CrashLoop(member) => self.crash_loop(member),
            Happening::Sample => self.sample(),
            Happening::Heal => self.heal(),
        }
    }

    fn runs(&self, node: usize, incarnation: u64) -> bool {
        match &self.slots[node] {
            Slot::Honest(node) => node.is_up() && node.incarnation() == incarnation,
            Slot::Puppet(_) => true,
        }
    }

    fn honest(&mut self, node: usize) -> &mut Node {
        match &mut self.slots[node] {
            Slot::Honest(node) => node,
            Slot::Puppet(_) => unreachable!("n{node} has no replica"),
        }
    }

    /// Gives an input to an honest node and carries out what follows.
    fn input(&mut self, node: usize, input: Input) {
        let now_us = self.queue.now_us();
        let effects = self.honest(node).handle(now_us, input);
        self.carry_out(node, effects);
    }

    fn timer(&mut self, node: usize, incarnation: u64) {
        if !self.runs(node, incarnation) {
            return;
        }
        let now_us = self.queue.now_us();
        let driver = self.honest(node);
        if driver.timer_us != Some(now_us) {
            return; // an earlier call took its place: armed anew here, calls would only ever become more
        }
        driver.timer_us = None;
        if driver.disk_full {
            return; // it is armed again once there is space
        }
        if driver
            .deadline_us()
            .is_some_and(|deadline| deadline <= now_us)
        {
            let spins = self.limits.timer(node, now_us);
            self.check(spins);
            self.input(node, Input::Timeout);
        }
        self.arm_timer(node);
    }

    /// Makes sure that the node is called when its replica wants to be.
    fn arm_timer(&mut self, node: usize) {
        let now_us = self.queue.now_us();
        let driver = self.honest(node);
        let Some(deadline_us) = driver.deadline_us() else {
            return;
        };
        let at_us = deadline_us.max(now_us);
        if driver.timer_us.is_none_or(|armed| at_us < armed) {
            driver.timer_us = Some(at_us);
            let incarnation = driver.incarnation();
            self.queue
                .push(at_us, Happening::Timer { node, incarnation });
        }
    }

    /// A client submits the next transaction, and thinks about the one after.
    fn submit_next(&mut self) {
        let every_us = self.plan.load.every_us;
        let next_us = self.queue.now_us() + self.clients_rng.between(1, 2 * every_us);
        if next_us < self.plan.chaos_us {
            self.queue.push(next_us, Happening::Submit);
        }
        if self.load {
            let (id, body) = self
                .clients
                .make(self.plan.load.bytes, &mut self.clients_rng);
            let members = self.takers();
            if !members.is_empty() {
                let node = *self.clients_rng.choose(&members);
                self.submit(node, id, body);
            }
        }
    }

    fn takes_transactions(&self, node: usize) -> bool {
        self.plan.is_correct(node)
            && matches!(&self.slots[node], Slot::Honest(driver) if driver.has_seat())
    }

    fn takers(&self) -> Vec<usize> {
        let all = 0..self.slots.len();
        all.filter(|node| self.takes_transactions(*node)).collect()
    }

    /// Those who lost their seats gave transactions back: others take them.
    fn hand_on_returned(&mut self) {
        let takers = self.takers();
        if takers.is_empty() {
            return;
        }
        for body in std::mem::take(&mut self.returned) {
            let node = *self.clients_rng.choose(&takers);
            let now_us = self.queue.now_us();
            self.clients.moved(&body, node);
            let (result, effects) = self.honest(node).submit(now_us, body.clone());
            if result.is_err() {
                self.returned.push(body);
            }
            self.carry_out(node, effects);
        }
    }

    fn submit(&mut self, node: usize, id: u64, body: Bytes) {
        let now_us = self.queue.now_us();
        let round = self
            .honest(node)
            .status()
            .map_or(0, |status| status.round.0);
        // Known before its effects are carried out: they may hold the event with it.
        let (result, effects) = self.honest(node).submit(now_us, body);
        self.trace
            .step(now_us, node, "submit", &id.to_le_bytes(), || {
                format!("transaction {id}: {result:?}")
            });
        if result.is_ok() {
            self.clients.accepted(id, node, now_us, round);
        }
        self.carry_out(node, effects);
    }

    fn sample(&mut self) {
        let now_us = self.queue.now_us();
        let every_us = SAMPLE_US.max(self.plan.chaos_us / SAMPLES);
        self.queue.push(now_us + every_us, Happening::Sample);
        self.hand_on_returned();
        self.install_snapshots();
        for node in 0..self.slots.len() {
            let Slot::Honest(driver) = &self.slots[node] else {
                continue;
            };
            if let Some(status) = driver.status() {
                let finding = self.limits.sample(node, &status);
                self.check(finding);
            }
        }
    }

    /// Lets the schedule that adversaries look at follow a commit.
    fn follow_schedule(&mut self, commit: &shadowgraph::Commit) {
        if commit.epoch != self.schedule_epoch {
            self.schedule_epoch = commit.epoch;
            self.schedule = naive_schedule(&self.plan, &self.epochs, commit.epoch);
        }
        let cited = commit.events.iter().map(|event| Cited {
            creator: event.creator().0,
            round: event.round().0,
            parents: event
                .parents()
                .iter()
                .filter(|p| p.round.next() == event.round())
                .map(|p| p.creator.0)
                .collect(),
        });
        self.schedule.commit(commit.leader.round.0, cited);
    }

    fn latency(&mut self, node: usize, commit: &shadowgraph::Commit) {
        let committed_us = self.queue.now_us();
        for (_, bytes) in LedgerChecker::transactions(commit) {
            let Some(submission) = self.clients.submission(&bytes) else {
                continue;
            };
            if let (true, Some((_, created_us))) = (submission.node == node, submission.event) {
                let submitted_us = submission.at_us;
                self.report.latencies.push(Latency {
                    node,
                    submitted_us,
                    created_us,
                    committed_us,
                });
            }
        }
    }

    /// Notes a violation.
    fn check(&mut self, finding: Finding) {
        if let Err((check, text)) = finding {
            let at_us = self.queue.now_us();
            self.trace
                .step(at_us, 0, "VIOLATION", check.as_bytes(), || {
                    format!("{check}: {text}")
                });
            self.report
                .violations
                .push(Violation { at_us, check, text });
        }
    }
}
