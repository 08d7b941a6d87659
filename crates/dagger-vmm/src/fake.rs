//! A host in memory, for tests of what drives it. Knows no process and no file.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::clock::{boottime_ms, unix_ms};
use crate::error::VmmError;
use crate::spec::{Accelerator, InstanceId, InstanceSpec};
use crate::status::{InstanceState, InstanceStatus, StopCode, StopMode};
use crate::vmm::Vmm;

#[derive(Default)]
struct FakeState {
    instances: BTreeMap<InstanceId, (InstanceSpec, InstanceStatus)>,
    fail_starts: u32,
}

/// Instances that exist only in memory. Instances are `Up` as soon as they are started.
#[derive(Default)]
pub struct FakeVmm {
    state: Mutex<FakeState>,
}

impl FakeVmm {
    /// Makes the next `count` starts fail as if QEMU were missing.
    pub fn fail_next_starts(&self, count: u32) {
        self.locked().fail_starts = count;
    }

    /// Ends an instance as if it had crashed.
    pub fn crash(&self, id: InstanceId, code: StopCode) {
        self.end(id, code);
    }

    /// Ends every instance whose lease deadline is not after `now_boottime_ms`, as their watchdogs would.
    pub fn expire_leases(&self, now_boottime_ms: u64) {
        let due: Vec<_> = {
            let state = self.locked();
            let due = |s: &InstanceStatus| {
                s.lease_deadline_boottime_ms
                    .is_some_and(|d| d <= now_boottime_ms)
            };
            state
                .instances
                .values()
                .filter(|(_, s)| due(s))
                .map(|(_, s)| s.id)
                .collect()
        };
        for id in due {
            self.end(id, StopCode::LeaseExpired);
        }
    }

    fn end(&self, id: InstanceId, code: StopCode) {
        if let Some((_, status)) = self.locked().instances.get_mut(&id)
            && !matches!(status.state, InstanceState::Stopped { .. })
        {
            status.state = InstanceState::Stopped {
                code,
                text: code.to_string(),
            };
            status.qemu_pid = None;
            status.shim_pid = None;
            status.stopped_ms = Some(unix_ms());
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, FakeState> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Vmm for FakeVmm {
    async fn start(
        &self,
        spec: &InstanceSpec,
        lease_deadline_boottime_ms: Option<u64>,
    ) -> Result<(), VmmError> {
        spec.check()?;
        if lease_deadline_boottime_ms.is_some_and(|d| d <= boottime_ms()) {
            return Err(VmmError::LeaseExpired(spec.id));
        }
        let mut state = self.locked();
        if state.fail_starts > 0 {
            state.fail_starts -= 1;
            return Err(VmmError::QemuMissing {
                program: "fake".into(),
                package: "fake",
            });
        }
        if let Some((known, status)) = state.instances.get(&spec.id) {
            if known != spec {
                return Err(VmmError::Exists(spec.id));
            }
            if !matches!(status.state, InstanceState::Stopped { .. }) {
                return Ok(());
            }
        }
        let status = InstanceStatus {
            id: spec.id,
            state: InstanceState::Up,
            network: None,
            confinement: None,
            accelerator: Some((Accelerator::Tcg, "fake".into())),
            qemu_pid: Some(1),
            shim_pid: Some(1),
            shim_started_ms: unix_ms(),
            qemu_started_ms: Some(unix_ms()),
            console_first_ms: None,
            stopped_ms: None,
            lease_deadline_boottime_ms,
        };
        state.instances.insert(spec.id, (spec.clone(), status));
        Ok(())
    }

    async fn list(&self) -> Vec<InstanceStatus> {
        self.locked()
            .instances
            .values()
            .map(|(_, s)| s.clone())
            .collect()
    }

    async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        self.locked().instances.get(&id).map(|(_, s)| s.clone())
    }

    async fn renew(&self, id: InstanceId, deadline_boottime_ms: u64) -> Result<(), VmmError> {
        let mut state = self.locked();
        let (_, status) = state.instances.get_mut(&id).ok_or(VmmError::NotFound(id))?;
        if matches!(status.state, InstanceState::Stopped { .. }) {
            return Err(VmmError::NotRunning(id));
        }
        status.lease_deadline_boottime_ms = status
            .lease_deadline_boottime_ms
            .max(Some(deadline_boottime_ms));
        Ok(())
    }

    async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        if self.status(id).await.is_none() {
            return Err(VmmError::NotFound(id));
        }
        self.end(
            id,
            if mode == StopMode::Kill {
                StopCode::Killed
            } else {
                StopCode::Stopped
            },
        );
        Ok(())
    }

    async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        self.locked().instances.remove(&id);
        Ok(())
    }
}
