//! Doing one action about one VM. Each step may take long, is given up when the plan no longer wants
//! it, and leaves things so that the next plan goes on from whatever it reached.

use std::{path::PathBuf, time::Duration};

use dagger_ledger::{
    Accepted, Blob, Boot, DiskFormat, Duty, Ended, Firmware, ImageManifest, OnIsolation, Report,
    Starting, VmId, VmReport, VmSpec,
};
use dagger_vmm::{
    AccelChoice, BootSource, InstanceId, InstanceSpec, InstanceState, Profile, Seed, StopMode,
    VmmError, boottime_ms, new_ssh_host_key,
};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::{
    agent::Shared,
    control::{Assigned, Control},
    hypervisor::Hypervisor,
    plan::{Action, Failure},
    records::Record,
};
use crate::images::{ImageError, ImageSource};

/// Between two looks at whether the guest's ssh server answers.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Between two looks at an instance that is stopping.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How much longer than its guest's deadline a stop may take before the step is given up.
const STOP_SLACK: Duration = Duration::from_secs(10);
/// Before a report that did not get through is tried again.
const REPORT_PAUSE: Duration = Duration::from_millis(500);

/// How a step ended. Every end leads to a new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It did what it was for.
    Done,
    /// The world had moved on, or something failed that another plan has to deal with, not at once.
    Later,
}

/// Does `action`, unless `cancel` says that nobody wants it any more.
pub(super) async fn perform<C: Control, V: Hypervisor>(
    shared: &Shared<C, V>,
    action: Action,
    cancel: CancellationToken,
) -> End {
    let step = Step {
        shared,
        id: action.instance(),
        cancel,
    };
    match action {
        Action::Accept(_) => step.accept().await,
        Action::Start { disk_of, .. } => step.start(disk_of).await,
        Action::NoteCrash {
            failure,
            stopped_ms,
            fresh,
            ..
        } => step.note_crash(failure, stopped_ms, fresh),
        Action::Settle(_, stopped_ms) => step.remember(|record| {
            record.memory.failures = 0;
            record.memory.settled_stop_ms = stopped_ms;
        }),
        Action::ReportStarting(_) => step.report_starting().await,
        Action::Probe(_) => step.probe().await,
        Action::Stop(_, mode) => step.stop(mode).await,
        Action::Remove(_) => step.remove().await,
        Action::ReportStopped(_, failure, stopped_ms) => {
            let end = step.report(Report::Stopped(ended(failure))).await;
            if end == End::Done && step.shared.records.get(step.id).is_some() {
                return step.remember(|record| record.memory.settled_stop_ms = stopped_ms);
            }
            end
        }
        Action::ReportFailed(_, failure) => step.report(Report::Failed(ended(failure))).await,
    }
}

struct Step<'a, C, V> {
    shared: &'a Shared<C, V>,
    id: InstanceId,
    cancel: CancellationToken,
}

impl<C: Control, V: Hypervisor> Step<'_, C, V> {
    /// What the ledger says now, if this instance may still act for its VM.
    fn current(&self) -> Option<Assigned> {
        let assigned = self.shared.control.assigned()?;
        assigned
            .into_iter()
            .find(|assigned| assigned.desired.instance() == self.id)
    }

    /// The present lease deadline, if it lies ahead.
    fn lease(&self) -> Option<u64> {
        self.shared
            .control
            .lease_deadline_boottime_ms()
            .filter(|deadline| *deadline > boottime_ms())
    }

    fn remember(&self, change: impl FnOnce(&mut Record)) -> End {
        match self.shared.records.update(self.id, change) {
            Ok(_) => End::Done,
            Err(error) => {
                tracing::error!(instance = %self.id, %error, "what the host must remember of an instance cannot be written");
                End::Later
            }
        }
    }

    fn note_crash(&self, failure: Failure, stopped_ms: Option<u64>, fresh: bool) -> End {
        tracing::warn!(instance = %self.id, code = failure.code, text = failure.text, "a VM ended by itself");
        self.remember(|record| {
            let memory = &mut record.memory;
            memory.failures = if fresh {
                1
            } else {
                memory.failures.saturating_add(1)
            };
            memory.failed_ms = unix_ms();
            memory.failure = Some(failure);
            memory.settled_stop_ms = stopped_ms;
        })
    }

    /// A start that failed: counted, so that the planner backs off and gives up in the end.
    fn note_failure(&self, code: &str, text: String, permanent: bool) -> End {
        tracing::warn!(instance = %self.id, code, text, "a VM could not be started");
        self.remember(|record| {
            record.memory.failures = record.memory.failures.saturating_add(1);
            record.memory.failed_ms = unix_ms();
            record.memory.failure = Some(Failure {
                code: code.to_owned(),
                text,
                permanent,
            });
        });
        End::Later
    }

    async fn accept(&self) -> End {
        // Fresh randomness per VM and lease epoch: a former host holds no key that is valid now.
        let made = self.shared.records.update(self.id, |record| {
            if record.memory.host_key.is_none() {
                let mut seed = [0; 32];
                rand::rng().fill_bytes(&mut seed);
                let (private, public) = new_ssh_host_key(seed);
                record.host_key_pem = private;
                record.memory.host_key = Some(public.trim().to_owned());
            }
        });
        match made {
            Ok(Record { memory, .. }) => {
                let ssh_host_key = memory.host_key.expect("it was just made");
                self.report(Report::Accepted(Accepted { ssh_host_key }))
                    .await
            }
            Err(error) => {
                tracing::error!(instance = %self.id, %error, "a guest's host key cannot be kept; not accepting");
                End::Later
            }
        }
    }

    async fn start(&self, disk_of: Option<InstanceId>) -> End {
        let Some(assigned) = self.current() else {
            return End::Later;
        };
        let manifest = assigned.manifest;
        let fetched = tokio::select! {
            fetched = self.fetch(&manifest) => fetched,
            () = self.cancel.cancelled() => return End::Later,
        };
        let (boot, source) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                return self.note_failure(error.code(), error.to_string(), !error.is_transient());
            }
        };
        let user_data = tokio::select! {
            opened = self.user_data(&assigned.spec) => opened,
            () = self.cancel.cancelled() => return End::Later,
        };
        let user_data = match user_data {
            Ok(user_data) => user_data,
            Err(failure) => {
                return self.note_failure(&failure.code, failure.text, failure.permanent);
            }
        };
        // The fetch took its time. The lease is read before the ledger: a VM that the ledger has moved
        // since cannot be started on a lease that was renewed after.
        let Some(deadline) = self.lease() else {
            return End::Later;
        };
        let Some(assigned) = self
            .current()
            .filter(|assigned| assigned.desired.duty == Duty::Run)
        else {
            return End::Later;
        };
        let kept = self.shared.records.update(self.id, |record| {
            record.memory.boots = assigned.desired.boots;
            record.image_source = source;
        });
        let record = match kept {
            Ok(record) => record,
            Err(error) => return self.note_failure("disk_full", error.to_string(), false),
        };
        let spec = instance_spec(&assigned, &record, boot, user_data);
        let watched = assigned.spec.on_isolation == OnIsolation::Stop;
        match self
            .launch(&spec, disk_of, watched.then_some(deadline))
            .await
        {
            Ok(()) => End::Done,
            Err(VmmError::LeaseExpired(_)) => End::Later,
            Err(error) => {
                let permanent = matches!(
                    error,
                    VmmError::InvalidSpec { .. }
                        | VmmError::QemuMissing { .. }
                        | VmmError::BadImage { .. }
                );
                self.note_failure(error.code(), error.to_string(), permanent)
            }
        }
    }

    async fn launch(
        &self,
        spec: &InstanceSpec,
        disk_of: Option<InstanceId>,
        deadline: Option<u64>,
    ) -> Result<(), VmmError> {
        let vmm = &self.shared.vmm;
        if let Some(old) = disk_of {
            vmm.succeed(old, self.id).await?;
        }
        match vmm.start(spec, deadline).await {
            // It was resized while it was off: same disk, new seed and size.
            Err(VmmError::Exists(_)) => {
                vmm.succeed(self.id, self.id).await?;
                vmm.start(spec, deadline).await
            }
            other => other,
        }
    }

    /// Makes the image's blobs present and verified.
    async fn fetch(&self, manifest: &ImageManifest) -> Result<(BootSource, String), ImageError> {
        let mut sources = Vec::new();
        let boot = match &manifest.boot {
            Boot::Direct(direct) => BootSource::Direct {
                kernel: self.fetch_blob(&direct.kernel, &mut sources).await?,
                initrd: match &direct.initrd {
                    Some(initrd) => Some(self.fetch_blob(initrd, &mut sources).await?),
                    None => None,
                },
                cmdline: direct.cmdline.clone(),
            },
            Boot::Disk(disk) => BootSource::Disk {
                base: self.fetch_blob(&disk.blob, &mut sources).await?,
                format: match disk.format {
                    DiskFormat::Raw => dagger_vmm::DiskFormat::Raw,
                    DiskFormat::Qcow2 => dagger_vmm::DiskFormat::Qcow2,
                },
                firmware: match disk.firmware {
                    Firmware::Bios => dagger_vmm::Firmware::Bios,
                    Firmware::Uefi => dagger_vmm::Firmware::Uefi,
                },
            },
        };
        sources.sort();
        sources.dedup();
        let source = if sources.is_empty() {
            "cache".to_owned()
        } else {
            sources.join(", ")
        };
        Ok((boot, source))
    }

    /// The customer's user-data in the clear, for the guest's seed alone.
    async fn user_data(&self, spec: &VmSpec) -> Result<Option<String>, Failure> {
        let Some(sealed) = spec.user_data.as_deref() else {
            return Ok(None);
        };
        let failure = |code: &str, text: String, permanent| Failure {
            code: code.to_owned(),
            text,
            permanent,
        };
        let blob = Blob {
            digest: sealed.digest,
            size_bytes: sealed.size_bytes,
        };
        let path = self.fetch_blob(&blob, &mut Vec::new()).await;
        let path = path.map_err(|e| failure(e.code(), e.to_string(), !e.is_transient()))?;
        let body = tokio::fs::read(&path).await;
        let body = body.map_err(|e| failure("E_HOST_IO", e.to_string(), false))?;
        let opened = self.shared.control.open_user_data(sealed, &body);
        let opened = opened.map_err(|e| failure(e.code(), e.to_string(), true))?;
        String::from_utf8(opened).map(Some).map_err(|_| {
            let text = "the user-data is not text; create the VM again with some that is";
            failure("user_data_not_text", text.to_owned(), true)
        })
    }

    async fn fetch_blob(
        &self,
        blob: &Blob,
        sources: &mut Vec<String>,
    ) -> Result<PathBuf, ImageError> {
        let control = &self.shared.control;
        let (path, source) = self
            .shared
            .images
            .ensure(blob.digest.0, blob.size_bytes, control.providers())
            .await?;
        if let ImageSource::Peers(peers) = source {
            sources.extend(peers.iter().map(|peer| control.node_name(peer)));
        }
        Ok(path)
    }

    async fn report_starting(&self) -> End {
        let Some(status) = self.shared.vmm.status(self.id).await else {
            return End::Later;
        };
        let Some((accelerator, reason)) = status.accelerator else {
            return End::Later;
        };
        let record = self.shared.records.get(self.id).unwrap_or_default();
        let starting = Starting {
            accelerator: accelerator.to_string(),
            reason: clean(&reason, 256),
            image_source: clean(&record.image_source, 256),
        };
        match self.report(Report::Starting(starting)).await {
            End::Done => {
                self.remember(|record| record.memory.reported_start_ms = status.qemu_started_ms)
            }
            End::Later => End::Later,
        }
    }

    /// Waits for the guest's ssh server. Gives up when the instance is no longer up.
    async fn probe(&self) -> End {
        let vmm = &self.shared.vmm;
        loop {
            let answers = tokio::select! {
                answers = vmm.ssh_answers(self.id) => answers,
                () = self.cancel.cancelled() => return End::Later,
            };
            if answers {
                return self
                    .report(Report::Running(self.shared.running(self.id)))
                    .await;
            }
            let up = vmm
                .status(self.id)
                .await
                .is_some_and(|status| status.state == InstanceState::Up);
            if !up {
                return End::Later;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    async fn stop(&self, mode: StopMode) -> End {
        if let Err(error) = self.shared.vmm.stop(self.id, mode).await {
            tracing::warn!(instance = %self.id, code = error.code(), %error, "a VM could not be stopped");
            return End::Later;
        }
        let patience = match mode {
            StopMode::Graceful { deadline_ms } => Duration::from_millis(deadline_ms) + STOP_SLACK,
            StopMode::Kill => STOP_SLACK,
        };
        let until = tokio::time::Instant::now() + patience;
        // Not given up early: whatever is wanted next wants it stopped first.
        while tokio::time::Instant::now() < until {
            let status = self.shared.vmm.status(self.id).await;
            if status.is_none_or(|status| matches!(status.state, InstanceState::Stopped { .. })) {
                return End::Done;
            }
            if self.cancel.is_cancelled() {
                return End::Later;
            }
            tokio::time::sleep(STOP_INTERVAL).await;
        }
        End::Later
    }

    async fn remove(&self) -> End {
        // Storage is released for good: look again, with a lease that proves the ledger is fresh.
        let wanted = self.shared.control.assigned().map(|assigned| {
            assigned
                .into_iter()
                .map(|assigned| assigned.desired)
                .any(|desired| {
                    let epochs = [desired.lease_epoch, desired.disk_epoch];
                    desired.vm == self.id.vm
                        && desired.duty != Duty::Release
                        && epochs.contains(&self.id.lease_epoch)
                })
        });
        if self.lease().is_none() || wanted != Some(false) {
            return End::Later;
        }
        match self.shared.vmm.remove(self.id).await {
            Ok(()) => End::Done,
            Err(error) => {
                tracing::warn!(instance = %self.id, code = error.code(), %error, "an instance could not be removed");
                End::Later
            }
        }
    }

    /// Reports until it is executed, the ledger says that it is out of date, or nobody wants it.
    async fn report(&self, report: Report) -> End {
        let report = VmReport {
            vm: VmId(self.id.vm),
            lease_epoch: self.id.lease_epoch,
            report,
        };
        loop {
            let outcome = tokio::select! {
                outcome = self.shared.control.report(report.clone()) => outcome,
                () = self.cancel.cancelled() => return End::Later,
            };
            match outcome {
                Ok(code) if code == "ok" => return End::Done,
                Ok(code) => {
                    tracing::debug!(instance = %self.id, code, "the ledger refused a report: its VM has moved on");
                    return End::Later;
                }
                Err(error) => {
                    tracing::warn!(instance = %self.id, %error, "a report did not get through; trying again")
                }
            }
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    }
}

fn instance_spec(
    assigned: &Assigned,
    record: &Record,
    boot: BootSource,
    user_data: Option<String>,
) -> InstanceSpec {
    let id = assigned.desired.instance();
    let spec = &assigned.spec;
    InstanceSpec {
        id,
        name: spec.name.clone(),
        account: assigned.account.clone(),
        vcpus: spec.size.vcpus,
        memory_mib: spec.size.memory_mib,
        disk_mib: spec.size.disk_mib,
        boot,
        seed: Seed {
            hostname: spec.name.clone(),
            instance_id: format!("dagger-{id}"),
            ssh_authorized_keys: spec.ssh_keys.clone(),
            ssh_host_key_pem: record.host_key_pem.clone(),
            user_data,
        },
        accel: AccelChoice::Auto,
        profile: Profile::Q35,
    }
}

fn ended(failure: Failure) -> Ended {
    Ended {
        code: clean(&failure.code, 64),
        text: clean(&failure.text, 512),
    }
}

/// What a report may carry: no control characters or characters that steer the writing direction, and
/// at most `bytes_max` bytes.
pub(crate) fn clean(text: &str, bytes_max: usize) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        let c = if c.is_whitespace() { ' ' } else { c };
        if dagger_ledger::check_text(c.encode_utf8(&mut [0; 4]), 4).is_err() {
            continue;
        }
        if clean.len() + c.len_utf8() > bytes_max {
            break;
        }
        clean.push(c);
    }
    clean
}

pub(super) fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}
