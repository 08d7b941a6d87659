//! What machines say of their VMs.

use crate::action::{Ended, Report, Restart, VmReport};
use crate::code::Code;
use crate::commit::Subject;
use crate::ids::{MachineId, VmId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, refuse};
use crate::records::{Phase, Reason};

impl Ledger {
    pub(super) fn vm_report(&mut self, machine: MachineId, report: &VmReport) -> Done {
        let vm = self.vm(report.vm).ok_or(Code::UnknownVm)?;
        let (id, phase) = (vm.id, vm.phase);
        if vm.lease_epoch != report.lease_epoch {
            return refuse(Code::StaleEpoch, vm.lease_epoch.to_string());
        }
        if vm.machine != Some(machine) {
            return Err(Code::WrongMachine.into());
        }
        match &report.report {
            Report::Accepted(accepted) => {
                if phase != Phase::Placed {
                    return refuse(Code::WrongPhase, phase.as_str());
                }
                self.vm_mut(id).ssh_host_key = Some(accepted.ssh_host_key.clone());
                self.set_phase(id, Phase::Accepted, Reason::Reported);
            }
            Report::Starting(starting) => {
                if !matches!(phase, Phase::Accepted | Phase::Starting | Phase::Running) {
                    return refuse(Code::WrongPhase, phase.as_str());
                }
                self.vm_mut(id).started = Some(Box::new(starting.clone()));
                // Said again, it must not put the deadline off.
                if phase != Phase::Starting {
                    self.set_phase(id, Phase::Starting, Reason::Reported);
                }
            }
            Report::Running(running) => {
                if !matches!(phase, Phase::Accepted | Phase::Starting | Phase::Running) {
                    return refuse(Code::WrongPhase, phase.as_str());
                }
                let vm = self.vm_mut(id);
                vm.address = running.address.clone();
                vm.ports.opened = running.published.clone();
                vm.ran = true;
                vm.attempts = 0;
                vm.refused_by.clear();
                vm.ended = None;
                if phase != Phase::Running {
                    self.set_phase(id, Phase::Running, Reason::Reported);
                }
            }
            Report::Stopped(ended) => self.vm_ended(id, phase, ended, false)?,
            Report::Failed(ended) => self.vm_ended(id, phase, ended, true)?,
        }
        Ok(Some(Subject::Vm(id)))
    }

    fn vm_ended(
        &mut self,
        id: VmId,
        phase: Phase,
        ended: &Ended,
        failed: bool,
    ) -> Result<(), Code> {
        let restart = self.vm(id).expect("it is reported on").spec.restart;
        match phase {
            Phase::Deleting => {
                self.remove_vm(id);
                return Ok(());
            }
            Phase::Moving => {
                let why = self.vm(id).expect("it is reported on").reason;
                self.place_anew(id, why);
            }
            Phase::Stopping => self.set_stopped(id, Reason::Reported),
            Phase::Placed | Phase::Accepted | Phase::Starting if failed => {
                self.try_next_machine(id, Reason::MachineFailed);
            }
            Phase::Running if failed && restart != Restart::Never => self.restart_later(id),
            Phase::Accepted | Phase::Starting | Phase::Running
                if !failed && restart == Restart::Always =>
            {
                self.restart_later(id);
            }
            Phase::Running if failed => self.set_phase(id, Phase::Failed, Reason::Reported),
            Phase::Accepted | Phase::Starting | Phase::Running => {
                self.set_stopped(id, Reason::Reported);
            }
            Phase::Stopped | Phase::Failed | Phase::Restarting => {}
            Phase::Placed | Phase::Pending | Phase::Lost => return Err(Code::WrongPhase),
        }
        self.vm_mut(id).ended = Some(Box::new(ended.clone()));
        Ok(())
    }
}
