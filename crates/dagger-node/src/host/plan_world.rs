//! A model of ledger and host for the planner's properties: what can happen, what an action does, what
//! must never be done, and what has to hold in the end.

use std::collections::BTreeMap;

use dagger_ledger::{Duty, Phase};
use dagger_vmm::{Accelerator, InstanceId, InstanceState, InstanceStatus, StopCode, StopMode};
use proptest::prelude::*;

use super::plan::*;

pub(super) const VMS: u64 = 2;

/// What happens from outside, to VM `.0` where one is named.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Create(u64),
    Delete(u64),
    Stop(u64),
    Start(u64),
    Reboot(u64),
    /// The lease lapses; the VM goes to another machine.
    MoveAway(u64),
    /// The lease lapses and the machine comes back: same machine, next epoch, old disk.
    LapseAndReturn(u64),
    Drain(u64),
    Crash(u64, StopCode),
    /// One step of the booting guest.
    Boot(u64),
    /// Every watchdog fires, and the machine holds no lease until `Lease`.
    LoseLease,
    Lease,
    /// The daemon dies: actions under way are lost.
    DaemonRestart,
    /// A new plan is made and its actions begin.
    Plan,
    /// The action under way for the VM takes effect; `false`: it fails.
    Finish(u64, bool),
    Sleep(u64),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let vm = 0..VMS;
    let code = prop::sample::select(vec![
        StopCode::GuestShutdown,
        StopCode::GuestPanic,
        StopCode::QemuKilled,
        StopCode::ShimDied,
        StopCode::HostRebooted,
        StopCode::Killed,
        StopCode::Incomplete,
    ]);
    prop_oneof![
        2 => vm.clone().prop_map(Create), 1 => vm.clone().prop_map(Delete), 1 => vm.clone().prop_map(Stop), 1 => vm.clone().prop_map(Start),
        1 => vm.clone().prop_map(Reboot), 1 => vm.clone().prop_map(MoveAway), 1 => vm.clone().prop_map(LapseAndReturn),
        1 => vm.clone().prop_map(Drain), 1 => (vm.clone(), code).prop_map(|(vm, code)| Crash(vm, code)), 4 => vm.clone().prop_map(Boot),
        1 => Just(LoseLease), 2 => Just(Lease), 1 => Just(DaemonRestart), 10 => Just(Plan),
        10 => (vm, prop::bool::weighted(0.9)).prop_map(|(vm, ok)| Finish(vm, ok)), 1 => (0..5_000u64).prop_map(Sleep),
    ]
}

/// The ledger, this host and what it remembers, all at once.
#[derive(Default)]
pub(super) struct World {
    now_ms: u64,
    pub(super) leased: bool,
    ledger: BTreeMap<u64, DesiredVm>,
    /// Lease epochs go up for ever, also across moves and re-creation.
    epochs: BTreeMap<u64, u64>,
    instances: BTreeMap<InstanceId, InstanceStatus>,
    memory: BTreeMap<InstanceId, Memory>,
    under_way: BTreeMap<u64, Action>,
}

impl World {
    pub(super) fn new() -> World {
        World {
            now_ms: 1_000,
            leased: true,
            ..World::default()
        }
    }

    pub(super) fn plan(&self) -> Vec<Action> {
        if !self.leased {
            return Vec::new();
        }
        let desired: Vec<_> = self.ledger.values().cloned().collect();
        let observed: Vec<_> = self.instances.values().cloned().collect();
        plan(
            &desired,
            &observed,
            &self.memory,
            &Policy::default(),
            self.now_ms,
        )
    }

    fn set(&mut self, vm: u64, from: &[Phase], to: Phase, duty: Duty) {
        if let Some(want) = self
            .ledger
            .get_mut(&vm)
            .filter(|want| from.contains(&want.phase))
        {
            (want.phase, want.duty) = (to, duty);
        }
    }

    fn place(&mut self, vm: u64, disk_epoch: Option<u64>) {
        let epoch = self.epochs.entry(vm).or_default();
        *epoch += 1;
        let want = DesiredVm {
            vm,
            lease_epoch: *epoch,
            disk_epoch: disk_epoch.unwrap_or(*epoch),
            duty: Duty::Accept,
            phase: Phase::Placed,
            boots: 0,
            host_key: None,
            published: Vec::new(),
        };
        self.ledger.insert(vm, want);
    }

    fn end(&mut self, id: InstanceId, code: StopCode) {
        self.now_ms += 1;
        if let Some(status) = self
            .instances
            .get_mut(&id)
            .filter(|status| !matches!(status.state, InstanceState::Stopped { .. }))
        {
            status.state = InstanceState::Stopped {
                code,
                text: String::new(),
            };
            status.stopped_ms = Some(self.now_ms);
        }
    }

    pub(super) fn apply(&mut self, event: Event) {
        use Phase::*;
        let live = [Placed, Accepted, Starting, Running];
        match event {
            Event::Create(vm) if !self.ledger.contains_key(&vm) => self.place(vm, None),
            Event::Create(_) => {}
            Event::Delete(vm) => self.set(
                vm,
                &[
                    Placed, Accepted, Starting, Running, Stopping, Stopped, Moving, Failed, Lost,
                ],
                Deleting,
                Duty::Release,
            ),
            Event::Stop(vm) => self.set(vm, &live[1..], Stopping, Duty::Stop),
            Event::Start(vm) => self.set(vm, &[Stopped, Failed], Accepted, Duty::Run),
            Event::Reboot(vm) => {
                if let Some(want) = self
                    .ledger
                    .get_mut(&vm)
                    .filter(|want| want.phase == Running)
                {
                    want.boots += 1;
                }
            }
            Event::MoveAway(vm) => drop(self.ledger.remove(&vm)),
            Event::LapseAndReturn(vm) => {
                if let Some(want) = self.ledger.get(&vm).filter(|want| want.phase != Deleting) {
                    let disk_epoch = want.disk_epoch;
                    self.place(vm, Some(disk_epoch));
                }
            }
            Event::Drain(vm) => self.set(vm, &live[1..], Moving, Duty::Release),
            Event::Crash(vm, code) => {
                for id in self.of(vm) {
                    self.end(id, code);
                }
            }
            Event::Boot(vm) => self.boot(vm),
            Event::LoseLease => {
                self.leased = false;
                for id in self.instances.keys().copied().collect::<Vec<_>>() {
                    self.end(id, StopCode::LeaseExpired);
                }
            }
            Event::Lease => self.leased = true,
            Event::DaemonRestart => self.under_way.clear(),
            Event::Plan => {
                let plan = self.plan();
                self.under_way.retain(|vm, action| {
                    action.still_serves(plan.iter().find(|wanted| wanted.instance().vm == *vm))
                });
                for action in plan {
                    self.under_way.entry(action.instance().vm).or_insert(action);
                }
            }
            Event::Finish(vm, success) => {
                if let Some(action) = self.under_way.remove(&vm) {
                    self.act(action, success);
                }
            }
            Event::Sleep(ms) => self.now_ms += ms,
        }
    }

    fn of(&self, vm: u64) -> Vec<InstanceId> {
        self.instances
            .keys()
            .copied()
            .filter(|id| id.vm == vm)
            .collect()
    }

    fn boot(&mut self, vm: u64) {
        for id in self.of(vm) {
            let status = self.instances.get_mut(&id).unwrap();
            if status.state == InstanceState::Starting {
                match status.accelerator {
                    None => status.accelerator = Some((Accelerator::Tcg, "test".into())),
                    Some(_) => status.state = InstanceState::Up,
                }
            }
        }
    }

    fn current(&self, id: InstanceId) -> bool {
        self.ledger
            .get(&id.vm)
            .is_some_and(|want| want.lease_epoch == id.lease_epoch)
    }

    /// An action takes effect, as the executor does it: with its own look at the ledger before a start.
    fn act(&mut self, action: Action, success: bool) {
        let id = action.instance();
        match action {
            Action::Accept(id) => {
                let key = format!("key {id}");
                let memory = self.memory.entry(id).or_default();
                memory.host_key.get_or_insert(key.clone());
                if success && self.current(id) && self.ledger[&id.vm].phase == Phase::Placed {
                    self.ledger.get_mut(&id.vm).unwrap().host_key = Some(key);
                    self.set(id.vm, &[Phase::Placed], Phase::Accepted, Duty::Run);
                }
            }
            Action::Start { id, disk_of } => self.start(id, disk_of, success),
            Action::NoteCrash {
                id,
                failure,
                stopped_ms,
                fresh,
            } => {
                let now_ms = self.now_ms;
                let memory = self.memory.entry(id).or_default();
                memory.failures = if fresh { 1 } else { memory.failures + 1 };
                (memory.failed_ms, memory.failure, memory.settled_stop_ms) =
                    (now_ms, Some(failure), stopped_ms);
            }
            Action::Settle(id, stopped_ms) => {
                let memory = self.memory.entry(id).or_default();
                (memory.failures, memory.settled_stop_ms) = (0, stopped_ms);
            }
            Action::ReportStarting(_) if success && self.current(id) => {
                let Some(status) = self.instances.get(&id) else {
                    return;
                };
                self.memory.entry(id).or_default().reported_start_ms = status.qemu_started_ms;
                self.set(
                    id.vm,
                    &[Phase::Accepted, Phase::Running],
                    Phase::Starting,
                    Duty::Run,
                );
            }
            Action::Probe(_) if success && self.current(id) => {
                let state = self.instances.get(&id).map(|status| &status.state);
                if state == Some(&InstanceState::Up) {
                    self.set(id.vm, &[Phase::Starting], Phase::Running, Duty::Run);
                }
            }
            Action::Stop(_, StopMode::Kill) if success => self.end(id, StopCode::Killed),
            Action::Stop(..) if success => self.end(id, StopCode::Stopped),
            Action::Remove(_) if success => {
                self.instances.remove(&id);
                self.memory.remove(&id);
            }
            Action::ReportStopped(..) | Action::ReportFailed(..) if success && self.current(id) => {
                self.reported_end(&action)
            }
            _ => {}
        }
    }

    fn start(&mut self, id: InstanceId, disk_of: Option<InstanceId>, success: bool) {
        // The executor looks again: the plan may be old by now.
        if !self.leased || !self.current(id) || self.ledger[&id.vm].duty != Duty::Run {
            return;
        }
        let boots = self.ledger[&id.vm].boots;
        let memory = self
            .memory
            .get_mut(&id)
            .expect("a start follows an accepted report");
        assert!(memory.host_key.is_some());
        if !success {
            memory.failures += 1;
            memory.failed_ms = self.now_ms;
            memory.failure = Some(Failure {
                code: "test".into(),
                text: String::new(),
                permanent: false,
            });
            return;
        }
        memory.boots = boots;
        if let Some(old) = disk_of {
            assert!(
                matches!(self.instances[&old].state, InstanceState::Stopped { .. }),
                "a running incarnation lost its disk"
            );
            self.instances.remove(&old);
        }
        let running = |status: &InstanceStatus| {
            status.id.vm == id.vm
                && status.id != id
                && !matches!(status.state, InstanceState::Stopped { .. })
        };
        assert!(
            !self.instances.values().any(running),
            "two incarnations at once"
        );
        let status = InstanceStatus {
            id,
            state: InstanceState::Starting,
            network: None,
            confinement: None,
            accelerator: None,
            qemu_pid: None,
            shim_pid: None,
            shim_started_ms: self.now_ms,
            qemu_started_ms: Some(self.now_ms),
            console_first_ms: None,
            stopped_ms: None,
            lease_deadline_boottime_ms: None,
        };
        let known = self.instances.entry(id).or_insert(status.clone());
        if matches!(known.state, InstanceState::Stopped { .. }) {
            *known = status;
        }
    }

    fn reported_end(&mut self, action: &Action) {
        let vm = action.instance().vm;
        let phase = self.ledger[&vm].phase;
        match action {
            Action::ReportStopped(id, _, stopped_ms) => {
                self.memory.entry(*id).or_default().settled_stop_ms = *stopped_ms;
                match phase {
                    Phase::Deleting | Phase::Moving => {
                        // A guest's own shutdown, reported just before, may pass for it; the disk then
                        // goes as a left-over.
                        let ended =
                            |id| matches!(self.instances[id].state, InstanceState::Stopped { .. });
                        assert!(
                            self.of(vm).iter().all(ended),
                            "a running VM was reported stopped"
                        );
                        self.ledger.remove(&vm);
                    }
                    _ => self.set(
                        vm,
                        &[
                            Phase::Accepted,
                            Phase::Starting,
                            Phase::Running,
                            Phase::Stopping,
                        ],
                        Phase::Stopped,
                        Duty::Keep,
                    ),
                }
            }
            _ => self.set(
                vm,
                &[
                    Phase::Placed,
                    Phase::Accepted,
                    Phase::Starting,
                    Phase::Running,
                ],
                Phase::Failed,
                Duty::Keep,
            ),
        }
    }

    /// No more faults: everything that is planned succeeds at once.
    pub(super) fn settle(&mut self) {
        self.apply(Event::Lease);
        self.under_way.clear();
        for _ in 0..200 {
            let plan = self.plan();
            let booting = self
                .instances
                .values()
                .any(|status| status.state == InstanceState::Starting);
            if plan.is_empty() && !booting && self.now_ms > 10_000_000 {
                return;
            }
            if plan.is_empty() && !booting {
                self.now_ms += 2_000_000;
            }
            for action in plan {
                self.act(action, true);
            }
            for vm in 0..VMS {
                self.boot(vm);
            }
        }
        panic!(
            "no end: {:?}\n{:?}\n{:?}",
            self.plan(),
            self.ledger,
            self.instances
        );
    }

    pub(super) fn check_converged(&self) {
        for (vm, want) in &self.ledger {
            let here: Vec<_> = self.of(*vm).iter().map(|id| &self.instances[id]).collect();
            let up: Vec<_> = here
                .iter()
                .filter(|status| !matches!(status.state, InstanceState::Stopped { .. }))
                .collect();
            match want.phase {
                Phase::Running => {
                    assert_eq!(up.len(), 1);
                    assert_eq!(
                        (up[0].id, &up[0].state),
                        (want.instance(), &InstanceState::Up)
                    );
                    assert_eq!(self.memory[&want.instance()].boots, want.boots);
                }
                Phase::Stopped | Phase::Failed => assert!(up.is_empty()),
                phase => panic!("VM {vm} hangs in {phase}"),
            }
        }
        for id in self.instances.keys() {
            assert!(
                self.ledger
                    .get(&id.vm)
                    .is_some_and(|want| want.lease_epoch == id.lease_epoch
                        || want.disk_epoch == id.lease_epoch),
                "{id} was left behind"
            );
        }
    }
}
