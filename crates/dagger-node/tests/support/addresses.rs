//! Addresses for nodes under test that nobody else takes while a node is down: not another test, nor the kernel for a socket that
//! asks for any port. Other packages' tests include this file too.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Linux gives out ports from 32,768 on by itself, unless it is told otherwise.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// A loopback address of this process alone: Linux answers on all of 127.0.0.0/8, and its process numbers have 22 bits.
pub fn own_loopback() -> Ipv4Addr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (a & 63), b, c)
}

/// An address whose TCP and UDP ports are free, and stay so until this process uses them.
pub fn free_address() -> SocketAddr {
    loop {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((own_loopback(), port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
