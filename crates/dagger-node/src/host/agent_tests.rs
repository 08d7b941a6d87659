//! The agent against a model of the ledger and a hypervisor in memory. Nothing here is decided by
//! time: tests wait for conditions, with deadlines only a broken agent meets.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dagger_ledger::*;
use dagger_vmm::{
    FakeVmm, InstanceId, InstanceSpec, InstanceState, InstanceStatus, StopCode, StopMode, Vmm,
    VmmError, boottime_ms,
};
use futures_util::{Stream, stream};
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::presets};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    control::{Assigned, Control},
    hypervisor::Hypervisor,
    plan::{DesiredVm, Policy},
    records::Records,
};
use crate::{error::SubmitError, images::Images};

/// A hypervisor in memory that counts.
#[derive(Default)]
struct TestVmm {
    fake: FakeVmm,
    starts: Mutex<Vec<(InstanceId, Option<u64>)>>,
    ssh: AtomicBool,
    missing: AtomicBool,
    succeeded: Mutex<Vec<(InstanceId, InstanceId)>>,
}

#[derive(Clone, Default)]
struct TestHost(Arc<TestVmm>);

impl Vmm for TestHost {
    async fn start(&self, spec: &InstanceSpec, deadline: Option<u64>) -> Result<(), VmmError> {
        self.0.fake.start(spec, deadline).await?;
        self.0.starts.lock().unwrap().push((spec.id, deadline));
        Ok(())
    }
    async fn list(&self) -> Vec<InstanceStatus> {
        self.0.fake.list().await
    }
    async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        self.0.fake.status(id).await
    }
    async fn renew(&self, id: InstanceId, deadline: u64) -> Result<(), VmmError> {
        self.0.fake.renew(id, deadline).await
    }
    async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        self.0.fake.stop(id, mode).await
    }
    async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        self.0.fake.remove(id).await
    }
}

impl Hypervisor for TestHost {
    fn ready(&self) -> Result<(), VmmError> {
        match self.0.missing.load(Ordering::SeqCst) {
            true => Err(VmmError::QemuMissing {
                program: "qemu".into(),
                package: "qemu-system-x86",
            }),
            false => Ok(()),
        }
    }
    async fn ssh_answers(&self, id: InstanceId) -> bool {
        let up = self
            .status(id)
            .await
            .is_some_and(|status| status.state == InstanceState::Up);
        up && self.0.ssh.load(Ordering::SeqCst)
    }
    async fn succeed(&self, old: InstanceId, new: InstanceId) -> Result<(), VmmError> {
        self.0.succeeded.lock().unwrap().push((old, new));
        self.0.fake.remove(old).await
    }
}

/// The ledger's rules for reports, and the lease.
struct Model {
    vms: Mutex<BTreeMap<u64, Assigned>>,
    reports: Mutex<Vec<VmReport>>,
    lease: AtomicU64,
    problem: Mutex<Option<String>>,
    tick: watch::Sender<u64>,
    manifest: ImageManifest,
}

#[derive(Clone)]
struct TestControl(Arc<Model>);

impl TestControl {
    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<u64, Assigned>) -> R) -> R {
        let result = change(&mut self.0.vms.lock().unwrap());
        self.0.tick.send_modify(|tick| *tick += 1);
        result
    }

    fn place(&self, vm: u64, lease_epoch: u64, disk_epoch: u64) {
        let spec = VmSpec {
            name: format!("vm-{vm}"),
            image: ImageId(0),
            image_digest: self.0.manifest.digest(),
            size: Resources {
                vcpus: 1,
                memory_mib: 128,
                disk_mib: 1,
            },
            ssh_keys: Vec::new(),
            user_data: None,
            failover: Failover::Recreate,
            on_isolation: OnIsolation::Stop,
            spread: None,
            placement: None,
            labels: Labels::new(),
        };
        let desired = DesiredVm {
            vm,
            lease_epoch,
            disk_epoch,
            duty: Duty::Accept,
            phase: Phase::Placed,
            boots: 0,
            host_key: None,
        };
        let assigned = Assigned {
            desired,
            spec,
            account: "alice".into(),
            manifest: self.0.manifest.clone(),
        };
        self.change(|vms| vms.insert(vm, assigned));
    }

    fn set(&self, vm: u64, phase: Phase, duty: Duty) {
        self.change(|vms| {
            let desired = &mut vms.get_mut(&vm).unwrap().desired;
            (desired.phase, desired.duty) = (phase, duty);
        });
    }

    fn phase(&self, vm: u64) -> Option<Phase> {
        self.0
            .vms
            .lock()
            .unwrap()
            .get(&vm)
            .map(|assigned| assigned.desired.phase)
    }

    fn lease_for(&self, ms: u64) {
        self.0.lease.store(boottime_ms() + ms, Ordering::SeqCst);
    }

    fn reports(&self) -> Vec<&'static str> {
        let kind = |report: &VmReport| match report.report {
            Report::Accepted(_) => "accepted",
            Report::Starting(_) => "starting",
            Report::Running(_) => "running",
            Report::Stopped(_) => "stopped",
            Report::Failed(_) => "failed",
        };
        self.0.reports.lock().unwrap().iter().map(kind).collect()
    }
}

impl Control for TestControl {
    fn assigned(&self) -> Option<Vec<Assigned>> {
        Some(self.0.vms.lock().unwrap().values().cloned().collect())
    }
    fn fenced(&self) -> Vec<InstanceId> {
        self.0
            .vms
            .lock()
            .unwrap()
            .values()
            .map(|assigned| assigned.desired.instance())
            .collect()
    }
    fn lease_deadline_boottime_ms(&self) -> Option<u64> {
        Some(self.0.lease.load(Ordering::SeqCst)).filter(|deadline| *deadline > 0)
    }
    fn providers(&self) -> Vec<EndpointAddr> {
        Vec::new()
    }
    fn node_name(&self, node: &EndpointId) -> String {
        node.to_string()
    }
    fn changes(&self) -> Pin<Box<dyn Stream<Item = ()> + Send>> {
        let receiver = self.0.tick.subscribe();
        Box::pin(stream::unfold(receiver, async |mut receiver| {
            receiver.changed().await.ok().map(|()| ((), receiver))
        }))
    }
    async fn report(&self, report: VmReport) -> Result<String, SubmitError> {
        self.0.reports.lock().unwrap().push(report.clone());
        Ok(self
            .change(|vms| {
                let Some(assigned) = vms.get_mut(&report.vm.0) else {
                    return "unknown_vm";
                };
                let desired = &mut assigned.desired;
                if desired.lease_epoch != report.lease_epoch {
                    return "stale_epoch";
                }
                let (phase, duty) = match (&report.report, desired.phase) {
                    (Report::Accepted(accepted), Phase::Placed) => {
                        desired.host_key = Some(accepted.ssh_host_key.clone());
                        (Phase::Accepted, Duty::Run)
                    }
                    (Report::Starting(_), Phase::Accepted | Phase::Starting | Phase::Running) => {
                        (Phase::Starting, Duty::Run)
                    }
                    (Report::Running(_), Phase::Accepted | Phase::Starting | Phase::Running) => {
                        (Phase::Running, Duty::Run)
                    }
                    (Report::Stopped(_) | Report::Failed(_), Phase::Deleting | Phase::Moving) => {
                        vms.remove(&report.vm.0);
                        return "ok";
                    }
                    (
                        Report::Stopped(_),
                        Phase::Stopping | Phase::Accepted | Phase::Starting | Phase::Running,
                    ) => (Phase::Stopped, Duty::Keep),
                    (
                        Report::Failed(_),
                        Phase::Placed | Phase::Accepted | Phase::Starting | Phase::Running,
                    ) => (Phase::Failed, Duty::Keep),
                    _ => return "wrong_phase",
                };
                (desired.phase, desired.duty) = (phase, duty);
                "ok"
            })
            .to_owned())
    }
    fn set_problem(&self, _code: &'static str, text: Option<String>) {
        *self.0.problem.lock().unwrap() = text;
    }
}

struct World {
    control: TestControl,
    host: TestHost,
    images: Images,
    dir: tempfile::TempDir,
    agent: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl World {
    async fn new() -> World {
        World::with_image(true).await
    }

    async fn with_image(present: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
        let endpoint = builder
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let images = Images::open(&dir.path().join("images"), endpoint)
            .await
            .unwrap();
        let kernel = Bytes::from_static(b"a kernel, as far as this test goes");
        let digest = Digest(*blake3::hash(&kernel).as_bytes());
        let blob = Blob {
            digest,
            size_bytes: kernel.len() as u64,
        };
        if present {
            images.add_stream(stream::iter([Ok(kernel)])).await.unwrap();
        }
        let direct = DirectBoot {
            kernel: blob,
            initrd: None,
            cmdline: "console=ttyS0".into(),
        };
        let manifest = ImageManifest {
            arch: Arch::X86_64,
            boot: Boot::Direct(direct),
        };
        let model = Model {
            vms: Mutex::default(),
            reports: Mutex::default(),
            lease: AtomicU64::new(0),
            problem: Mutex::default(),
            tick: watch::Sender::new(0),
            manifest,
        };
        let control = TestControl(Arc::new(model));
        control.lease_for(3_600_000);
        let host = TestHost::default();
        host.0.ssh.store(true, Ordering::SeqCst);
        World {
            control,
            host,
            images,
            dir,
            agent: None,
        }
    }

    fn start(&mut self) {
        let policy = Policy {
            backoff_ms: 1,
            backoff_max_ms: 2,
            failures_max: 3,
            ..Policy::default()
        };
        let records = Records::open(self.dir.path().join("agent")).unwrap();
        let agent = Agent::new(
            self.control.clone(),
            self.host.clone(),
            self.images.clone(),
            records,
            policy,
        );
        let cancel = CancellationToken::new();
        self.agent = Some((cancel.clone(), tokio::spawn(agent.run(cancel))));
    }

    /// The daemon dies; what it was doing is lost.
    async fn kill(&mut self) {
        let (_cancel, task) = self.agent.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let wait = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .is_err()
        {
            panic!(
                "never: {what}; reports {:?}, instances {:?}",
                self.control.reports(),
                self.host.list().await
            );
        }
    }

    async fn until_phase(&self, vm: u64, phase: Option<Phase>) {
        self.until(&format!("{phase:?}"), async || {
            self.control.phase(vm) == phase
        })
        .await;
    }

    fn starts(&self) -> Vec<InstanceId> {
        self.host
            .0
            .starts
            .lock()
            .unwrap()
            .iter()
            .map(|start| start.0)
            .collect()
    }
}

const fn id(vm: u64, lease_epoch: u64) -> InstanceId {
    InstanceId { vm, lease_epoch }
}

#[tokio::test]
async fn a_vm_lives_and_is_released() {
    let mut world = World::new().await;
    world.host.0.ssh.store(false, Ordering::SeqCst);
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Starting)).await;
    assert_eq!(world.control.reports(), ["accepted", "starting"]);
    world.host.0.ssh.store(true, Ordering::SeqCst);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.control.reports(), ["accepted", "starting", "running"]);
    // The watchdog got the lease it started under, then the renewed one.
    let started = world.host.0.starts.lock().unwrap()[0];
    assert_eq!(
        started,
        (id(1, 1), world.control.lease_deadline_boottime_ms())
    );
    world.control.lease_for(7_200_000);
    let renewed = world.control.lease_deadline_boottime_ms();
    world
        .until("renewed", async || {
            world
                .host
                .status(id(1, 1))
                .await
                .unwrap()
                .lease_deadline_boottime_ms
                == renewed
        })
        .await;
    // The host key on the ledger is the one whose secret is kept here, readable by the owner alone.
    let path = world.dir.path().join("agent/1-1.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    world.control.set(1, Phase::Deleting, Duty::Release);
    world.until_phase(1, None).await;
    assert!(world.host.list().await.is_empty());
    world.until("forgotten", async || !path.exists()).await;
    assert_eq!(
        world.control.reports(),
        ["accepted", "starting", "running", "stopped"]
    );
}

#[tokio::test]
async fn a_restarted_daemon_takes_over_without_a_second_start_or_report() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.kill().await;
    world.start();
    world.control.place(2, 1, 1);
    world.until_phase(2, Some(Phase::Running)).await;
    assert_eq!(world.starts(), [id(1, 1), id(2, 1)]);
    assert_eq!(world.control.reports().len(), 6);
}

#[tokio::test]
async fn without_a_proven_lease_nothing_is_begun_and_nothing_removed() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.kill().await;
    // The machine comes back with an old ledger: it still names epoch 1, the truth is elsewhere.
    world.host.0.fake.crash(id(1, 1), StopCode::LeaseExpired);
    world.control.lease_for(0);
    world.control.place(2, 1, 1);
    world.start();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.starts(), [id(1, 1)]);
    assert_eq!(world.control.reports().len(), 3);
    // It catches up: the VM is another machine's now, and only then a lease is proven.
    world.control.change(|vms| vms.remove(&1));
    world.control.lease_for(3_600_000);
    world.until_phase(2, Some(Phase::Running)).await;
    world
        .until("the old disk is gone", async || {
            world.host.status(id(1, 1)).await.is_none()
        })
        .await;
    assert_eq!(world.starts(), [id(1, 1), id(2, 1)]);
}

#[tokio::test]
async fn a_fenced_epoch_is_removed_and_a_returning_disk_is_used_again() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.control.place(2, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.until_phase(2, Some(Phase::Running)).await;
    let first_key = world.control.0.vms.lock().unwrap()[&1]
        .desired
        .host_key
        .clone();
    // VM 1 is made anew here, VM 2 comes back to its disk.
    world.control.place(1, 2, 2);
    world.control.place(2, 2, 1);
    world.until_phase(1, Some(Phase::Running)).await;
    world.until_phase(2, Some(Phase::Running)).await;
    let ids: Vec<_> = world
        .host
        .list()
        .await
        .iter()
        .map(|status| status.id)
        .collect();
    assert_eq!(ids, [id(1, 2), id(2, 2)]);
    assert_eq!(
        *world.host.0.succeeded.lock().unwrap(),
        [(id(2, 1), id(2, 2))]
    );
    assert_ne!(
        world.control.0.vms.lock().unwrap()[&1].desired.host_key,
        first_key
    );
}

#[tokio::test]
async fn a_crash_is_told_and_a_crash_loop_ends() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    for crash in 1..=3 {
        // A start of the same millisecond could not be told from the last one.
        tokio::time::sleep(Duration::from_millis(5)).await;
        world.host.0.fake.crash(id(1, 1), StopCode::GuestPanic);
        if crash < 3 {
            world
                .until("told", async || {
                    world.control.reports().len() == 3 + 2 * crash
                })
                .await;
            world.until_phase(1, Some(Phase::Running)).await;
        }
    }
    world.until_phase(1, Some(Phase::Failed)).await;
    let reports = world.control.0.reports.lock().unwrap();
    let Report::Failed(ended) = &reports.last().unwrap().report else {
        panic!("{reports:?}")
    };
    assert_eq!(ended.code, "guest_panic");
}

#[tokio::test]
async fn stop_start_reboot_and_the_guests_own_shutdown() {
    let mut world = World::new().await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    world.control.set(1, Phase::Stopping, Duty::Stop);
    world.until_phase(1, Some(Phase::Stopped)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.control.set(1, Phase::Accepted, Duty::Run);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.starts().len(), 2);
    tokio::time::sleep(Duration::from_millis(5)).await;
    world
        .control
        .change(|vms| vms.get_mut(&1).unwrap().desired.boots += 1);
    world
        .until("rebooted", async || world.starts().len() == 3)
        .await;
    world
        .until("told", async || world.control.reports().len() == 8)
        .await;
    world.until_phase(1, Some(Phase::Running)).await;
    world.host.0.fake.crash(id(1, 1), StopCode::GuestShutdown);
    world.until_phase(1, Some(Phase::Stopped)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.control.set(1, Phase::Accepted, Duty::Run);
    world.until_phase(1, Some(Phase::Running)).await;
    assert_eq!(world.starts().len(), 4);
}

#[tokio::test]
async fn a_machine_without_qemu_says_so_and_refuses() {
    let mut world = World::new().await;
    world.host.0.missing.store(true, Ordering::SeqCst);
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Failed)).await;
    let text = world.control.0.problem.lock().unwrap().clone().unwrap();
    assert!(text.contains("apt-get install"), "{text}");
    let Report::Failed(ended) = world.control.0.reports.lock().unwrap()[0].report.clone() else {
        panic!()
    };
    assert_eq!(ended.code, "E_QEMU_MISSING");
    world.host.0.missing.store(false, Ordering::SeqCst);
    world.control.place(2, 1, 1);
    world.until_phase(2, Some(Phase::Running)).await;
    assert!(world.control.0.problem.lock().unwrap().is_none());
}

#[tokio::test]
async fn an_image_nobody_has_fails_the_vm_with_its_code() {
    let mut world = World::with_image(false).await;
    world.control.place(1, 1, 1);
    world.start();
    world.until_phase(1, Some(Phase::Failed)).await;
    let Report::Failed(ended) = world.control.0.reports.lock().unwrap()[1].report.clone() else {
        panic!()
    };
    assert_eq!(ended.code, "image_unavailable");
    assert!(world.starts().is_empty());
}

#[tokio::test]
async fn churn_with_killed_daemons_leaves_nothing_behind_and_starts_nothing_twice() {
    let mut world = World::new().await;
    for round in 1..=12u64 {
        world.start();
        for vm in 1..=3 {
            match (round + vm) % 4 {
                0 => drop(world.control.change(|vms| vms.remove(&vm))),
                1 => world
                    .host
                    .0
                    .fake
                    .crash(id(vm, round - 1), StopCode::ShimDied),
                2 if world.control.phase(vm).is_some() => {
                    world.control.set(vm, Phase::Deleting, Duty::Release)
                }
                _ => world.control.place(vm, round, round),
            }
        }
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        world.kill().await;
    }
    for vm in 1..=3 {
        world.control.place(vm, 20, 20);
    }
    world.start();
    for vm in 1..=3 {
        world.until_phase(vm, Some(Phase::Running)).await;
    }
    let ids: Vec<_> = world
        .host
        .list()
        .await
        .iter()
        .map(|status| status.id)
        .collect();
    assert_eq!(ids, [id(1, 20), id(2, 20), id(3, 20)]);
}
