//! Ports of guests that this host opens to everybody: a listener each, whose connections reach the guest by the way that a tunnel
//! takes. Which ports and for which instances, the ledger says; what became of each is for the report.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use dagger_ledger::{Ended, Publish, Published};
use dagger_vmm::InstanceId;
use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{setsockopt, sockopt},
};
use tokio::{
    io::{AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};

use super::{agent::Shared, control::Control, hypervisor::Hypervisor};

/// Connections to all guests of a host at once, if it may open eight files for each: the daemon has other uses for them.
const HOST_CONNECTIONS_MAX: u64 = 4_096;
/// Files of the daemon for each connection that it may carry.
const FILES_PER_CONNECTION: u64 = 8;
/// Connections to one guest at once; more are closed at once.
const VM_CONNECTIONS_MAX: usize = 256;
/// Before the next connection is taken when one could not be (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection outlives its guest's end of it: a stranger who keeps his open must not hold a place for good.
const LINGER: Duration = Duration::from_secs(60);
/// A connection this long without a word is asked whether its other end is still there; one that is not frees its place.
const KEEPALIVE_S: u32 = 60;
/// Ports that are tried in a range that the system does not choose from.
const TRIES: u32 = 256;

/// What an operator lets customers open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where listeners are bound.
    pub ip: IpAddr,
    /// The address that customers are told.
    pub shown: IpAddr,
    /// Ports that may be opened, if any.
    pub ports: Option<RangeInclusive<u16>>,
    /// Connections to one guest at once.
    pub vm_connections_max: usize,
}

impl Default for Offer {
    fn default() -> Self {
        Offer {
            ip: Ipv4Addr::LOCALHOST.into(),
            shown: Ipv4Addr::LOCALHOST.into(),
            ports: None,
            vm_connections_max: VM_CONNECTIONS_MAX,
        }
    }
}

/// The ports that one instance is to have: what was asked, and where the ledger has them as open.
pub(super) struct Wanted {
    pub(super) id: InstanceId,
    pub(super) publish: Vec<Publish>,
    pub(super) published: Vec<Published>,
}

impl Wanted {
    /// The port of the host that a port of the guest had when the ledger was last told.
    fn had(&self, publish: Publish) -> Option<u16> {
        let mut published = self.published.iter();
        let had = published.find(|had| had.guest_port == publish.guest_port)?;
        had.address.as_ref()?.rsplit_once(':')?.1.parse().ok()
    }
}

/// The listeners of a host. Dropping it closes them, and every connection through them.
pub(super) struct Doors {
    offer: Offer,
    open: HashMap<(InstanceId, Publish), Door>,
    /// Free places for connections on this host, and to each of its guests.
    host_places: Arc<Semaphore>,
    vm_places: HashMap<InstanceId, Arc<Semaphore>>,
}

struct Door {
    port: u16,
    task: AbortHandle,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doors {
    pub(super) fn new(offer: Offer) -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let connections = HOST_CONNECTIONS_MAX.min(files / FILES_PER_CONNECTION);
        Doors {
            offer,
            open: HashMap::new(),
            host_places: Arc::new(Semaphore::new(
                usize::try_from(connections).expect("it is bounded"),
            )),
            vm_places: HashMap::new(),
        }
    }

    /// Closes the ports of all instances but these.
    pub(super) fn retain(&mut self, ids: &HashSet<InstanceId>) {
        self.open.retain(|(id, _), _| ids.contains(id));
        self.vm_places.retain(|id, _| ids.contains(id));
    }

    /// Opens what is wanted and not open, closes what is open and not wanted, and says what is. A port that could not be opened is
    /// tried again with every call.
    pub(super) async fn set<C: Control, V: Hypervisor>(
        &mut self,
        shared: &Arc<Shared<C, V>>,
        wanted: &[Wanted],
    ) -> HashMap<InstanceId, Vec<Published>> {
        self.retain(&wanted.iter().map(|wanted| wanted.id).collect());
        self.open.retain(|_, door| !door.task.is_finished());
        let mut problems = HashMap::new();
        // Whoever had a port keeps it when a daemon begins anew: the others come second.
        for had in [true, false] {
            for (wanted, publish) in each(wanted) {
                let key = (wanted.id, publish);
                if wanted.had(publish).is_some() != had || self.open.contains_key(&key) {
                    continue;
                }
                if let Err(problem) = self.open_one(shared, wanted, publish).await {
                    problems.insert(key, problem);
                }
            }
        }
        let mut state: HashMap<_, Vec<_>> = HashMap::new();
        for (wanted, publish) in each(wanted) {
            let key = (wanted.id, publish);
            let door = self.open.get(&key);
            state.entry(wanted.id).or_default().push(Published {
                guest_port: publish.guest_port,
                address: door.map(|door| shown(self.offer.shown, door.port)),
                problem: problems.remove(&key),
            });
        }
        state
    }

    async fn open_one<C: Control, V: Hypervisor>(
        &mut self,
        shared: &Arc<Shared<C, V>>,
        wanted: &Wanted,
        publish: Publish,
    ) -> Result<(), Ended> {
        let listener = self.bind(wanted, publish).await?;
        let port = listener.local_addr().map_err(refused)?.port();
        let vm_places = self.vm_places.entry(wanted.id);
        let vm_places =
            vm_places.or_insert_with(|| Arc::new(Semaphore::new(self.offer.vm_connections_max)));
        let gate = Gate {
            shared: Arc::clone(shared),
            id: wanted.id,
            guest_port: publish.guest_port,
            places: [Arc::clone(vm_places), Arc::clone(&self.host_places)],
        };
        let task = tokio::spawn(gate.serve(listener)).abort_handle();
        self.open.insert((wanted.id, publish), Door { port, task });
        Ok(())
    }

    async fn bind(&self, wanted: &Wanted, publish: Publish) -> Result<TcpListener, Ended> {
        let Some(ports) = &self.offer.ports else {
            let text = "this machine's operator lets no ports be opened".to_owned();
            return Err(problem("host_port_not_offered", text));
        };
        let Some(port) = publish.host_port else {
            return self.bind_any(ports, wanted, publish).await.map_err(refused);
        };
        if !ports.contains(&port) {
            let (first, last) = ports.clone().into_inner();
            let text = format!("this machine opens ports {first} to {last} only, not {port}");
            return Err(problem("host_port_not_offered", text));
        }
        self.listen(port)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    let text = format!(
                        "port {port} of this machine is taken; it is opened once it is free. Name another, or none: then the machine chooses"
                    );
                    problem("host_port_taken", text)
                }
                _ => refused(error),
            })
    }

    /// The port that it had, if that is still free, or one that the system gives out, or else any that is offered.
    async fn bind_any(
        &self,
        ports: &RangeInclusive<u16>,
        wanted: &Wanted,
        publish: Publish,
    ) -> io::Result<TcpListener> {
        if let Some(had) = wanted.had(publish).filter(|had| ports.contains(had))
            && let Ok(listener) = self.listen(had).await
        {
            return Ok(listener);
        }
        let given = self.listen(0).await?;
        if ports.contains(&given.local_addr()?.port()) {
            return Ok(given);
        }
        let (first, last) = ports.clone().into_inner();
        let count = u32::from(last - first) + 1;
        // VMs begin at different places, so that few tries are in vain.
        let begin =
            u32::try_from(wanted.id.vm.wrapping_mul(16) % u64::from(count)).expect("below `count`");
        for step in 0..count.min(TRIES) {
            let offset = u16::try_from((begin + step) % count).expect("below `count`");
            if let Ok(listener) = self.listen(first + offset).await {
                return Ok(listener);
            }
        }
        let text = format!("found no free port among those offered, {first} to {last}");
        Err(io::Error::other(text))
    }

    async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        TcpListener::bind((self.offer.ip, port)).await
    }
}

fn each(wanted: &[Wanted]) -> impl Iterator<Item = (&Wanted, Publish)> {
    wanted
        .iter()
        .flat_map(|wanted| wanted.publish.iter().map(move |publish| (wanted, *publish)))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn refused(error: io::Error) -> Ended {
    problem(
        "host_port_refused",
        format!("this machine cannot open the port: {error}"),
    )
}

fn problem(code: &str, text: String) -> Ended {
    Ended {
        code: code.to_owned(),
        text: super::clean(&text, 256),
    }
}

/// An address for people: at which of its addresses a host is reached that listens at all of them, it does not know.
fn shown(ip: IpAddr, port: u16) -> String {
    if ip.is_unspecified() {
        return format!("*:{port}");
    }
    SocketAddr::new(ip, port).to_string()
}

/// What stands behind one open port.
struct Gate<C, V> {
    shared: Arc<Shared<C, V>>,
    id: InstanceId,
    guest_port: u16,
    places: [Arc<Semaphore>; 2],
}

impl<C: Control, V: Hypervisor> Gate<C, V> {
    /// Takes connections until it is aborted, which ends them too.
    async fn serve(self, listener: TcpListener) {
        let mut carried = JoinSet::new();
        loop {
            let outside = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = carried.join_next() => continue,
            };
            let Ok((outside, _)) = outside else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(places) = self.take_places() else {
                continue;
            };
            let (shared, id, guest_port) = (Arc::clone(&self.shared), self.id, self.guest_port);
            carried.spawn(async move {
                let Ok(inside) = shared.vmm.dial(id, guest_port).await else {
                    return;
                };
                keep_alive(&outside);
                // However it ends, both sides are closed.
                let _ = carry(outside, inside).await;
                drop(places);
            });
        }
    }

    fn take_places(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let [vm, host] = &self.places;
        let vm = Arc::clone(vm).try_acquire_owned().ok()?;
        let host = Arc::clone(host).try_acquire_owned().ok()?;
        Some([vm, host])
    }
}

/// A side that vanished without a word (a cable, a laptop's lid) must not hold its place for good. Without it all still works.
fn keep_alive(outside: &TcpStream) {
    let _ = outside.set_nodelay(true);
    let _ = setsockopt(outside, sockopt::KeepAlive, &true);
    let _ = setsockopt(outside, sockopt::TcpKeepIdle, &KEEPALIVE_S);
    let _ = setsockopt(outside, sockopt::TcpKeepInterval, &(KEEPALIVE_S / 4));
}

/// Carries both directions until both have ended; after the guest's has, the other has [`LINGER`] left.
async fn carry(mut outside: TcpStream, mut inside: TcpStream) -> io::Result<()> {
    let (mut from_outside, mut to_outside) = outside.split();
    let (mut from_inside, mut to_inside) = inside.split();
    let up = async {
        copy(&mut from_outside, &mut to_inside).await?;
        to_inside.shutdown().await
    };
    let down = async {
        copy(&mut from_inside, &mut to_outside).await?;
        to_outside.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => {
            ended?;
            down.await
        }
        ended = &mut down => {
            ended?;
            tokio::time::timeout(LINGER, up).await.unwrap_or(Ok(()))
        }
    }
}
