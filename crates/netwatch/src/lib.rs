//! What iroh takes from `netwatch`: all of it is the registry's crate, but for how a UDP socket sends.
//!
//! tokio lets a task do some 128 things at a time and answers "not ready" to whatever it asks beyond that. A connection's
//! task reads what has come in, one datagram after the other, and then sends. If 128 datagrams were there, the socket
//! seems to be not ready for sending although it is, and iroh drops what it cannot send at once: the peer sees a loss where
//! there was none, and the connection slows down as if its network were congested. Here the socket itself is asked first.
//! docs/adr/0014.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use noq_udp::{RecvMeta, Transmit};

pub use netwatch_upstream::{IpFamily, interfaces, ip, netmon};

/// The registry's socket; sends through [`UdpSender`].
#[derive(Debug)]
pub struct UdpSocket(Arc<netwatch_upstream::UdpSocket>);

impl UdpSocket {
    /// Binds to exactly this address.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_full(addr: impl Into<SocketAddr>) -> io::Result<Self> {
        let socket = netwatch_upstream::UdpSocket::bind_full(addr)?;
        Ok(Self(Arc::new(socket)))
    }

    /// Binds anew to the same address.
    ///
    /// # Errors
    /// The system's.
    pub fn rebind(&self) -> io::Result<()> {
        self.0.rebind()
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system's; also once it is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Receives several datagrams.
    pub fn poll_recv_noq(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv_noq(cx, bufs, metas)
    }

    /// One more way to send.
    #[must_use]
    pub fn create_sender(self: Arc<Self>) -> UdpSender {
        UdpSender {
            socket: Arc::clone(&self.0),
            patient: Arc::clone(&self.0).create_sender(),
        }
    }

    /// Whether the system may cut datagrams in pieces.
    #[must_use]
    pub fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }

    /// How many datagrams the system takes as one.
    #[must_use]
    pub fn max_gso_segments(&self) -> NonZeroUsize {
        self.0.max_gso_segments()
    }

    /// How many datagrams the system may give as one.
    #[must_use]
    pub fn gro_segments(&self) -> NonZeroUsize {
        self.0.gro_segments()
    }
}

/// Sends at once what the socket takes, and waits only if it takes nothing.
#[derive(Clone, Debug)]
pub struct UdpSender {
    socket: Arc<netwatch_upstream::UdpSocket>,
    /// The registry's sender, which waits first.
    patient: netwatch_upstream::UdpSender,
}

impl UdpSender {
    /// Sends, or notes who is to be woken once there is room.
    pub fn poll_send(
        mut self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match self.socket.try_send_noq(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Pin::new(&mut self.patient).poll_send(transmit, cx)
            }
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
#[path = "lib_tests.rs"]
mod tests;
