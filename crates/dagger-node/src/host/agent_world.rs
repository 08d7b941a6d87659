//! What the agent is tested against: the ledger's rules for reports as a model, a hypervisor in memory
//! that counts, and a daemon that can be killed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dagger_client::user_data::{self, UserDataError};
use dagger_ledger::*;
use dagger_vmm::{
    FakeVmm, InstanceId, InstanceSpec, InstanceState, InstanceStatus, StopMode, Vmm, VmmError,
    boottime_ms,
};
use futures_util::{Stream, stream};
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::presets};
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    control::{Assigned, Control},
    hypervisor::Hypervisor,
    plan::{DesiredVm, Policy},
    publish::Offer,
    records::Records,
};
use crate::{error::SubmitError, images::Images};

pub(super) const CHAIN: Digest = Digest([5; 32]);
pub(super) const MACHINE: &str = "m-1";
pub(super) const NODE_SEED: [u8; 32] = [6; 32];

/// A hypervisor in memory that counts.
#[derive(Default)]
pub(super) struct TestVmm {
    pub(super) fake: FakeVmm,
    pub(super) starts: Mutex<Vec<(InstanceId, Option<u64>)>>,
    /// What each start put into its seed.
    pub(super) user_data: Mutex<Vec<Option<String>>>,
    pub(super) ssh: AtomicBool,
    pub(super) missing: AtomicBool,
    pub(super) succeeded: Mutex<Vec<(InstanceId, InstanceId)>>,
    /// What listens in the guests.
    pub(super) guest: Mutex<Option<SocketAddr>>,
}

#[derive(Clone, Default)]
pub(super) struct TestHost(pub(super) Arc<TestVmm>);

impl Vmm for TestHost {
    async fn start(&self, spec: &InstanceSpec, deadline: Option<u64>) -> Result<(), VmmError> {
        self.0.fake.start(spec, deadline).await?;
        self.0.starts.lock().unwrap().push((spec.id, deadline));
        let user_data = spec.seed.user_data.clone();
        self.0.user_data.lock().unwrap().push(user_data);
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
    async fn dial(&self, id: InstanceId, guest_port: u16) -> Result<TcpStream, VmmError> {
        let guest = *self.0.guest.lock().unwrap();
        let guest = guest.filter(|guest| guest.port() == guest_port);
        let guest = guest.ok_or(VmmError::NotRunning(id))?;
        TcpStream::connect(guest)
            .await
            .map_err(|_| VmmError::NotRunning(id))
    }
    async fn succeed(&self, old: InstanceId, new: InstanceId) -> Result<(), VmmError> {
        self.0.succeeded.lock().unwrap().push((old, new));
        self.0.fake.remove(old).await
    }
}

/// The ledger's rules for reports, and the lease.
pub(super) struct Model {
    pub(super) vms: Mutex<BTreeMap<u64, Assigned>>,
    pub(super) reports: Mutex<Vec<VmReport>>,
    pub(super) lease: AtomicU64,
    pub(super) problem: Mutex<Option<String>>,
    pub(super) tick: watch::Sender<u64>,
    pub(super) manifest: ImageManifest,
}

#[derive(Clone)]
pub(super) struct TestControl(pub(super) Arc<Model>);

impl TestControl {
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<u64, Assigned>) -> R) -> R {
        let result = change(&mut self.0.vms.lock().unwrap());
        self.0.tick.send_modify(|tick| *tick += 1);
        result
    }

    pub(super) fn place(&self, vm: u64, lease_epoch: u64, disk_epoch: u64) {
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
            restart: Default::default(),
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
            published: Vec::new(),
        };
        let assigned = Assigned {
            desired,
            spec,
            publish: Vec::new(),
            account: "alice".into(),
            manifest: self.0.manifest.clone(),
        };
        self.change(|vms| vms.insert(vm, assigned));
    }

    pub(super) fn set(&self, vm: u64, phase: Phase, duty: Duty) {
        self.change(|vms| {
            let desired = &mut vms.get_mut(&vm).unwrap().desired;
            (desired.phase, desired.duty) = (phase, duty);
        });
    }

    pub(super) fn phase(&self, vm: u64) -> Option<Phase> {
        self.0
            .vms
            .lock()
            .unwrap()
            .get(&vm)
            .map(|assigned| assigned.desired.phase)
    }

    pub(super) fn lease_for(&self, ms: u64) {
        self.0.lease.store(boottime_ms() + ms, Ordering::SeqCst);
    }

    pub(super) fn reports(&self) -> Vec<&'static str> {
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
    fn open_user_data(&self, sealed: &UserData, body: &[u8]) -> Result<Vec<u8>, UserDataError> {
        user_data::open(&CHAIN, sealed, body, MACHINE, &NODE_SEED)
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
                    (
                        Report::Running(running),
                        Phase::Accepted | Phase::Starting | Phase::Running,
                    ) => {
                        desired.published = running.published.clone();
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

pub(super) struct World {
    pub(super) control: TestControl,
    pub(super) host: TestHost,
    pub(super) images: Images,
    pub(super) dir: tempfile::TempDir,
    pub(super) offer: Offer,
    pub(super) agent: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl World {
    pub(super) async fn new() -> World {
        World::with_image(true).await
    }

    pub(super) async fn with_image(present: bool) -> World {
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
            offer: Offer {
                ports: Some(1024..=u16::MAX),
                ..Offer::default()
            },
            agent: None,
        }
    }

    pub(super) fn start(&mut self) {
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
            self.offer.clone(),
        );
        let cancel = CancellationToken::new();
        self.agent = Some((cancel.clone(), tokio::spawn(agent.run(cancel))));
    }

    /// The daemon dies; what it was doing is lost.
    pub(super) async fn kill(&mut self) {
        let (_cancel, task) = self.agent.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub(super) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
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

    pub(super) async fn until_phase(&self, vm: u64, phase: Option<Phase>) {
        self.until(&format!("{phase:?}"), async || {
            self.control.phase(vm) == phase
        })
        .await;
    }

    pub(super) fn starts(&self) -> Vec<InstanceId> {
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
