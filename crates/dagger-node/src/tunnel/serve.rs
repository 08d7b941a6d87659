//! The hosting side: takes requests from other nodes, and joins their streams to guests.

use std::{fmt, sync::Arc, time::Duration};

use dagger_vmm::InstanceId;
use iroh::{
    endpoint::{Connection, RecvStream, SendStream},
    protocol::{AcceptError, ProtocolHandler},
};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
        copy_bidirectional_with_sizes,
    },
    sync::Semaphore,
    time::timeout,
};

use super::{
    Duplex,
    frame::{Answer, PATIENCE, Request, Want},
    gate::{Guests, admit},
};

/// Ways open at once on this machine; further ones wait for the patience of their asker.
const WAYS_MAX: usize = 1024;
/// Requests that are being judged at once: checking a token costs time that a stranger does not pay for.
const JUDGED_MAX: usize = 32;
/// Bytes on their way in each direction of a way.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a guest may take for its greeting: less than its asker waits for the answer.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a greeting. RFC 4253 4.2: with its end at most 255.
pub(super) const GREETING_BYTES_MAX: u64 = 255;
/// How often an open way is checked against the ledger.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Handles [`super::ALPN`] on a machine. Anyone may connect: the token alone decides.
#[derive(Clone)]
pub struct TunnelProtocol<G> {
    guests: G,
    ways: Arc<Semaphore>,
    judged: Arc<Semaphore>,
}

impl<G: Guests> TunnelProtocol<G> {
    /// A handler for the guests of this machine.
    pub fn new(guests: G) -> Self {
        let ways = Arc::new(Semaphore::new(WAYS_MAX));
        TunnelProtocol {
            guests,
            ways,
            judged: Arc::new(Semaphore::new(JUDGED_MAX)),
        }
    }

    async fn serve(
        &self,
        asker: [u8; 32],
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Option<()> {
        let request = timeout(PATIENCE, Request::read(&mut recv))
            .await
            .ok()?
            .ok()?;
        let Ok(_way) = timeout(PATIENCE, self.ways.acquire()).await else {
            return self.refuse(send, Answer::Refused).await;
        };
        let (id, guest) = match judge(&self.guests, &self.judged, &request, asker).await {
            Ok(open) => open,
            Err(answer) => return self.refuse(send, answer).await,
        };
        Answer::Open.write(&mut send).await.ok()?;
        carry(
            &self.guests,
            id,
            request.want,
            tokio::io::join(recv, send),
            guest,
        )
        .await;
        Some(())
    }

    async fn refuse(&self, mut send: SendStream, answer: Answer) -> Option<()> {
        answer.write(&mut send).await.ok()?;
        send.shutdown().await.ok()
    }
}

impl<G> fmt::Debug for TunnelProtocol<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelProtocol").finish_non_exhaustive()
    }
}

impl<G: Guests> ProtocolHandler for TunnelProtocol<G> {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let asker = *connection.remote_id().as_bytes();
        let mut ways = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    // The peer closed the connection, or it broke: its ways end with it.
                    let Ok((send, recv)) = stream else { return Ok(()) };
                    let this = self.clone();
                    ways.spawn(async move { this.serve(asker, send, recv).await });
                }
                Some(_) = ways.join_next() => {}
            }
        }
    }
}

/// Judges a request and connects to the guest.
pub(super) async fn judge<G: Guests>(
    guests: &G,
    judged: &Semaphore,
    request: &Request,
    asker: [u8; 32],
) -> Result<(InstanceId, Box<dyn Duplex>), Answer> {
    let id = {
        let Ok(_turn) = judged.acquire().await else {
            return Err(Answer::Refused);
        };
        let (guests, request) = (guests.clone(), request.clone());
        let verdict = tokio::task::spawn_blocking(move || admit(&guests, &request, &asker)).await;
        verdict.unwrap_or(Err(Answer::Refused))?
    };
    match guests.connect(id, request.want).await {
        Ok(guest) if request.want == Want::Probe => {
            let greeting = timeout(GREETING_PATIENCE, greeting(guest)).await;
            let greeting = greeting.ok().flatten().ok_or(Answer::Unreachable)?;
            Ok((id, greeting))
        }
        Ok(guest) => Ok((id, guest)),
        Err(error) => {
            tracing::debug!(instance = %id, code = error.code(), %error, "a guest did not answer");
            Err(Answer::Unreachable)
        }
    }
}

/// The first line that a guest says of itself, and nothing after it: a probe is no way into the guest. `None` if it says none.
async fn greeting(guest: Box<dyn Duplex>) -> Option<Box<dyn Duplex>> {
    let mut line = Vec::new();
    let mut guest = BufReader::new(guest.take(GREETING_BYTES_MAX));
    guest.read_until(b'\n', &mut line).await.ok()?;
    line.ends_with(b"\n").then_some(())?;
    let (near, mut far) = tokio::io::duplex(line.len());
    // It fits, so this does not wait.
    far.write_all(&line).await.ok()?;
    Some(Box::new(near))
}

/// Copies both ways until both directions ended, or the VM is no longer this machine's.
pub(super) async fn carry<G: Guests>(
    guests: &G,
    id: InstanceId,
    want: Want,
    mut near: impl Duplex,
    mut guest: Box<dyn Duplex>,
) {
    tokio::select! {
        ended = copy(want, &mut near, &mut guest) => {
            tracing::debug!(instance = %id, ?ended, "a way into a VM ended");
        }
        () = fenced(guests, id) => {
            tracing::info!(instance = %id, "a way into a VM was cut: the VM is no longer this machine's");
        }
    }
}

/// Each direction ends by itself. Only who reads a log or a greeting has nothing to say: his end is the end of it, or a log that is
/// followed and stays silent would be kept open for nobody.
async fn copy(
    want: Want,
    near: &mut impl Duplex,
    guest: &mut Box<dyn Duplex>,
) -> std::io::Result<()> {
    if !matches!(want, Want::Logs { .. } | Want::Probe) {
        return copy_bidirectional_with_sizes(near, guest, BUFFER_BYTES, BUFFER_BYTES)
            .await
            .map(drop);
    }
    let (mut from_asker, mut to_asker) = tokio::io::split(near);
    let mut log = BufReader::with_capacity(BUFFER_BYTES, guest);
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        sent = tokio::io::copy_buf(&mut log, &mut to_asker) => {
            sent?;
            to_asker.shutdown().await
        }
        gone = tokio::io::copy(&mut from_asker, &mut nowhere) => gone.map(drop),
    }
}

/// Ends when the instance may no longer act for its VM.
async fn fenced(guests: &impl Guests, id: InstanceId) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if guests
            .hosted(id.vm)
            .is_none_or(|hosted| hosted.instance != id)
        {
            return;
        }
    }
}

/// What a request asks for, for logs.
pub(super) fn describe(want: Want) -> &'static str {
    match want {
        Want::Port(_) => "port",
        Want::Console => "console",
        Want::Logs { .. } => "logs",
        Want::Probe => "probe",
    }
}
