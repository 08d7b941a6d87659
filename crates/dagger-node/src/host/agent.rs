//! The loop that keeps plan and world together: look, plan, let one task per VM act, look again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use dagger_ledger::{Duty, Published, Running};
use dagger_vmm::{InstanceId, InstanceState, InstanceStatus, boottime_ms};
use futures_util::StreamExt as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    control::{Assigned, Control},
    hypervisor::Hypervisor,
    plan::{Action, DesiredVm, Failure, Memory, Policy, plan},
    publish::{Doors, Offer, Wanted},
    records::Records,
    renew,
    steps::{End, perform, unix_ms},
};
use crate::images::Images;

/// Between two looks while something is on its way.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks while nothing is.
const IDLE_INTERVAL: Duration = Duration::from_millis(1_000);
/// Commits closer together than this are looked at once.
const COALESCE: Duration = Duration::from_millis(5);
/// Before the next action for a VM whose last one could not do its work.
const PAUSE: Duration = Duration::from_millis(300);

/// What the loop, its steps and the renewal share.
pub(super) struct Shared<C, V> {
    pub(super) control: C,
    pub(super) vmm: V,
    pub(super) images: Images,
    pub(super) records: Records,
    /// Instances seen alive at the last look: those whose lease is worth renewing.
    pub(super) alive: Mutex<HashSet<InstanceId>>,
    /// What has become of the ports that instances publish.
    pub(super) published: Mutex<HashMap<InstanceId, Vec<Published>>>,
}

impl<C, V> Shared<C, V> {
    /// What there is to say of an instance that is up.
    pub(super) fn running(&self, id: InstanceId) -> Running {
        let published = self.published.lock().expect("no panic holds it");
        Running {
            address: None,
            published: published.get(&id).cloned().unwrap_or_default(),
        }
    }
}

/// The agent of one machine.
pub(super) struct Agent<C, V> {
    shared: Arc<Shared<C, V>>,
    policy: Policy,
    doors: Doors,
    tasks: JoinSet<(u64, End)>,
    busy: HashMap<u64, UnderWay>,
    paused: HashMap<u64, Instant>,
    seen: Option<Vec<DesiredVm>>,
    next_look: Instant,
}

struct UnderWay {
    action: Action,
    cancel: CancellationToken,
}

impl<C: Control, V: Hypervisor> Agent<C, V> {
    pub(super) fn new(
        control: C,
        vmm: V,
        images: Images,
        records: Records,
        policy: Policy,
        offer: Offer,
    ) -> Self {
        let (alive, published) = Default::default();
        Agent {
            shared: Arc::new(Shared {
                control,
                vmm,
                images,
                records,
                alive,
                published,
            }),
            policy,
            doors: Doors::new(offer),
            tasks: JoinSet::new(),
            busy: HashMap::new(),
            paused: HashMap::new(),
            seen: None,
            next_look: Instant::now(),
        }
    }

    /// Runs until `cancel`. VMs go on without it; the next agent takes them over.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let renewal = tokio::spawn(renew::run(self.shared.clone()));
        let mut changes = self.shared.control.changes();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(()) = changes.next() => {
                    // Most commits do not concern this machine: look only if its part of the ledger changed.
                    let desired = self.shared.control.assigned().map(|assigned| desired(&assigned));
                    if desired == self.seen {
                        continue;
                    }
                    tokio::time::sleep(COALESCE).await;
                }
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = sleep_until(self.next_look) => {}
            }
            let busy = self.look().await;
            self.next_look = Instant::now() + if busy { BUSY_INTERVAL } else { IDLE_INTERVAL };
        }
        renewal.abort();
        self.tasks.shutdown().await;
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, (u64, End)), tokio::task::JoinError>) {
        match ended {
            Ok((_, (vm, end))) => {
                self.busy.remove(&vm);
                if end == End::Later {
                    self.paused.insert(vm, Instant::now() + PAUSE);
                }
            }
            Err(error) => {
                // The step's VM stays marked busy, so that a bug does not become a loop of starts.
                tracing::error!(%error, "a step of the host agent panicked; its VM is left alone until the daemon restarts");
            }
        }
    }

    /// One look and plan. True while anything is on its way.
    async fn look(&mut self) -> bool {
        self.check_machine();
        // In this order. An instance that is seen was started under a ledger no newer than the one read
        // after it, and a lease that holds proves that ledger younger than the lease.
        let observed = self.shared.vmm.list().await;
        let alive = self.note_alive(&observed);
        // Also while the ledger says nothing: what a watchdog stopped has no ports.
        self.doors.retain(&alive);
        let leased = self
            .shared
            .control
            .lease_deadline_boottime_ms()
            .is_some_and(|deadline| deadline > boottime_ms());
        let Some(assigned) = self.shared.control.assigned() else {
            return false;
        };
        let desired = desired(&assigned);
        self.seen = Some(desired.clone());
        if !leased {
            // This machine may be behind, cut off, or lapsed: nothing is begun and nothing removed.
            return false;
        }
        self.shared.images.set_in_use(blobs_in_use(&assigned));
        let mut memory = self.shared.records.memory();
        self.open_doors(&assigned, &alive, &mut memory).await;
        let actions = plan(&desired, &observed, &memory, &self.policy, unix_ms());
        self.drop_unwanted(&actions);
        let waiting = !actions.is_empty();
        for action in actions {
            self.begin(action);
        }
        self.forget_records(&desired, &observed);
        let booting = observed
            .iter()
            .any(|status| status.state == InstanceState::Starting);
        waiting || booting || !self.busy.is_empty()
    }

    /// Keeps the ports open that VMs which run here publish, and notes what became of them.
    async fn open_doors(
        &mut self,
        assigned: &[Assigned],
        alive: &HashSet<InstanceId>,
        memory: &mut BTreeMap<InstanceId, Memory>,
    ) {
        let wanted = assigned.iter().filter(|assigned| {
            let desired = &assigned.desired;
            !assigned.publish.is_empty()
                && desired.duty == Duty::Run
                && alive.contains(&desired.instance())
        });
        let wanted: Vec<Wanted> = wanted
            .map(|assigned| Wanted {
                id: assigned.desired.instance(),
                publish: assigned.publish.clone(),
                published: assigned.desired.published.clone(),
            })
            .collect();
        let published = self.doors.set(&self.shared, &wanted).await;
        for (id, published) in &published {
            memory
                .entry(*id)
                .or_default()
                .published
                .clone_from(published);
        }
        *self.shared.published.lock().expect("no panic holds it") = published;
    }

    /// Notices that the hypervisor went missing or came back.
    fn check_machine(&mut self) {
        let off = self.shared.vmm.ready().err();
        let failure = off.map(|error| Failure {
            code: error.code().to_owned(),
            text: error.to_string(),
            permanent: true,
        });
        if failure != self.policy.machine_off {
            match &failure {
                Some(failure) => tracing::error!(
                    code = failure.code,
                    "this machine cannot run VMs: {}",
                    failure.text
                ),
                None => tracing::info!("this machine can run VMs again"),
            }
            self.shared.control.set_problem(
                "E_QEMU_MISSING",
                failure.as_ref().map(|failure| failure.text.clone()),
            );
            self.policy.machine_off = failure;
        }
    }

    fn note_alive(&self, observed: &[InstanceStatus]) -> HashSet<InstanceId> {
        let alive = observed
            .iter()
            .filter(|status| !matches!(status.state, InstanceState::Stopped { .. }));
        let alive: HashSet<InstanceId> = alive.map(|status| status.id).collect();
        self.shared
            .alive
            .lock()
            .expect("no panic holds it")
            .clone_from(&alive);
        alive
    }

    /// Tells steps under way that the plan wants something else now.
    fn drop_unwanted(&self, actions: &[Action]) {
        for (vm, under_way) in &self.busy {
            let wanted = actions.iter().find(|action| action.instance().vm == *vm);
            if !under_way.action.still_serves(wanted) {
                under_way.cancel.cancel();
            }
        }
    }

    fn begin(&mut self, action: Action) {
        let vm = action.instance().vm;
        let paused = self
            .paused
            .get(&vm)
            .is_some_and(|until| *until > Instant::now());
        if self.busy.contains_key(&vm) || paused {
            return;
        }
        self.paused.remove(&vm);
        tracing::debug!(?action, "begin");
        let cancel = CancellationToken::new();
        self.busy.insert(
            vm,
            UnderWay {
                action: action.clone(),
                cancel: cancel.clone(),
            },
        );
        let shared = self.shared.clone();
        self.tasks
            .spawn(async move { (vm, perform(&shared, action, cancel).await) });
    }

    /// Drops what is remembered of instances that are neither wanted nor here.
    fn forget_records(&self, desired: &[DesiredVm], observed: &[InstanceStatus]) {
        let mut known: BTreeSet<InstanceId> = observed.iter().map(|status| status.id).collect();
        known.extend(desired.iter().map(DesiredVm::instance));
        self.shared
            .records
            .retain(|id| known.contains(&id) || self.busy.contains_key(&id.vm));
    }
}

fn desired(assigned: &[Assigned]) -> Vec<DesiredVm> {
    assigned
        .iter()
        .map(|assigned| assigned.desired.clone())
        .collect()
}

fn blobs_in_use(assigned: &[Assigned]) -> HashSet<[u8; 32]> {
    let images = assigned
        .iter()
        .flat_map(|assigned| assigned.manifest.blobs())
        .map(|blob| blob.digest.0);
    let user_data = assigned
        .iter()
        .filter_map(|assigned| Some(assigned.spec.user_data.as_deref()?.digest.0));
    images.chain(user_data).collect()
}
