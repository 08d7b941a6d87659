//! Where packets of a guest's namespace may go, told to the kernel by rtnetlink: everywhere but to what is private.
//!
//! A route of kind `prohibit` refuses a packet before it leaves. It needs no packet filter, and no packet can take
//! another way: the namespace has one interface. Layouts: rtnetlink(7), linux/rtnetlink.h.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// What no guest may reach: this host, private, link-local, shared, reserved, multicast and metadata addresses.
pub const PROHIBITED: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    // One cloud keeps its metadata and agents at a public address.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // The namespace's own link (below) is more specific.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 5),
    (Ipv4Addr::new(248, 0, 0, 0), 5),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// Request, with an answer.
const ASK: u16 = 0x1 | 0x4;
const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
const HEADER_BYTES: usize = 16;
/// Index of the loopback interface, the first of every namespace.
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const ORIGIN_STATIC: u8 = 4;
const KIND_PROHIBIT: u8 = 8;
const RTA_DST: u16 = 1;

/// A conversation with the kernel about the namespace that this process is in.
pub struct Routes {
    socket: OwnedFd,
}

impl Routes {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket })
    }

    /// Brings the loopback interface up: QEMU's forwarded ports listen there.
    pub fn loopback_up(&self) -> io::Result<()> {
        let mut body = vec![0, 0, 0, 0];
        body.extend(LOOPBACK.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.ask(RTM_NEWLINK, ASK, &body)
    }

    /// Refuses everything under a prefix.
    pub fn prohibit(&self, network: Ipv4Addr, bits: u8) -> io::Result<()> {
        let family = AddressFamily::Inet as u8;
        let mut body = vec![
            family,
            bits,
            0,
            0,
            TABLE_MAIN,
            ORIGIN_STATIC,
            0,
            KIND_PROHIBIT,
        ];
        body.extend(0u32.to_ne_bytes());
        body.extend(8u16.to_ne_bytes());
        body.extend(RTA_DST.to_ne_bytes());
        body.extend(network.octets());
        self.ask(RTM_NEWROUTE, ASK | CREATE_OR_REPLACE, &body)
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        let fd = self.socket.as_raw_fd();
        send(fd, &message, MsgFlags::empty())?;
        let mut answer = [0; 512];
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        let word = |at: usize| answer[..length].get(at..at + 4).map(|b| b.try_into());
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        match (kind, word(HEADER_BYTES)) {
            (NLMSG_ERROR, Some(Ok(code))) => match i32::from_ne_bytes(code) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            },
            _ => Err(io::Error::other("the kernel's answer makes no sense")),
        }
    }
}
