//! What the agent needs of the node it lives in: the ledger's word on this machine's VMs, the lease,
//! where images are, and a way to report. [`NodeHandle`] gives it; tests give a model.

use std::{collections::BTreeSet, future::Future, pin::Pin};

use dagger_client::user_data::{self, UserDataError};
use dagger_ledger::{
    Action, ImageManifest, Key, Ledger, MachineId, OnIsolation, Publish, UserData, VmRecord,
    VmReport, VmSpec,
};
use dagger_vmm::InstanceId;
use futures_util::{Stream, stream};
use iroh::{EndpointAddr, EndpointId};
use rand::Rng as _;
use tokio::sync::broadcast::error::RecvError;

use super::plan::DesiredVm;
use crate::{error::SubmitError, handle::NodeHandle, statement};

/// A VM that the ledger places on this machine, with what it takes to run it.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// What the planner has to know of it.
    pub desired: DesiredVm,
    /// What the customer asked for.
    pub spec: VmSpec,
    /// Ports of the guest that are to be opened here.
    pub publish: Vec<Publish>,
    /// Name of the account that owns it.
    pub account: String,
    /// What its image is made of.
    pub manifest: ImageManifest,
}

/// The agent's view of its node.
pub trait Control: Send + Sync + 'static {
    /// The VMs placed on this machine, as of the last commit executed here. `None`: the ledger knows
    /// no machine with this node's key.
    fn assigned(&self) -> Option<Vec<Assigned>>;

    /// The instances that may run here and whose watchdog counts: those with `on_isolation = stop`.
    fn fenced(&self) -> Vec<InstanceId>;

    /// Until when (CLOCK_BOOTTIME) rivals' attestations prove this machine's lease.
    fn lease_deadline_boottime_ms(&self) -> Option<u64>;

    /// Nodes that may hold an image, the one to ask first in front.
    fn providers(&self) -> Vec<EndpointAddr>;

    /// A node's name for people.
    fn node_name(&self, node: &EndpointId) -> String;

    /// Yields after commits; several may be one item.
    fn changes(&self) -> Pin<Box<dyn Stream<Item = ()> + Send>>;

    /// Signs a report with the node's key and sees it executed: `Ok` is the ledger's code. An error
    /// says why it did not get that far; trying again is safe.
    fn report(&self, report: VmReport) -> impl Future<Output = Result<String, SubmitError>> + Send;

    /// Opens user-data that was sealed to this machine.
    ///
    /// # Errors
    /// It was not sealed to this machine, or is not what was sealed.
    fn open_user_data(&self, sealed: &UserData, body: &[u8]) -> Result<Vec<u8>, UserDataError>;

    /// Shows a standing problem in the node's status, or takes it back.
    fn set_problem(&self, code: &'static str, text: Option<String>);
}

impl Control for NodeHandle {
    fn assigned(&self) -> Option<Vec<Assigned>> {
        self.read(|ledger| {
            let machine = own_machine(self, ledger)?;
            let assigned = ledger
                .vms_on(machine)
                .filter_map(|record| assigned(ledger, record));
            Some(assigned.collect())
        })
    }

    fn fenced(&self) -> Vec<InstanceId> {
        self.read(|ledger| {
            let Some(machine) = own_machine(self, ledger) else {
                return Vec::new();
            };
            let fenced = ledger
                .vms_on(machine)
                .filter(|record| record.spec.on_isolation == OnIsolation::Stop);
            fenced
                .map(|vm| InstanceId {
                    vm: vm.id.0,
                    lease_epoch: vm.lease_epoch,
                })
                .collect()
        })
    }

    fn lease_deadline_boottime_ms(&self) -> Option<u64> {
        NodeHandle::lease_deadline_boottime_ms(self)
    }

    fn providers(&self) -> Vec<EndpointAddr> {
        blob_providers(self)
    }

    fn node_name(&self, node: &EndpointId) -> String {
        let key = Key(*node.as_bytes());
        let name = self.read(|ledger| {
            let machine = ledger
                .machine_by_node_key(&key)
                .map(|machine| machine.name.clone());
            machine.or_else(|| {
                let mut operators = ledger.operators();
                operators
                    .find(|operator| operator.node_key == key)
                    .map(|operator| operator.name.clone())
            })
        });
        name.unwrap_or_else(|| node.fmt_short().to_string())
    }

    fn open_user_data(&self, sealed: &UserData, body: &[u8]) -> Result<Vec<u8>, UserDataError> {
        let machine = self.read(|ledger| {
            let machine = ledger.machine(own_machine(self, ledger)?)?;
            Some(machine.name.clone())
        });
        let seed = self.node_key().to_bytes();
        let machine = machine.unwrap_or_default();
        user_data::open(&self.chain_id(), sealed, body, &machine, &seed)
    }

    fn changes(&self) -> Pin<Box<dyn Stream<Item = ()> + Send>> {
        let receiver = NodeHandle::changes(self);
        Box::pin(stream::unfold(
            receiver,
            async |mut receiver| match receiver.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => Some(((), receiver)),
                Err(RecvError::Closed) => None,
            },
        ))
    }

    async fn report(&self, report: VmReport) -> Result<String, SubmitError> {
        statement::state(self, Action::VmReport(report)).await
    }

    fn set_problem(&self, code: &'static str, text: Option<String>) {
        NodeHandle::set_problem(self, code, text);
    }
}

fn own_machine(node: &NodeHandle, ledger: &Ledger) -> Option<MachineId> {
    let key = Key(node.node_key().verification_key().into());
    ledger.machine_by_node_key(&key).map(|machine| machine.id)
}

fn assigned(ledger: &Ledger, record: &VmRecord) -> Option<Assigned> {
    let account = ledger.account(record.account)?.name.clone();
    let manifest = ledger.image(record.spec.image)?.manifest.clone();
    let desired = DesiredVm {
        vm: record.id.0,
        lease_epoch: record.lease_epoch,
        disk_epoch: record.disk_epoch,
        duty: record.duty(),
        phase: record.phase,
        boots: record.boots,
        host_key: record.ssh_host_key.clone(),
        published: record.ports.opened.clone(),
    };
    Some(Assigned {
        desired,
        spec: record.spec.clone(),
        publish: record.ports.asked.clone(),
        account,
        manifest,
    })
}

/// Nodes other than this one that may hold a blob. Hosts that fetch one image at the same time should not
/// all ask the same node first, so each call begins elsewhere.
pub fn blob_providers(node: &NodeHandle) -> Vec<EndpointAddr> {
    let own = Key(node.node_key().verification_key().into());
    let keys: BTreeSet<Key> = node
        .read(node_keys)
        .into_iter()
        .filter(|key| *key != own)
        .collect();
    let mut providers: Vec<_> = keys.iter().filter_map(|key| node.addr_of(key)).collect();
    // Hosts that fetch one image at the same time should not all ask the same node first.
    let first = rand::rng().next_u64() as usize % providers.len().max(1);
    providers.rotate_left(first);
    providers
}

/// The keys of all nodes that the ledger knows: members' and machines'.
pub fn node_keys(ledger: &Ledger) -> Vec<Key> {
    let members = ledger.operators().map(|operator| operator.node_key);
    members
        .chain(ledger.machines().map(|machine| machine.node_key))
        .collect()
}
