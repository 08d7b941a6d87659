//! The life of a connection: dialled or accepted, greeted, read until it ends; and the tasks that dial and write.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use dagger_ledger::Key;
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{Connection, ConnectionError, RecvStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use shadowgraph::Peer;
use tokio::{io::AsyncReadExt, sync::watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    ALPN, Frame, PROTOCOL_VERSION,
    frame::{Hello, frame_length},
    link::Link,
    links::{Directory, Links},
};

/// The node stops.
pub const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
/// The other end is not admitted.
const CLOSE_STRANGER: VarInt = VarInt::from_u32(1);
/// Another process has connected under the same node key.
const CLOSE_REPLACED: VarInt = VarInt::from_u32(2);
/// The other end broke the protocol, or is of another network or version.
const CLOSE_REFUSED: VarInt = VarInt::from_u32(3);

const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(100);
const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a peer that does not admit this node is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(20);
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the peer with the larger key leaves dialling to the other, once it has tried itself.
const DIAL_COURTESY: Duration = Duration::from_secs(3);
/// What is set aside for a frame before any of it has come: memory that nothing is written to is not taken.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Bytes handed to a stream at once.
const WRITE_BATCH_BYTES: usize = 256 << 10;

/// Takes what peers send. Awaiting it holds back that one peer.
pub(crate) trait Inbound: Directory {
    /// A frame of an admitted peer, in the order it was sent.
    fn receive(&self, from: &Arc<Link>, frame: Frame) -> impl Future<Output = ()> + Send;
    /// A peer closed the connection because another process runs under this node's key.
    fn replaced(&self, by: Peer);
    /// This node's greeting.
    fn chain_id(&self) -> [u8; 32];
    /// Drawn at the start of this process.
    fn instance(&self) -> u64;
}

/// Accepts connections of [`ALPN`].
pub(crate) struct ConsensusProtocol<I> {
    pub links: Links,
    pub inbound: Arc<I>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl<I> Clone for ConsensusProtocol<I> {
    fn clone(&self) -> Self {
        Self {
            links: self.links.clone(),
            inbound: Arc::clone(&self.inbound),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<I> std::fmt::Debug for ConsensusProtocol<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsensusProtocol")
    }
}

impl<I: Inbound> ProtocolHandler for ConsensusProtocol<I> {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let key = Key(*connection.remote_id().as_bytes());
        let Some(link) = self.links.admit(&key, &*self.inbound) else {
            tracing::info!(code = "E_STRANGER", node_key = %key.to_hex(), "refused a node that is neither a member nor a machine of this network nor in [peers]");
            connection.close(
                CLOSE_STRANGER,
                b"not a member, not a machine, not in [peers]",
            );
            return Ok(());
        };
        // Known by its connection only, it is not dialled: its writer starts with the first connection.
        self.spawn_writer_once(&link);
        self.read_connection(&link, connection).await;
        Ok(())
    }
}

impl<I: Inbound> ConsensusProtocol<I> {
    fn spawn_writer_once(&self, link: &Arc<Link>) {
        if !link.has_writer.swap(true, Ordering::AcqRel) {
            self.spawn(write_frames(Arc::clone(link), self.hello()));
        }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn hello(&self) -> Hello {
        Hello {
            chain_id: self.inbound.chain_id(),
            protocol_version: PROTOCOL_VERSION,
            instance: self.inbound.instance(),
        }
    }

    /// Makes a connection the one to send on and reads it until it ends.
    async fn read_connection(&self, link: &Arc<Link>, connection: Connection) {
        link.adopt(&connection);
        tracing::info!(peer = %link.name(), "connected");
        let why = tokio::select! {
            why = self.read_streams(link, &connection) => why,
            () = self.stop.cancelled() => return,
        };
        if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() {
            if close.error_code == CLOSE_REPLACED {
                self.inbound.replaced(link.peer());
            } else if close.error_code == CLOSE_REFUSED || close.error_code == CLOSE_STRANGER {
                link.has_refused
                    .store(close.error_code == CLOSE_STRANGER, Ordering::Relaxed);
                tracing::warn!(peer = %link.name(), reason = %String::from_utf8_lossy(&close.reason), "the peer refuses this node");
            }
        }
        tracing::info!(peer = %link.name(), reason = %why, "disconnected");
        connection.close(CLOSE_REFUSED, why.as_bytes());
        link.abandon(&connection);
    }

    async fn read_streams(&self, link: &Arc<Link>, connection: &Connection) -> String {
        loop {
            let stream = match connection.accept_uni().await {
                Ok(stream) => stream,
                Err(error) => return error.to_string(),
            };
            if let Err(why) = self.read_frames(link, connection, stream).await {
                return why;
            }
        }
    }

    async fn read_frames(
        &self,
        link: &Arc<Link>,
        connection: &Connection,
        mut stream: RecvStream,
    ) -> Result<(), String> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, read_frame(&mut stream)).await;
        let Some(first) = first.map_err(|_| "no greeting")?? else {
            return Ok(());
        };
        self.greet(link, connection, first)?;
        while let Some(frame) = read_frame(&mut stream).await? {
            if matches!(frame, Frame::Hello(_)) {
                return Err("a second greeting".into());
            }
            link.received_frames.fetch_add(1, Ordering::Relaxed);
            self.inbound.receive(link, frame).await;
        }
        Ok(())
    }

    fn greet(&self, link: &Link, connection: &Connection, first: Frame) -> Result<(), String> {
        let Frame::Hello(hello) = first else {
            return Err("no greeting".into());
        };
        let own = self.hello();
        if hello.chain_id != own.chain_id {
            tracing::warn!(code = "E_WRONG_NETWORK", peer = %link.name(), theirs = %hex::encode(hello.chain_id), "the peer is of another network; compare the genesis files");
            return Err(format!(
                "E_WRONG_NETWORK: this node is of network {}",
                hex::encode(own.chain_id)
            ));
        }
        if hello.protocol_version != own.protocol_version {
            tracing::warn!(code = "E_PROTOCOL_VERSION", peer = %link.name(), theirs = hello.protocol_version, ours = own.protocol_version, "the peer speaks another version of the protocol; upgrade the older one");
            return Err(format!(
                "E_PROTOCOL_VERSION: this node speaks version {}",
                own.protocol_version
            ));
        }
        let mut open = link.open.lock().expect("no holder panics");
        for other in open.iter_mut() {
            if other.connection.stable_id() == connection.stable_id() {
                other.instance = Some(hello.instance);
            } else if other.instance.is_some_and(|i| i != hello.instance) {
                // Mostly a restart, and then nobody is left at the other end to read this.
                other.connection.close(
                    CLOSE_REPLACED,
                    b"another process has connected under this node key",
                );
            }
        }
        drop(open);
        link.greeted(connection);
        Ok(())
    }
}

async fn read_frame(stream: &mut RecvStream) -> Result<Option<Frame>, String> {
    let mut field = [0u8; 4];
    match stream.read_exact(&mut field).await {
        Ok(()) => {}
        Err(iroh::endpoint::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    let length = frame_length(field).map_err(|e| e.to_string())?;
    // Space is set aside as bytes arrive, beyond what an event takes, so a claimed length alone costs next to nothing.
    let mut body = BytesMut::with_capacity(length.min(READ_AHEAD_BYTES));
    let mut rest = stream.take(length as u64);
    // Whatever has come is read at once: chunk by chunk each of a packet's bytes would take the connection's lock anew.
    while body.len() < length {
        match rest.read_buf(&mut body).await {
            Ok(0) => return Err("the stream ended within a frame".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Frame::decode(body.freeze())
        .map(Some)
        .map_err(|e| e.to_string())
}

/// Starts the tasks that dial the peers of the table and write to them, now and whenever the table changes.
pub(crate) fn dial_all<I: Inbound>(protocol: &ConsensusProtocol<I>, endpoint: &Endpoint) {
    let mut changes = protocol.links.changes();
    let (of_task, endpoint) = (protocol.clone(), endpoint.clone());
    protocol.spawn(async move {
        let protocol = of_task;
        loop {
            for link in protocol.links.all() {
                protocol.spawn_writer_once(&link);
                let wanted = !link.addresses().is_empty();
                if wanted && !link.is_dialled.swap(true, Ordering::AcqRel) {
                    protocol.spawn(dial(protocol.clone(), endpoint.clone(), link));
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

async fn dial<I: Inbound>(protocol: ConsensusProtocol<I>, endpoint: Endpoint, link: Arc<Link>) {
    let Ok(id) = EndpointId::from_bytes(&link.key.0) else {
        return;
    };
    let lower = endpoint.id().as_bytes() < &link.key.0;
    let mut current = link.current.subscribe();
    let mut backoff = DIAL_BACKOFF_MIN;
    let mut quiet = false;
    loop {
        if link.is_connected() {
            backoff = DIAL_BACKOFF_MIN;
            quiet = false;
            if current.changed().await.is_err() {
                return;
            }
            let we_dial = lower || !link.peer().is_member();
            if !link.is_connected() && !we_dial {
                tokio::time::sleep(DIAL_COURTESY).await;
            }
            continue;
        }
        if link.has_refused.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        let addresses = link.addresses();
        if addresses.is_empty() {
            link.is_dialled.store(false, Ordering::Release);
            return;
        }
        let mut addr = EndpointAddr::new(id);
        for address in &addresses {
            match tokio::net::lookup_host(address).await {
                Ok(found) => addr = found.fold(addr, EndpointAddr::with_ip_addr),
                Err(error) => {
                    tracing::warn!(peer = %link.name(), %address, %error, "cannot resolve the address of a peer")
                }
            }
        }
        match tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect(addr, ALPN)).await {
            Ok(Ok(connection)) => {
                let (reader, link) = (protocol.clone(), Arc::clone(&link));
                current.mark_unchanged();
                protocol.spawn(async move { reader.read_connection(&link, connection).await });
                let _ = tokio::time::timeout(DIAL_TIMEOUT, current.changed()).await;
            }
            failed => {
                if !std::mem::replace(&mut quiet, true) {
                    let error = failed.map_or_else(
                        |_| "no answer".to_owned(),
                        |r| r.map_or_else(|e| format!("{e:#}"), |_| String::new()),
                    );
                    tracing::info!(peer = %link.name(), %error, "cannot reach a peer; trying on");
                }
                // Jitter keeps nodes that lost each other at one moment from dialling at one moment.
                let jitter = rand::random_range(0.5..1.0);
                tokio::time::sleep(backoff.mul_f64(jitter)).await;
                backoff = (backoff * 2).min(DIAL_BACKOFF_MAX);
            }
        }
    }
}

/// Writes what waits for a peer, on the connection that is current.
async fn write_frames(link: Arc<Link>, hello: Hello) {
    let mut current = link.current.subscribe();
    loop {
        let connection = current.borrow_and_update().clone();
        let why = match connection {
            Some(connection) => write_connection(&link, &connection, &hello, &mut current).await,
            None => Written::Ended,
        };
        // The end of a connection is followed by a change of `current`; a change was seen already.
        if matches!(why, Written::Ended) && current.changed().await.is_err() {
            return;
        }
    }
}

/// Why writing to a connection has ended.
enum Written {
    /// The connection is of no more use.
    Ended,
    /// Another connection is current now.
    Switched,
}

/// Until the connection ends or is no longer the one to send on. What was taken from the queue and not yet
/// written is lost then, as anything in flight may be.
async fn write_connection(
    link: &Link,
    connection: &Connection,
    hello: &Hello,
    current: &mut watch::Receiver<Option<Connection>>,
) -> Written {
    let Ok(mut stream) = connection.open_uni().await else {
        return Written::Ended;
    };
    let greeting = Frame::Hello(hello.clone()).encode();
    let mut chunks = vec![greeting.head, greeting.body];
    loop {
        tokio::select! {
            written = stream.write_all_chunks(&mut chunks) => if written.is_err() { return Written::Ended },
            _ = current.changed() => return Written::Switched,
        }
        // Taking from the queue is one step that is not interrupted: nothing is lost while it waits.
        let batch = tokio::select! {
            batch = link.queue.pop(WRITE_BATCH_BYTES) => batch,
            _ = current.changed() => return Written::Switched,
        };
        let bytes: usize = batch.iter().map(super::frame::Encoded::len).sum();
        chunks = batch
            .into_iter()
            .flat_map(|frame| [frame.head, frame.body])
            .collect();
        link.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
