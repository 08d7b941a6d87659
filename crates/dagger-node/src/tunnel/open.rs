//! The asking side: finds a VM's machine, dials it, and hands back its bytes.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use dagger_client::token::{self, VmScope};
use dagger_ledger::{Key, Phase, VmId};
use dagger_vmm::Host;
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::Connection};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{
    ALPN, Duplex,
    frame::{Answer, PATIENCE, Request, Want},
    guests::NodeGuests,
    serve::{GREETING_BYTES_MAX, carry, describe, judge},
};
use crate::handle::NodeHandle;

/// How long a VM that this node's ledger has as running is looked for on its machine, whose ledger may
/// be a moment behind.
const LAG_PATIENCE: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes between a local guest and its asker.
const LOCAL_BUFFER_BYTES: usize = 64 * 1024;
/// Requests of this node's own API that are judged at once.
const LOCAL_JUDGED: usize = 8;

/// Why there is no way into a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The token does not allow it, or there is no such VM: one word for both.
    #[error(
        "the token does not allow that, or there is no such VM; ask the account's owner for a token"
    )]
    Refused,
    /// The VM is not running.
    #[error("the VM is not running now; see `dagger vm show` for its phase and the reason")]
    NotRunning,
    /// Its machine does not answer.
    #[error(
        "the machine that hosts the VM cannot be reached; if it is lost, its VMs move when its lease lapses: try again then"
    )]
    MachineUnreachable,
    /// The guest does not answer on that port.
    #[error("the guest does not answer there; is a server listening on that port in the guest?")]
    GuestUnreachable,
}

impl TunnelError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            TunnelError::Refused => "refused",
            TunnelError::NotRunning => "vm_not_running",
            TunnelError::MachineUnreachable => "machine_unreachable",
            TunnelError::GuestUnreachable => "guest_unreachable",
        }
    }
}

impl From<Answer> for TunnelError {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::NotRunning => TunnelError::NotRunning,
            Answer::Unreachable => TunnelError::GuestUnreachable,
            Answer::Refused | Answer::Open => TunnelError::Refused,
        }
    }
}

/// Where a node keeps what it needs to reach VMs: its own hypervisor driver, if it is a machine, and
/// connections to other machines, so that a further way costs one round trip.
#[derive(Default)]
pub struct Ways {
    host: OnceLock<Host>,
    connections: Mutex<HashMap<EndpointId, Connection>>,
}

impl Ways {
    /// Makes the VMs of this very node reachable. Once, at its start.
    pub fn set_host(&self, host: Host) {
        let _ = self.host.set(host);
    }

    /// This node's hypervisor driver, if it is a machine.
    pub fn host(&self) -> Option<&Host> {
        self.host.get()
    }

    /// A connection to a machine's node, a kept one if it still stands.
    async fn connection(&self, endpoint: &Endpoint, addr: EndpointAddr) -> Option<Connection> {
        let id = addr.id;
        let kept = self
            .connections
            .lock()
            .expect("no panic holds it")
            .get(&id)
            .cloned();
        if let Some(kept) = kept.filter(|kept| kept.close_reason().is_none()) {
            return Some(kept);
        }
        let connection = timeout(PATIENCE, endpoint.connect(addr, ALPN))
            .await
            .ok()?
            .ok()?;
        let mut connections = self.connections.lock().expect("no panic holds it");
        connections.retain(|_, connection| connection.close_reason().is_none());
        connections.insert(id, connection.clone());
        Some(connection)
    }

    /// Asks the machine at `addr` and gives the stream once it is open.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        addr: EndpointAddr,
        request: &Request,
    ) -> Result<Box<dyn Duplex>, TunnelError> {
        let id = addr.id;
        let connection = self
            .connection(endpoint, addr)
            .await
            .ok_or(TunnelError::MachineUnreachable)?;
        let conversation = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(std::io::Error::other)?;
            request.write(&mut send).await?;
            let answer = Answer::read(&mut recv).await?;
            std::io::Result::Ok((answer, send, recv))
        };
        match timeout(PATIENCE, conversation).await {
            Ok(Ok((Answer::Open, send, recv))) => Ok(Box::new(tokio::io::join(recv, send))),
            Ok(Ok((answer, ..))) => Err(answer.into()),
            Ok(Err(_)) | Err(_) => {
                // A kept connection to a machine that has died looks alive for a while.
                self.connections
                    .lock()
                    .expect("no panic holds it")
                    .remove(&id);
                Err(TunnelError::MachineUnreachable)
            }
        }
    }
}

/// Opens a connection to a TCP port of a guest. See [`reach`].
///
/// # Errors
/// See [`TunnelError`].
pub async fn open(
    node: &NodeHandle,
    account: &str,
    name: &str,
    port: u16,
    token: &str,
) -> Result<
    (
        impl AsyncRead + Send + Unpin + use<>,
        impl AsyncWrite + Send + Unpin + use<>,
    ),
    TunnelError,
> {
    let stream = reach(node, account, name, Want::Port(port), token).await?;
    Ok(tokio::io::split(stream))
}

/// Opens a way into the VM `name` of `account`, wherever it runs now.
///
/// # Errors
/// See [`TunnelError`]. Who shows no valid token hears only `refused`.
pub async fn reach(
    node: &NodeHandle,
    account: &str,
    name: &str,
    want: Want,
    token: &str,
) -> Result<Box<dyn Duplex>, TunnelError> {
    let give_up = Instant::now() + LAG_PATIENCE;
    loop {
        // Looked up anew each time: the VM may have moved meanwhile.
        let route = locate(node, account, name, want, token)?;
        let request = Request {
            vm: route.vm,
            want,
            token: token.to_owned(),
        };
        let attempt = match route.machine {
            Machine::Here(host) => local(node, host, &request).await,
            Machine::There(addr) => node.ways().ask(node.endpoint(), addr, &request).await,
        };
        match attempt {
            Ok(stream) => {
                tracing::debug!(
                    vm = route.vm,
                    what = describe(want),
                    "a way into a VM is open"
                );
                return Ok(stream);
            }
            // The token is good by this node's ledger: its machine has not executed as much yet.
            Err(TunnelError::Refused | TunnelError::NotRunning) if Instant::now() < give_up => {
                sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks a machine for the greeting of the ssh server of a VM there, whose dispute this node's operator was drawn for.
///
/// # Errors
/// See [`TunnelError`]. `Refused` also where the machine has not executed the dispute yet, or has executed its end.
pub(crate) async fn probe(
    node: &NodeHandle,
    machine: &Key,
    vm: VmId,
) -> Result<String, TunnelError> {
    let addr = node.addr_of(machine);
    let addr = addr.ok_or(TunnelError::MachineUnreachable)?;
    let request = Request {
        vm: vm.0,
        want: Want::Probe,
        token: String::new(),
    };
    let greeting = node.ways().ask(node.endpoint(), addr, &request).await?;
    let mut line = Vec::new();
    let mut greeting = greeting.take(GREETING_BYTES_MAX);
    match timeout(PATIENCE, greeting.read_to_end(&mut line)).await {
        Ok(Ok(_)) => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
        Ok(Err(_)) | Err(_) => Err(TunnelError::MachineUnreachable),
    }
}

struct Route {
    vm: u64,
    machine: Machine,
}

enum Machine {
    Here(Host),
    There(EndpointAddr),
}

/// Finds the machine. The token is judged here too, before anything is said about the VM.
fn locate(
    node: &NodeHandle,
    account: &str,
    name: &str,
    want: Want,
    token: &str,
) -> Result<Route, TunnelError> {
    let found = node.read(|ledger| {
        let account = ledger.account_by_name(account)?;
        let record = ledger.vm_by_name(account.id, name)?;
        let machine = record.machine.and_then(|machine| ledger.machine(machine));
        Some((
            account.key.0,
            record.id.0,
            record.phase,
            machine.map(|machine| machine.node_key),
        ))
    });
    let (account_key, vm, phase, node_key) = found.ok_or(TunnelError::Refused)?;
    let scope = VmScope {
        chain: node.chain_id().0,
        vm,
    };
    let right = want.right().ok_or(TunnelError::Refused)?;
    token::verify(
        &account_key,
        token,
        scope,
        right,
        want.port(),
        node.now_ms(),
    )
    .map_err(|_| TunnelError::Refused)?;
    if want.needs_running() && phase != Phase::Running {
        return Err(TunnelError::NotRunning);
    }
    let node_key = node_key.ok_or(TunnelError::NotRunning)?;
    let own = Key(node.node_key().verification_key().into());
    let machine = if node_key == own {
        let host = node.ways().host.get().cloned();
        Machine::Here(host.ok_or(TunnelError::MachineUnreachable)?)
    } else {
        Machine::There(
            node.addr_of(&node_key)
                .ok_or(TunnelError::MachineUnreachable)?,
        )
    };
    Ok(Route { vm, machine })
}

/// The VM is on this very node: the same judgement, without the network.
async fn local(
    node: &NodeHandle,
    host: Host,
    request: &Request,
) -> Result<Box<dyn Duplex>, TunnelError> {
    static JUDGED: Semaphore = Semaphore::const_new(LOCAL_JUDGED);
    let guests = NodeGuests::new(node.clone(), host);
    let own = node.node_key().verification_key().into();
    let (id, guest) = judge(&guests, &JUDGED, request, own).await?;
    let (near, far) = tokio::io::duplex(LOCAL_BUFFER_BYTES);
    let want = request.want;
    tokio::spawn(async move { carry(&guests, id, want, far, guest).await });
    Ok(Box::new(near))
}
