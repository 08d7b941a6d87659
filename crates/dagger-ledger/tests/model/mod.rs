//! A deliberately naive ledger: vectors and full scans, no index, no sum kept, no queue. It states the rules a second
//! time so that the real one's indexes, lazy queues and bounded rounds have something to be compared with.
#![allow(dead_code, missing_docs)]

use dagger_ledger::*;

#[derive(Clone, Debug)]
pub struct MVm {
    pub id: u64,
    pub account: usize,
    pub name: String,
    pub size: Resources,
    pub failover: Failover,
    pub spread: Option<String>,
    pub placement: Placement,
    pub phase: Phase,
    pub reason: Reason,
    pub machine: Option<u32>,
    pub epoch: u64,
    pub disk_epoch: u64,
    pub deadline: Option<u64>,
    pub refused: Vec<u32>,
    pub attempts: u32,
    pub ran: bool,
    pub on: bool,
    pub host_key: bool,
    pub published: Vec<Published>,
    pub boots: u64,
    pub restart: Restart,
    pub restarts: u32,
    /// Time of the last change of phase.
    pub since: u64,
    pub dispute: Option<MDispute>,
}

#[derive(Clone, Debug)]
pub struct MDispute {
    pub rivals: Vec<u32>,
    pub probes: Vec<(u32, bool)>,
    pub status: DisputeStatus,
    pub opened: u64,
    pub deadline: u64,
}

#[derive(Clone, Debug)]
pub struct MMachine {
    pub id: u32,
    pub operator: u32,
    pub capacity: Resources,
    pub cpu_permille: u32,
    pub region: String,
    pub state: MachineState,
    pub draining: bool,
    pub sweep: Option<(u64, u64)>,
    /// Time of the last change of state.
    pub since: u64,
    pub flaps: u32,
    pub upheld: u32,
    pub damped: Option<u64>,
    /// (member, standing, counted until)
    pub words: Vec<(u16, bool, u64)>,
}

pub struct Model {
    pub p: Parameters,
    pub operators: u32,
    pub digest: [u8; 32],
    pub time: u64,
    pub active: u64,
    /// Newest round and active time, per member.
    pub fresh: Vec<(Option<u64>, Option<u64>)>,
    /// Slots: `None` once removed.
    pub machines: Vec<Option<MMachine>>,
    pub vm_ids: u64,
    pub vms: Vec<MVm>,
    pub lapses: Vec<u64>,
    pub braked: bool,
    pub allowance: u64,
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub enum Signer {
    Operator(u32),
    Account(usize),
    /// The node of that machine.
    Machine(u32),
    /// The node of that member.
    Member(u16),
}

type Done = Result<(), Code>;

fn allows(place: &Placement, machine: &MMachine) -> bool {
    let operator = format!("operator-{}", machine.operator);
    let name = format!("machine-{}", machine.id);
    let named = |names: &[String], name: &str| names.iter().any(|n| n == name);
    let among = |names: &[String], name: &str| names.is_empty() || named(names, name);
    among(&place.machines, &name)
        && among(&place.operators, &operator)
        && among(&place.regions, &machine.region)
        && !named(&place.deny_machines, &name)
        && !named(&place.deny_operators, &operator)
        && !named(&place.deny_regions, &machine.region)
}

impl Model {
    pub fn new(p: Parameters, operators: u32, time: u64) -> Self {
        Self {
            p,
            operators,
            digest: [0; 32],
            time,
            active: 0,
            fresh: vec![(None, None); operators as usize],
            machines: Vec::new(),
            vm_ids: 0,
            vms: Vec::new(),
            lapses: Vec::new(),
            braked: false,
            allowance: 0,
        }
    }

    fn all(&self) -> impl Iterator<Item = &MMachine> {
        self.machines.iter().flatten()
    }

    fn m(&self, id: u32) -> &MMachine {
        self.machines[id as usize].as_ref().expect("it is there")
    }

    fn m_mut(&mut self, id: u32) -> &mut MMachine {
        self.machines[id as usize].as_mut().expect("it is there")
    }

    fn v(&self, id: u64) -> &MVm {
        self.vms.iter().find(|vm| vm.id == id).expect("it is there")
    }

    fn v_mut(&mut self, id: u64) -> &mut MVm {
        self.vms
            .iter_mut()
            .find(|vm| vm.id == id)
            .expect("it is there")
    }

    fn free(&self, machine: &MMachine) -> Resources {
        self.free_but(machine, None)
    }

    /// Room as if one of its VMs were not there.
    fn free_but(&self, machine: &MMachine, without: Option<u64>) -> Resources {
        let on = self
            .vms
            .iter()
            .filter(|vm| vm.machine == Some(machine.id) && Some(vm.id) != without);
        let promised = Resources {
            vcpus: machine.capacity.vcpus * machine.cpu_permille / 1_000,
            ..machine.capacity
        };
        let mut free = on.fold(promised, |free, vm| {
            free.checked_sub(&vm.size).expect("over capacity")
        });
        free.vcpus = free.vcpus.min(machine.capacity.vcpus);
        free
    }

    pub fn execute(
        &mut self,
        digest: [u8; 32],
        time: u64,
        active: &[(u16, u64)],
        transactions: &[(Signer, Action)],
    ) -> Vec<Code> {
        let passed = (time - self.time).min(self.p.gap_cap_ms);
        let beat =
            self.active / self.p.heartbeat_ms != (self.active + passed) / self.p.heartbeat_ms;
        (self.time, self.digest) = (time, digest);
        self.active += passed;
        for (member, round) in active {
            let seat = &mut self.fresh[*member as usize];
            if seat.0.is_none_or(|newest| *round > newest) {
                *seat = (Some(*round), Some(self.active));
            }
        }
        if beat {
            let active = self.active;
            for machine in self.machines.iter_mut().flatten() {
                machine.damped = machine.damped.filter(|until| *until > active);
            }
            for id in 0..self.machines.len() as u32 {
                self.maybe_return(id);
            }
        }
        for id in 0..self.machines.len() as u32 {
            let Some(machine) = &self.machines[id as usize] else {
                continue;
            };
            let dead = self
                .renewed(machine)
                .is_none_or(|renewed| renewed + self.p.lease_ms + self.p.margin_ms <= self.active);
            if machine.state == MachineState::Up && dead {
                self.enter(id, MachineState::Lost);
                self.lapses.push(self.active);
            }
        }
        let codes = transactions
            .iter()
            .map(|(who, action)| match self.act(who, action) {
                Ok(()) => Code::Ok,
                Err(code) => code,
            });
        let codes = codes.collect();
        self.sweep(passed);
        for _ in 0..self.p.failover_chunk_max {
            let due = self
                .vms
                .iter()
                .filter(|vm| vm.deadline.is_some_and(|d| d <= self.active));
            let Some(id) = due.min_by_key(|vm| (vm.deadline, vm.id)).map(|vm| vm.id) else {
                break;
            };
            self.overdue(id);
        }
        for at in 0..self.vms.len() {
            let open = self.vms[at].dispute.as_mut();
            let open = open.filter(|d| d.status == DisputeStatus::Open);
            if let Some(late) = open.filter(|d| d.deadline <= self.active) {
                late.status = DisputeStatus::Undecided;
            }
        }
        if beat {
            self.drain();
        }
        codes
    }

    fn renewed(&self, machine: &MMachine) -> Option<u64> {
        let f = (self.operators - 1) / 3;
        let mut words = Vec::new();
        for (member, standing, until) in &machine.words {
            let own = u32::from(*member) == machine.operator;
            if !own || self.operators - 1 <= f {
                let live = if *standing {
                    self.fresh[*member as usize].1
                } else {
                    None
                };
                words.push(live.unwrap_or(0).max(*until));
            }
        }
        words.sort_unstable();
        words.reverse();
        words.get(f as usize).copied()
    }

    fn maybe_return(&mut self, id: u32) {
        let Some(machine) = &self.machines[id as usize] else {
            return;
        };
        let renewed = self.renewed(machine).unwrap_or(0);
        if machine.state != MachineState::Up
            && renewed > 0
            && renewed + self.p.lease_ms > self.active
        {
            self.enter(id, MachineState::Up);
        }
    }

    fn enter(&mut self, id: u32, state: MachineState) {
        let holds = self.vms.iter().any(|vm| vm.machine == Some(id));
        let (since, now) = (self.active, self.time);
        let (lease, calm) = (self.p.lease_ms, self.p.calm_ms);
        let machine = self.m_mut(id);
        machine.damped = None;
        match state {
            MachineState::Lost if now - machine.since < calm => machine.flaps += 1,
            MachineState::Lost => machine.flaps = 0,
            _ if machine.flaps > 1 => {
                let wait = lease * 2u64.pow((machine.flaps - 2).min(16));
                machine.damped = Some(since + wait.min(calm));
            }
            _ => {}
        }
        machine.since = now;
        machine.state = state;
        machine.sweep = holds.then_some((since, 0));
    }

    fn sweep(&mut self, passed: u64) {
        let since = self.active.saturating_sub(self.p.brake_window_ms);
        self.lapses.retain(|lapse| *lapse >= since);
        let count = self.all().count() as u64;
        let n = self.lapses.len() as u64;
        let flood = n > 1 && n * 100 > u64::from(self.p.brake_percent) * count;
        let waiting = self.all().any(|machine| machine.sweep.is_some());
        let braked = (flood || self.braked && waiting) && self.p.brake_percent < 100;
        if braked != self.braked {
            (self.braked, self.allowance) = (braked, 0);
        }
        if braked {
            self.allowance += passed * u64::from(self.p.brake_vms_per_s);
            self.allowance = self
                .allowance
                .min(u64::from(self.p.failover_chunk_max) * 1_000);
        }
        let mut queue: Vec<(u64, u32)> = self
            .all()
            .filter_map(|m| m.sweep.map(|(since, _)| (since, m.id)))
            .collect();
        queue.sort_unstable();
        let mut budget = self.p.failover_chunk_max as usize;
        for (_, id) in queue {
            if budget == 0 {
                break;
            }
            self.sweep_one(id, &mut budget);
        }
    }

    fn sweep_one(&mut self, id: u32, budget: &mut usize) {
        let up = self.m(id).state == MachineState::Up;
        let most = *budget;
        let (since, next) = self.m(id).sweep.expect("under way");
        let on = self
            .vms
            .iter()
            .filter(|vm| vm.machine == Some(id) && vm.id >= next);
        let mut ids: Vec<u64> = on.map(|vm| vm.id).collect();
        ids.sort_unstable();
        let all = ids.len() < most;
        ids.truncate(most);
        for vm in ids {
            let live = matches!(
                self.v(vm).phase,
                Phase::Placed | Phase::Accepted | Phase::Starting | Phase::Running
            );
            let recreate = self.v(vm).failover == Failover::Recreate;
            let would = live || self.v(vm).phase == Phase::Restarting;
            let moves = would && recreate || self.v(vm).phase == Phase::Moving;
            if self.braked && !up && moves {
                if self.allowance < 1_000 {
                    self.m_mut(id).sweep = Some((since, vm));
                    return;
                }
                self.allowance -= 1_000;
            }
            match (up, self.v(vm).phase) {
                (true, Phase::Lost) => self.phase(vm, Phase::Placed, Reason::MachineReturned),
                (true, _) if live => {
                    self.fence(vm);
                    self.phase(vm, Phase::Placed, Reason::MachineReturned);
                }
                (true, _) => {}
                (false, Phase::Deleting) => self.vms.retain(|other| other.id != vm),
                (false, Phase::Stopping) => {
                    self.fence(vm);
                    self.off(vm, Reason::LeaseLapsed);
                }
                (false, _) if moves => self.anew(vm, Reason::LeaseLapsed),
                (false, _) if would => {
                    self.fence(vm);
                    self.phase(vm, Phase::Lost, Reason::LeaseLapsed);
                }
                (false, _) => {}
            }
            *budget -= 1;
            self.m_mut(id).sweep = Some((since, vm + 1));
        }
        if all {
            self.m_mut(id).sweep = None;
        }
    }

    fn overdue(&mut self, id: u64) {
        match self.v(id).phase {
            Phase::Pending if self.candidate(self.v(id)).is_some() => {
                self.anew(id, Reason::RoomFound);
            }
            Phase::Pending => self.phase(id, Phase::Pending, Reason::NoMachineFits),
            Phase::Placed => self.next(id, Reason::NotAccepted),
            Phase::Accepted | Phase::Starting => self.next(id, Reason::NotStarted),
            Phase::Stopping => {
                self.fence(id);
                self.off(id, Reason::NotStopped);
            }
            Phase::Moving => self.anew(id, Reason::NotStopped),
            Phase::Restarting => {
                let machine = self.m(self.v(id).machine.expect("placed"));
                if machine.state == MachineState::Up {
                    self.fence(id);
                    self.phase(id, Phase::Placed, Reason::Restarted);
                } else {
                    self.phase(id, Phase::Restarting, self.v(id).reason);
                }
            }
            Phase::Deleting => self.vms.retain(|vm| vm.id != id),
            phase => panic!("{phase}"),
        }
    }

    fn drain(&mut self) {
        for id in 0..self.machines.len() as u32 {
            let Some(machine) = &self.machines[id as usize] else {
                continue;
            };
            let on = || self.vms.iter().filter(|vm| vm.machine == Some(id));
            if !machine.draining
                || machine.state != MachineState::Up
                || on().any(|vm| vm.phase == Phase::Moving)
            {
                continue;
            }
            let next = on().filter(|vm| {
                let live = matches!(
                    vm.phase,
                    Phase::Placed
                        | Phase::Accepted
                        | Phase::Starting
                        | Phase::Running
                        | Phase::Restarting
                );
                live && vm.failover == Failover::Recreate && self.candidate(vm).is_some()
            });
            if let Some(vm) = next.map(|vm| vm.id).min() {
                self.phase(vm, Phase::Moving, Reason::Draining);
            }
        }
    }

    fn phase(&mut self, id: u64, phase: Phase, reason: Reason) {
        let after = match phase {
            Phase::Pending => Some(self.p.retry_ms),
            Phase::Placed => Some(self.p.accept_ms),
            Phase::Accepted | Phase::Starting => Some(self.p.start_ms),
            Phase::Stopping | Phase::Moving | Phase::Deleting => Some(self.p.stop_ms),
            Phase::Restarting => {
                let mut wait = self.p.restart_ms;
                for _ in 1..self.v(id).restarts {
                    wait = (wait * 2).min(self.p.restart_max_ms);
                }
                Some(wait.min(self.p.restart_max_ms))
            }
            _ => None,
        };
        let deadline = after.map(|after| self.active + after);
        let now = self.time;
        let vm = self.v_mut(id);
        (vm.phase, vm.reason, vm.deadline, vm.since) = (phase, reason, deadline, now);
        let open = vm.dispute.as_mut();
        if let Some(open) = open.filter(|d| d.status == DisputeStatus::Open)
            && phase != Phase::Running
        {
            open.status = DisputeStatus::Moot;
        }
    }

    fn off(&mut self, id: u64, reason: Reason) {
        self.v_mut(id).on = false;
        self.phase(id, Phase::Stopped, reason);
    }

    fn fence(&mut self, id: u64) {
        let vm = self.v_mut(id);
        vm.epoch += 1;
        vm.host_key = false;
        vm.published.clear();
    }

    fn candidate(&self, vm: &MVm) -> Option<u32> {
        self.choose(vm, vm.epoch + 1)
    }

    fn seed(&self, id: u64, epoch: u64) -> u64 {
        let first = u64::from_le_bytes(self.digest[..8].try_into().unwrap());
        mix(first ^ mix(id ^ mix(epoch)))
    }

    fn choose(&self, vm: &MVm, epoch: u64) -> Option<u32> {
        let seed = self.seed(vm.id, epoch);
        let slots = (self.machines.len() as u64).max(1);
        let fits = self.all().filter(|machine| {
            machine.state == MachineState::Up
                && !machine.draining
                && machine.sweep.is_none()
                && machine.damped.is_none()
                && vm.size.fits_in(&self.free(machine))
                && !vm.refused.contains(&machine.id)
                && allows(&vm.placement, machine)
        });
        let best = fits.min_by_key(|machine| {
            let group = |other: &&MVm| {
                other.account == vm.account
                    && other.spread.as_deref().unwrap_or("") == vm.spread.as_deref().unwrap_or("")
                    && other
                        .machine
                        .is_some_and(|m| self.m(m).operator == machine.operator)
            };
            let free = self.free(machine);
            (
                self.vms.iter().filter(group).count(),
                machine
                    .operator
                    .wrapping_sub((mix(seed) % u64::from(self.operators)) as u32),
                (free.memory_mib, free.vcpus, free.disk_mib),
                machine.id.wrapping_sub((seed % slots) as u32),
            )
        });
        best.map(|machine| machine.id)
    }

    fn anew(&mut self, id: u64, reason: Reason) {
        self.v_mut(id).machine = None;
        let machine = self.candidate(self.v(id));
        self.fence(id);
        let vm = self.v_mut(id);
        vm.ran = false;
        vm.disk_epoch = vm.epoch;
        vm.machine = machine;
        if machine.is_some() {
            self.phase(id, Phase::Placed, reason);
        } else {
            vm.refused.clear();
            self.phase(id, Phase::Pending, Reason::NoMachineFits);
        }
    }

    fn next(&mut self, id: u64, reason: Reason) {
        let most = self.p.placement_attempts_max;
        let vm = self.v_mut(id);
        vm.attempts += 1;
        let machine = vm.machine.expect("placed");
        if !vm.refused.contains(&machine) {
            vm.refused.push(machine);
        }
        if vm.ran && vm.failover == Failover::None {
            self.fence(id);
            self.phase(id, Phase::Failed, reason);
        } else if vm.attempts >= most {
            (vm.machine, vm.ran) = (None, false);
            vm.refused.clear();
            self.fence(id);
            self.phase(id, Phase::Failed, Reason::AttemptsExhausted);
        } else {
            self.anew(id, reason);
        }
    }

    fn act(&mut self, who: &Signer, action: &Action) -> Done {
        match (who, action) {
            (Signer::Operator(operator), Action::MachineAdd(a)) => self.machine_add(*operator, a),
            (Signer::Operator(o), Action::MachineDrain(a)) => {
                let id = self.own(*o, &a.machine)?;
                self.m_mut(id).draining = true;
                Ok(())
            }
            (Signer::Operator(o), Action::MachineUndrain(a)) => {
                let id = self.own(*o, &a.machine)?;
                self.m_mut(id).draining = false;
                Ok(())
            }
            (Signer::Operator(o), Action::MachineRemove(a)) => {
                let id = self.own(*o, &a.machine)?;
                if self.vms.iter().any(|vm| vm.machine == Some(id)) {
                    return Err(Code::MachineNotEmpty);
                }
                self.machines[id as usize] = None;
                Ok(())
            }
            (Signer::Account(account), action) => self.customer(*account, action),
            (Signer::Machine(id), Action::VmReport(a)) => {
                // A removed machine's key is unknown.
                self.machines
                    .get(*id as usize)
                    .and_then(|m| m.as_ref())
                    .ok_or(Code::UnknownSigner)?;
                self.report(*id, a)
            }
            (Signer::Member(member), Action::VmProbe(a)) => self.probe(u32::from(*member), a),
            (Signer::Member(member), Action::Attest(a)) => {
                for (ids, standing) in [(&a.lost, false), (&a.hears, true)] {
                    for id in ids {
                        self.word(id.0, *member, standing);
                    }
                }
                Ok(())
            }
            _ => Err(Code::Unauthorised),
        }
    }

    fn machine_add(&mut self, operator: u32, add: &MachineAdd) -> Done {
        let id = self.machines.len() as u32;
        let capacity = Resources {
            vcpus: add.vcpus,
            memory_mib: add.memory_mib,
            disk_mib: add.disk_mib,
        };
        self.machines.push(Some(MMachine {
            id,
            operator,
            capacity,
            cpu_permille: add.cpu_permille,
            region: add.labels.get("region").cloned().unwrap_or_default(),
            state: MachineState::Joining,
            draining: false,
            sweep: None,
            since: self.time,
            flaps: 0,
            upheld: 0,
            damped: None,
            words: Vec::new(),
        }));
        Ok(())
    }

    fn own(&self, operator: u32, name: &str) -> Result<u32, Code> {
        let machine = self
            .all()
            .find(|machine| format!("machine-{}", machine.id) == name);
        let machine = machine.ok_or(Code::UnknownMachine)?;
        if machine.operator == operator {
            Ok(machine.id)
        } else {
            Err(Code::Unauthorised)
        }
    }

    fn word(&mut self, id: u32, member: u16, standing: bool) {
        let fresh = self.fresh[member as usize].1.unwrap_or(0);
        let Some(Some(machine)) = self.machines.get_mut(id as usize) else {
            return;
        };
        match machine.words.iter_mut().find(|word| word.0 == member) {
            Some(word) if word.1 == standing => return,
            Some(word) => {
                if !standing {
                    word.2 = word.2.max(fresh);
                }
                word.1 = standing;
            }
            None if standing => machine.words.push((member, true, 0)),
            None => return,
        }
        self.maybe_return(id);
    }

    fn customer(&mut self, account: usize, action: &Action) -> Done {
        if let Action::VmCreate(create) = action {
            return self.create(account, create);
        }
        let name = match action {
            Action::VmDelete(a) | Action::VmStop(a) | Action::VmStart(a) | Action::VmReboot(a) => {
                &a.vm
            }
            Action::VmRename(a) => &a.vm,
            Action::VmResize(a) => &a.vm,
            Action::VmPlace(a) => &a.vm,
            Action::VmDispute(a) => &a.vm,
            _ => return Err(Code::Unauthorised),
        };
        let vm = self
            .vms
            .iter()
            .find(|vm| vm.account == account && vm.name == *name);
        let vm = vm.ok_or(Code::UnknownVm)?.clone();
        let up = vm
            .machine
            .is_some_and(|m| self.m(m).state == MachineState::Up);
        let id = vm.id;
        match action {
            Action::VmDelete(_) => {
                let unaccepted = matches!(vm.phase, Phase::Pending | Phase::Placed) && !vm.ran;
                if unaccepted || !up {
                    self.vms.retain(|vm| vm.id != id);
                } else if vm.phase != Phase::Deleting {
                    self.phase(id, Phase::Deleting, Reason::Requested);
                }
            }
            Action::VmStop(_) => match vm.phase {
                Phase::Accepted | Phase::Starting | Phase::Running => {
                    self.v_mut(id).on = false;
                    self.phase(id, Phase::Stopping, Reason::Requested);
                }
                Phase::Pending | Phase::Lost | Phase::Restarting => {
                    self.off(id, Reason::Requested);
                }
                Phase::Placed => {
                    self.fence(id);
                    self.off(id, Reason::Requested);
                }
                Phase::Stopping | Phase::Stopped => {}
                _ => return Err(Code::WrongPhase),
            },
            Action::VmStart(_) => return self.start(vm, up),
            Action::VmReboot(_) if vm.phase == Phase::Running => self.v_mut(id).boots += 1,
            Action::VmReboot(_) => return Err(Code::WrongPhase),
            Action::VmRename(a) => {
                let taken = |vm: &MVm| vm.account == account && vm.name == a.name;
                if self.vms.iter().any(taken) {
                    return Err(Code::NameTaken);
                }
                self.v_mut(id).name = a.name.clone();
            }
            Action::VmResize(a) => {
                let size = Resources {
                    vcpus: a.vcpus,
                    memory_mib: a.memory_mib,
                    disk_mib: a.disk_mib,
                };
                if vm.phase != Phase::Stopped {
                    return Err(Code::WrongPhase);
                }
                if size.disk_mib < vm.size.disk_mib {
                    return Err(Code::OutOfRange);
                }
                let room = vm.machine.map(|m| self.free_but(self.m(m), Some(vm.id)));
                if room.is_some_and(|room| !size.fits_in(&room)) {
                    return Err(Code::NoMachineFits);
                }
                self.v_mut(id).size = size;
            }
            Action::VmPlace(a) => return self.place(vm, &a.placement),
            Action::VmDispute(_) => return self.dispute(vm),
            _ => unreachable!(),
        }
        Ok(())
    }

    /// Every operator has one vote; 2 f + 1 of the others are drawn.
    fn dispute(&mut self, vm: MVm) -> Done {
        if vm.phase != Phase::Running {
            return Err(Code::WrongPhase);
        }
        let again = |d: &MDispute| {
            d.status == DisputeStatus::Open || self.time < d.opened + self.p.dispute_ms
        };
        if vm.dispute.as_ref().is_some_and(again) {
            return Err(Code::TooSoon);
        }
        let host = self.m(vm.machine.expect("placed")).operator;
        let seed = self.seed(vm.id, vm.epoch);
        let mut rivals: Vec<u32> = (0..self.operators).filter(|o| *o != host).collect();
        rivals.sort_by_key(|o| mix(seed ^ u64::from(*o)));
        rivals.truncate(2 * ((self.operators - 1) / 3) as usize + 1);
        let (opened, deadline) = (self.time, self.active + self.p.dispute_ms);
        self.v_mut(vm.id).dispute = Some(MDispute {
            rivals,
            probes: Vec::new(),
            status: DisputeStatus::Open,
            opened,
            deadline,
        });
        Ok(())
    }

    fn probe(&mut self, rival: u32, probe: &VmProbe) -> Done {
        let vm = self.vms.iter_mut().find(|vm| vm.id == probe.vm.0);
        let vm = vm.ok_or(Code::UnknownVm)?;
        let (id, epoch, machine) = (vm.id, vm.epoch, vm.machine);
        let open = vm.dispute.as_mut();
        let open = open.filter(|d| d.status == DisputeStatus::Open);
        let open = open.ok_or(Code::NoDispute)?;
        if epoch != probe.lease_epoch {
            return Err(Code::StaleEpoch);
        }
        if !open.rivals.contains(&rival) {
            return Err(Code::Unauthorised);
        }
        if open.probes.iter().any(|(o, _)| *o == rival) {
            return Err(Code::AlreadyDone);
        }
        open.probes.push((rival, probe.reached));
        let alike = open.probes.iter().filter(|(_, r)| *r == probe.reached);
        if alike.count() as u32 <= (self.operators - 1) / 3 {
            return Ok(());
        }
        if probe.reached {
            open.status = DisputeStatus::Dismissed;
            return Ok(());
        }
        open.status = DisputeStatus::Upheld;
        let machine = machine.expect("running");
        self.m_mut(machine).upheld += 1;
        let mut wished = self.v(id).clone();
        wished.refused.push(machine);
        if wished.failover == Failover::Recreate && self.candidate(&wished).is_some() {
            self.v_mut(id).refused.push(machine);
            self.phase(id, Phase::Moving, Reason::DisputeUpheld);
        }
        Ok(())
    }

    fn place(&mut self, vm: MVm, placement: &Placement) -> Done {
        if matches!(vm.phase, Phase::Moving | Phase::Deleting) {
            return Err(Code::WrongPhase);
        }
        let id = vm.id;
        let wished = MVm {
            placement: placement.clone(),
            refused: Vec::new(),
            ..vm.clone()
        };
        let outside = vm.machine.is_some_and(|m| !allows(placement, self.m(m)));
        if !outside {
            self.v_mut(id).placement = placement.clone();
            return Ok(());
        }
        if vm.ran && vm.failover == Failover::None {
            return Err(Code::DiskStays);
        }
        if self.candidate(&wished).is_none() {
            return Err(Code::NoMachineFits);
        }
        self.v_mut(id).placement = placement.clone();
        match vm.phase {
            Phase::Stopped | Phase::Failed | Phase::Stopping => {
                let record = self.v_mut(id);
                (record.machine, record.ran) = (None, false);
                self.fence(id);
                if vm.phase == Phase::Stopping {
                    self.off(id, Reason::Requested);
                }
            }
            Phase::Lost => self.anew(id, Reason::Requested),
            _ => self.phase(id, Phase::Moving, Reason::Requested),
        }
        Ok(())
    }

    fn create(&mut self, account: usize, create: &VmCreate) -> Done {
        if self
            .vms
            .iter()
            .any(|vm| vm.account == account && vm.name == create.name)
        {
            return Err(Code::NameTaken);
        }
        let mut vm = MVm {
            id: self.vm_ids,
            account,
            name: create.name.clone(),
            size: Resources {
                vcpus: create.vcpus,
                memory_mib: create.memory_mib,
                disk_mib: create.disk_mib,
            },
            failover: create.failover,
            spread: create.spread.clone(),
            placement: create.placement.clone(),
            phase: Phase::Pending,
            reason: Reason::Requested,
            machine: None,
            epoch: 1,
            disk_epoch: 1,
            deadline: None,
            refused: Vec::new(),
            attempts: 0,
            ran: false,
            on: true,
            host_key: false,
            published: Vec::new(),
            boots: 0,
            restart: create.restart,
            restarts: 0,
            since: self.time,
            dispute: None,
        };
        vm.machine = Some(self.choose(&vm, 1).ok_or(Code::NoMachineFits)?);
        self.vm_ids += 1;
        let id = vm.id;
        self.vms.push(vm);
        self.phase(id, Phase::Placed, Reason::Requested);
        Ok(())
    }

    fn start(&mut self, vm: MVm, up: bool) -> Done {
        match vm.phase {
            Phase::Stopped | Phase::Failed => {}
            Phase::Pending
            | Phase::Placed
            | Phase::Accepted
            | Phase::Starting
            | Phase::Running
            | Phase::Restarting => {
                return Ok(());
            }
            _ => return Err(Code::WrongPhase),
        }
        let keeps = vm.machine.is_some() && (up || vm.ran && vm.failover == Failover::None);
        let unrefused = MVm {
            refused: Vec::new(),
            ..vm.clone()
        };
        if !keeps && self.candidate(&unrefused).is_none() {
            return Err(Code::NoMachineFits);
        }
        let id = vm.id;
        let record = self.v_mut(id);
        (record.on, record.attempts, record.restarts) = (true, 0, 0);
        record.refused.clear();
        if !keeps {
            self.anew(id, Reason::Requested);
        } else if !up {
            self.phase(id, Phase::Lost, Reason::LeaseLapsed);
        } else if vm.host_key && vm.phase == Phase::Stopped {
            self.phase(id, Phase::Accepted, Reason::Requested);
        } else {
            self.fence(id);
            self.phase(id, Phase::Placed, Reason::Requested);
        }
        Ok(())
    }

    fn report(&mut self, machine: u32, report: &VmReport) -> Done {
        let vm = self
            .vms
            .iter()
            .find(|vm| vm.id == report.vm.0)
            .ok_or(Code::UnknownVm)?;
        let (id, phase) = (vm.id, vm.phase);
        if vm.epoch != report.lease_epoch {
            return Err(Code::StaleEpoch);
        }
        if vm.machine != Some(machine) {
            return Err(Code::WrongMachine);
        }
        let started = matches!(phase, Phase::Accepted | Phase::Starting | Phase::Running);
        match &report.report {
            Report::Accepted(_) if phase == Phase::Placed => {
                self.v_mut(id).host_key = true;
                self.phase(id, Phase::Accepted, Reason::Reported);
            }
            Report::Starting(_) if started => {
                if phase != Phase::Starting {
                    self.phase(id, Phase::Starting, Reason::Reported);
                }
            }
            Report::Running(running) if started => {
                let vm = self.v_mut(id);
                vm.published.clone_from(&running.published);
                (vm.ran, vm.attempts) = (true, 0);
                vm.refused.clear();
                if phase != Phase::Running {
                    self.phase(id, Phase::Running, Reason::Reported);
                }
            }
            Report::Stopped(_) => return self.ended(id, phase, false),
            Report::Failed(_) => return self.ended(id, phase, true),
            _ => return Err(Code::WrongPhase),
        }
        Ok(())
    }

    fn again_later(&mut self, id: u64) {
        let (now, calm) = (self.time, self.p.restart_max_ms);
        let vm = self.v_mut(id);
        if vm.phase == Phase::Running && now - vm.since >= calm {
            vm.restarts = 0;
        }
        vm.restarts += 1;
        self.phase(id, Phase::Restarting, Reason::Reported);
    }

    fn ended(&mut self, id: u64, phase: Phase, failed: bool) -> Done {
        let restart = self.v(id).restart;
        match (phase, failed) {
            (Phase::Deleting, _) => self.vms.retain(|vm| vm.id != id),
            (Phase::Moving, _) => self.anew(id, self.v(id).reason),
            (Phase::Stopping, _) => self.off(id, Reason::Reported),
            (Phase::Placed | Phase::Accepted | Phase::Starting, true) => {
                self.next(id, Reason::MachineFailed);
            }
            (Phase::Running, true) if restart != Restart::Never => self.again_later(id),
            (Phase::Accepted | Phase::Starting | Phase::Running, false)
                if restart == Restart::Always =>
            {
                self.again_later(id);
            }
            (Phase::Running, true) => self.phase(id, Phase::Failed, Reason::Reported),
            (Phase::Accepted | Phase::Starting | Phase::Running, false) => {
                self.off(id, Reason::Reported);
            }
            (Phase::Stopped | Phase::Failed | Phase::Restarting, _) => {}
            _ => return Err(Code::WrongPhase),
        }
        Ok(())
    }
}
