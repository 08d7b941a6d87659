//! Pushes the machine's proven lease to the watchdogs of its VMs. Runs apart from the planning loop:
//! whatever that waits for, leases go on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dagger_vmm::InstanceId;
use tokio::task::JoinSet;

use super::{agent::Shared, control::Control, hypervisor::Hypervisor};

/// Between two looks at the lease. A look costs an atomic read unless the lease moved.
const INTERVAL: Duration = Duration::from_millis(100);

/// Renews for ever.
///
/// The deadline is read before the ledger, and only instances that the ledger names get it: a VM that
/// was moved away is never renewed on the strength of a heartbeat proven after the move.
pub(super) async fn run<C: Control, V: Hypervisor>(shared: Arc<Shared<C, V>>) {
    let mut pushed: HashMap<InstanceId, u64> = HashMap::new();
    let mut in_flight: HashSet<InstanceId> = HashSet::new();
    let mut pushes: JoinSet<(InstanceId, Option<u64>)> = JoinSet::new();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(done) = pushes.join_next() => {
                if let Ok((id, deadline)) = done {
                    in_flight.remove(&id);
                    deadline.and_then(|deadline| pushed.insert(id, deadline));
                }
                continue;
            }
            _ = tick.tick() => {}
        }
        let Some(deadline) = shared.control.lease_deadline_boottime_ms() else {
            continue;
        };
        let due: Vec<InstanceId> = {
            let alive = shared.alive.lock().expect("no panic holds it");
            pushed.retain(|id, _| alive.contains(id));
            let behind = alive
                .iter()
                .filter(|id| pushed.get(*id).is_none_or(|last| *last < deadline));
            behind
                .filter(|id| !in_flight.contains(id))
                .copied()
                .collect()
        };
        if due.is_empty() {
            continue;
        }
        let fenced: HashSet<InstanceId> = shared.control.fenced().into_iter().collect();
        for id in due.into_iter().filter(|id| fenced.contains(id)) {
            in_flight.insert(id);
            let shared = shared.clone();
            // Each by itself: one frozen shim must not cost the others their leases.
            pushes.spawn(async move {
                let renewed = shared.vmm.renew(id, deadline).await;
                if let Err(error) = &renewed {
                    tracing::debug!(instance = %id, code = error.code(), "a lease was not renewed");
                }
                (id, renewed.is_ok().then_some(deadline))
            });
        }
    }
}
