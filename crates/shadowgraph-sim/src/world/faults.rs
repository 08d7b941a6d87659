//! The plan's actions, crashes and restarts, and the healing that ends the chaos phase.

use super::START_MS;
use super::{Happening, Slot, World};
use crate::disk::CrashKind;
use crate::node::Effect;
use crate::plan::Action;
use crate::queue::{MS, SkewedClock};

impl World {
    /// Starts a node; a puppet is always there.
    pub(super) fn start(&mut self, node: usize) {
        let now_us = self.queue.now_us();
        let Slot::Honest(driver) = &mut self.slots[node] else {
            return;
        };
        if driver.is_up() || driver.disk_full {
            return;
        }
        self.trace.step(now_us, node, "start", &[], String::new);
        let effects = driver.start(now_us);
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Refused))
        {
            self.carry_out(node, effects);
            return;
        }
        let from = driver.started_from();
        self.ledger.node_started(node, from);
        self.carry_out(node, effects);
        if self.plan.is_correct(node) {
            let finding = self.ledger.node_recovered(node);
            self.check(finding);
        }
        self.trace.step(now_us, node, "started", &[], || {
            format!("{} commits recovered", self.ledger.position[node])
        });
    }

    pub(super) fn crash(&mut self, node: usize, kind: CrashKind) {
        let now_us = self.queue.now_us();
        let Slot::Honest(driver) = &mut self.slots[node] else {
            return;
        };
        if !driver.is_up() {
            return;
        }
        self.trace
            .step(now_us, node, "crash", &[], || format!("{kind:?}"));
        driver.crash(kind, &mut self.faults_rng);
        let kept: std::collections::BTreeSet<_> = driver
            .readable()
            .iter()
            .map(|event| *event.reference())
            .collect();
        let lost = self.clients.crashed(node, &|event| kept.contains(event));
        if self.plan.load.resubmit && !self.healed {
            self.resubmit(lost);
        }
    }

    /// The clients of a crashed node turn to another.
    fn resubmit(&mut self, lost: Vec<u64>) {
        for id in lost {
            let up = self.takers();
            if up.is_empty() {
                return;
            }
            let node = *self.clients_rng.choose(&up);
            let body = self.clients.body(id);
            self.submit(node, id, body);
        }
    }

    /// Nodes that asked for a snapshot restart from it.
    pub(super) fn install_snapshots(&mut self) {
        for (node, ends) in std::mem::take(&mut self.snapshots) {
            let now_us = self.queue.now_us();
            self.trace.step(now_us, node, "snapshot", &[], || {
                format!("of epoch {}'s start", ends.len())
            });
            self.crash(node, CrashKind::PowerLosingAll);
            let Slot::Honest(driver) = &mut self.slots[node] else {
                continue;
            };
            let adopted = driver.adopt(&ends);
            // With the old log goes what it had not got ordered; clients turn to somebody else.
            let lost = self.clients.crashed(node, &|_| false);
            if self.plan.load.resubmit && !self.healed {
                self.resubmit(lost);
            }
            let finding = adopted.map_err(|error| ("snapshot", format!("n{node}: {error}")));
            self.check(finding);
            self.start(node);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        if self.healed {
            return;
        }
        let now_us = self.queue.now_us();
        self.trace
            .step(now_us, 0, "action", &[], || format!("{action:?}"));
        match action {
            Action::Crash(node, kind) => self.crash(node, kind),
            Action::RollBack(node, permille) => {
                self.crash(node, CrashKind::PowerLosingAll);
                if let Slot::Honest(driver) = &mut self.slots[node] {
                    driver.roll_back(permille);
                }
            }
            Action::BackUp(node) => {
                if let Slot::Honest(driver) = &mut self.slots[node] {
                    driver.back_up();
                }
            }
            Action::Restore(node) => {
                self.crash(node, CrashKind::PowerLosingAll);
                if let Slot::Honest(driver) = &mut self.slots[node] {
                    driver.restore();
                }
            }
            Action::Rot(node, permille) => {
                self.crash(node, CrashKind::PowerLosingAll);
                if let Slot::Honest(driver) = &mut self.slots[node] {
                    driver.rot(permille);
                }
            }
            Action::DiskFull(node, full) => self.set_disk_full(node, full),
            Action::StartDouble(node, copies) => self.start_double(node, copies),
            Action::CrashAll(kind) => (0..self.slots.len()).for_each(|node| self.crash(node, kind)),
            Action::Restart(node) => self.start(node),
            Action::RestartAll => (0..self.slots.len()).for_each(|node| self.start(node)),
            Action::Partition(side) => self.network.partition(&side),
            Action::CutOneWay(from, to) => self.network.set_blocked(from, to, true),
            Action::OpenLinks => self.network.open(),
            Action::Late(node, late_us) => self.network.set_late(node, late_us),
            Action::Slow(node, slow_us) => self.set_slow(node, slow_us),
            Action::Faults(faults) => self.network.set_faults(faults),
            Action::SetClock(node, ahead_ms) => {
                if let Slot::Honest(driver) = &mut self.slots[node] {
                    let origin_ms = START_MS.saturating_add_signed(ahead_ms);
                    driver.set_clock(SkewedClock::new(origin_ms, 0));
                }
            }
            Action::Upgrade(node) => self.upgrade(node),
            Action::Load(on) => self.set_load(on),
        }
    }

    fn upgrade(&mut self, node: usize) {
        if let Slot::Honest(driver) = &mut self.slots[node] {
            driver.upgrade();
        }
    }

    /// Whoever was not upgraded in the chaos phase is now.
    fn upgrade_late(&mut self, node: usize) {
        let late = |slot: &Slot| matches!(slot, Slot::Honest(driver) if !driver.is_upgraded());
        if self.plan.upgrade_epoch.is_some() && late(&self.slots[node]) {
            self.crash(node, CrashKind::Process);
            self.upgrade(node);
        }
    }

    fn set_slow(&mut self, node: usize, slow_us: u64) {
        if let Slot::Honest(driver) = &mut self.slots[node] {
            driver.slow_us = slow_us;
        }
    }

    /// A node whose disk is full waits for space; what it wrote meanwhile is synced once there is some.
    fn set_disk_full(&mut self, node: usize, full: bool) {
        let now_us = self.queue.now_us();
        let Slot::Honest(driver) = &mut self.slots[node] else {
            return;
        };
        driver.disk_full = full;
        if full || !driver.is_up() {
            return;
        }
        let incarnation = driver.incarnation();
        if let Some(position) = driver.unsynced() {
            let at_us = now_us + self.plan.sync_us;
            self.queue.push(
                at_us,
                Happening::Synced {
                    node,
                    incarnation,
                    position,
                },
            );
        }
        driver.timer_us = None;
        self.arm_timer(node);
    }

    fn start_double(&mut self, node: usize, copies: bool) {
        let original = self.plan.original(node);
        if copies {
            let slots = self.slots.get_disjoint_mut([node, original]);
            let [Slot::Honest(double), Slot::Honest(original)] = slots.expect("two nodes") else {
                return;
            };
            double.copy_disk(original);
        }
        self.start(node);
    }

    fn set_load(&mut self, on: bool) {
        let now_us = self.queue.now_us();
        self.load = on;
        let finding = self.limits.load(on, now_us);
        self.check(finding);
    }

    /// A crash-looper goes down, or comes up again for a moment.
    pub(super) fn crash_loop(&mut self, member: usize) {
        let now_us = self.queue.now_us();
        let up = matches!(&self.slots[member], Slot::Honest(driver) if driver.is_up());
        if up {
            let kinds = [
                CrashKind::Process,
                CrashKind::PowerLosingAll,
                CrashKind::PowerTearing,
            ];
            let kind = *self.faults_rng.choose(&kinds);
            self.crash(member, kind);
        } else {
            self.start(member);
        }
        let next_us = now_us + self.faults_rng.between(20, 800) * MS;
        self.queue.push(next_us, Happening::CrashLoop(member));
    }

    /// Ends the chaos phase: all links open, all nodes up, and each honest member gets a few more transactions.
    pub(super) fn heal(&mut self) {
        let now_us = self.queue.now_us();
        let finding = self.check_chaos();
        self.check(finding);
        self.healed = true;
        self.load = false;
        self.trace.step(now_us, 0, "heal", &[], String::new);
        self.network.heal();
        for node in 0..self.slots.len() {
            self.set_slow(node, 0);
            self.set_disk_full(node, false);
            self.upgrade_late(node);
            if self.plan.original(node) == node {
                self.start(node);
            }
        }
        for node in 0..self.slots.len() {
            if self.takes_transactions(node) {
                let (id, body) = self
                    .clients
                    .make(self.plan.load.bytes, &mut self.clients_rng);
                self.submit(node, id, body);
            }
        }
    }
}
