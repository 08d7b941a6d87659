//! The transport of all peers here: plain TCP between each two members, one connection a direction, frames with their length before
//! them, no encryption. Nothing is dropped, so that no library has to ask for what was sent.

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The longest frame; more is a mistake of ours.
const FRAME_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 5;

/// A frame: its channel, which the libraries' adapters number as they like, and its bytes.
pub type Frame = (u8, Bytes);

/// Takes frames in the order in which a member sent them, on the task that reads that member's connection.
pub type Incoming = Arc<dyn Fn(u16, Frame) + Send + Sync>;

/// Connections to all other members.
pub struct Wire {
    links: Vec<Option<UnboundedSender<Frame>>>,
    sent_bytes: Arc<AtomicU64>,
}

impl Wire {
    /// Connects to all others, and waits until all others have.
    #[expect(
        clippy::disallowed_methods,
        reason = "the libraries' queues before this one have no bounds either, and must not wait"
    )]
    pub async fn connect(
        seat: u16,
        listener: TcpListener,
        addresses: &[SocketAddr],
        incoming: Incoming,
    ) -> anyhow::Result<Arc<Self>> {
        let sent_bytes = Arc::new(AtomicU64::new(0));
        let mut links = Vec::new();
        for (to, address) in addresses.iter().enumerate() {
            if to == usize::from(seat) {
                links.push(None);
                continue;
            }
            let mut stream = dial(*address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&seat.to_le_bytes()).await?;
            let (sender, frames) = unbounded_channel();
            tokio::spawn(write(stream, frames, Arc::clone(&sent_bytes)));
            links.push(Some(sender));
        }
        for _ in 1..addresses.len() {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut from = [0; 2];
            stream.read_exact(&mut from).await?;
            tokio::spawn(read(
                u16::from_le_bytes(from),
                stream,
                Arc::clone(&incoming),
            ));
        }
        Ok(Arc::new(Self { links, sent_bytes }))
    }

    /// Sends a frame to one member; never blocks.
    pub fn send(&self, to: u16, frame: Frame) {
        if let Some(Some(link)) = self.links.get(usize::from(to)) {
            // A member that has gone takes nothing any more.
            let _ = link.send(frame);
        }
    }

    /// Sends a frame to all others; never blocks.
    pub fn broadcast(&self, frame: &Frame) {
        for link in self.links.iter().flatten() {
            let _ = link.send(frame.clone());
        }
    }

    /// Bytes sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// Members start at different times.
async fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut tries = 0;
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tries == 500 => {
                return Err(error).with_context(|| format!("no member listens at {address}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
    }
}

/// Ends when the other member has gone, or this one's `Wire` has.
async fn write(stream: TcpStream, mut frames: UnboundedReceiver<Frame>, sent: Arc<AtomicU64>) {
    let mut stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
    let mut some = Vec::new();
    while frames.recv_many(&mut some, 64).await > 0 {
        for (channel, bytes) in some.drain(..) {
            let mut header = [channel; HEADER_BYTES];
            let length = u32::try_from(bytes.len()).expect("frames are shorter");
            header[..4].copy_from_slice(&length.to_le_bytes());
            // Long frames go past the buffer.
            let written = async {
                stream.write_all(&header).await?;
                stream.write_all(&bytes).await
            };
            if written.await.is_err() {
                return;
            }
            sent.fetch_add((HEADER_BYTES + bytes.len()) as u64, Ordering::Relaxed);
        }
        if frames.is_empty() && stream.flush().await.is_err() {
            return;
        }
    }
}

async fn read(from: u16, stream: TcpStream, incoming: Incoming) {
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    // An error is the end of the other member, at the end of a run.
    while let Ok(frame) = read_frame(&mut stream).await {
        incoming(from, frame);
    }
}

async fn read_frame(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Frame> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("that long")) as usize;
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut bytes = BytesMut::with_capacity(length);
    let mut body = stream.take(length as u64);
    while bytes.len() < length {
        ensure!(body.read_buf(&mut bytes).await? > 0, "a frame was cut off");
    }
    Ok((header[4], bytes.freeze()))
}
