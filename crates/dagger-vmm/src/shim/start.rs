//! How QEMU comes to run: by which accelerator, as whom, and in which control group; once more where KVM runs no guests.

use super::process;
use super::running::Running;
use super::user::User;
use super::watch::Watch;
use crate::cgroup::{Group, Resource};
use crate::clock::{boottime_ms, unix_ms};
use crate::qemu::accel;
use crate::record::GuestGroup;
use crate::spec::{AccelChoice, Accelerator};
use crate::status::{Confinement, StopCode};

impl Watch {
    /// Chooses an accelerator and starts QEMU.
    pub fn begin(&mut self) {
        if self
            .guard
            .lease_deadline()
            .is_some_and(|d| d <= boottime_ms())
        {
            return self.end(
                StopCode::LeaseExpired,
                "the lease had run out before the VM was started".into(),
            );
        }
        let remembered = accel::remembered(&self.launch.accel_file);
        let (accelerator, reason, on_trial) =
            match (self.launch.spec.accel, accel::kvm_opens(), remembered) {
                (AccelChoice::Tcg, ..) => (Accelerator::Tcg, "asked for".into(), false),
                (AccelChoice::Kvm, Err(error), _) => return self.end(StopCode::KvmUnusable, error),
                (AccelChoice::Kvm, Ok(()), _) => (Accelerator::Kvm, "asked for".into(), true),
                (AccelChoice::Auto, Err(error), _) => (Accelerator::Tcg, error, false),
                (AccelChoice::Auto, Ok(()), Some(v)) if v.works => {
                    (Accelerator::Kvm, v.reason, false)
                }
                (AccelChoice::Auto, Ok(()), Some(v)) => (Accelerator::Tcg, v.reason, false),
                (AccelChoice::Auto, Ok(()), None) => (Accelerator::Kvm, "on trial".into(), true),
            };
        self.start_qemu(accelerator, reason, on_trial);
    }

    fn start_qemu(&mut self, accelerator: Accelerator, reason: String, on_trial: bool) {
        // What KVM is not open to may still be the user that the next accelerator runs as.
        let mut user = self.user.clone();
        if let Err(error) = user.try_out(accelerator) {
            user.give_up(&error.to_string());
        }
        // Away with the one of an accelerator before.
        self.group = None;
        let (group, bounds) = self.make_group();
        self.group = group;
        self.status.confinement = Some(confinement(&user, bounds));
        let process = match process::spawn(
            &self.launch,
            accelerator,
            &self.lock,
            self.egress.is_some(),
            &user,
            self.group.as_ref().map(Group::entry).unwrap_or_default(),
        ) {
            Ok(process) => process,
            Err(error) => {
                let text = format!(
                    "{} could not be started: {error}; install qemu-system-x86",
                    self.launch.qemu.display()
                );
                return self.end(StopCode::QemuFailed, text);
            }
        };
        self.status.accelerator = Some((accelerator, reason));
        self.status.qemu_pid = Some(process.child.id());
        self.status.qemu_started_ms = Some(unix_ms());
        self.guard.started(boottime_ms(), on_trial);
        self.running = Some(Running::new(process, accelerator));
        self.keep_status();
    }

    /// The instance's control group, what it bounds, and that in words.
    fn make_group(&self) -> (Option<Group>, (Vec<Resource>, String)) {
        match &self.launch.group {
            GuestGroup::Below { parents, name } => {
                let group = Group::make(parents, name, &self.launch.spec);
                let bounds = group.describe();
                (Some(group), bounds)
            }
            GuestGroup::None(why) => (None, (Vec::new(), why.clone())),
        }
    }

    /// Ends the trial; the end of the process is read in `reap`.
    pub fn trial_failed(&mut self, reason: &'static str) {
        if let Some(running) = &mut self.running {
            running.trial_failed = Some(reason);
        }
        self.kill();
    }

    /// KVM is not tried again on this host; QEMU starts without it if it may.
    pub fn fall_back(&mut self, reason: &str) {
        let reason: String = format!("KVM does not run guests here: {reason}")
            .chars()
            .take(300)
            .collect();
        self.guard.end_trial();
        accel::remember(&self.launch.accel_file, false, &reason);
        if self.launch.spec.accel == AccelChoice::Kvm {
            return self.end(StopCode::KvmUnusable, reason);
        }
        self.start_qemu(Accelerator::Tcg, reason, false);
    }
}

fn confinement(user: &User, (bounds, bounds_text): (Vec<Resource>, String)) -> Confinement {
    let (own_user, text) = user.describe();
    Confinement {
        own_user,
        text,
        bounds,
        bounds_text,
    }
}
