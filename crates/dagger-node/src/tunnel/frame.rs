//! What is said before bytes flow: one request, one word in answer. Nothing of sockets or rights.

use std::{io, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use dagger_client::token::{Right, TOKEN_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest request: a token and some numbers.
pub(super) const REQUEST_BYTES_MAX: usize = TOKEN_BYTES_MAX + 64;
/// How long the other side may take for its part of the conversation.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What is wanted of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Want {
    /// A connection to a TCP port of the guest.
    Port(u16),
    /// Its serial line, both ways.
    Console,
    /// What it wrote to its serial line, oldest first, as far as it is kept.
    Logs {
        /// Go on with what it writes from now.
        follow: bool,
        /// Only so many of the newest lines; all that are kept if none.
        tail_lines: Option<u32>,
    },
    /// The line with which its ssh server greets: for the node of an operator that was drawn to decide a dispute about it.
    Probe,
}

impl Want {
    /// The right that a token must grant; none does for a probe.
    pub fn right(self) -> Option<Right> {
        match self {
            Want::Port(_) => Some(Right::Tunnel),
            Want::Console => Some(Right::Console),
            Want::Logs { .. } => Some(Right::Logs),
            Want::Probe => None,
        }
    }

    /// The port that a token must allow.
    pub fn port(self) -> Option<u16> {
        match self {
            Want::Port(port) => Some(port),
            Want::Console | Want::Logs { .. } | Want::Probe => None,
        }
    }

    /// Whether only a guest that is up can give it.
    pub fn needs_running(self) -> bool {
        !matches!(self, Want::Logs { .. })
    }
}

/// The request that opens a way.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Request {
    /// The VM's number on the ledger.
    pub(super) vm: u64,
    pub(super) want: Want,
    pub(super) token: String,
}

/// The answer. Only who shows a valid token hears anything but the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Answer {
    /// Bytes flow from here.
    Open,
    /// No.
    Refused,
    /// The VM is here, and not running.
    NotRunning,
    /// It runs and does not answer there.
    Unreachable,
}

impl Request {
    pub(super) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let body = borsh::to_vec(self).expect("writing to memory cannot fail");
        let length = u16::try_from(body.len())
            .ok()
            .filter(|length| usize::from(*length) <= REQUEST_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("the token is too long"))?;
        stream.write_u16_le(length).await?;
        stream.write_all(&body).await?;
        stream.flush().await
    }

    /// Reads a request. Nothing is allocated beyond its bound.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
        let length = usize::from(stream.read_u16_le().await?);
        if length > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        borsh::from_slice(&body)
    }
}

impl Answer {
    pub(super) async fn write(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        stream
            .write_all(&borsh::to_vec(&self).expect("writing to memory cannot fail"))
            .await?;
        stream.flush().await
    }

    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
        borsh::from_slice(&[stream.read_u8().await?])
    }
}
