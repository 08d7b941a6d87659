//! The node's one UDP socket.

use std::{io, net::SocketAddr, time::Duration};

use iroh::{
    Endpoint, RelayMode, SecretKey,
    endpoint::{BindError, PortmapperConfig, QuicTransportConfig, presets},
};

use crate::error::NodeError;

/// Binds the endpoint: exactly `listen`, no relay, no look-up service, nothing outside contacted.
///
/// # Errors
/// `E_PORT_IN_USE`, `E_TRANSPORT`.
pub async fn bind(
    node_key: &ed25519_zebra::SigningKey,
    listen: SocketAddr,
) -> Result<Endpoint, NodeError> {
    // The library's socket may share an address; a plain bind says whether it is free.
    match std::net::UdpSocket::bind(listen) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(in_use(listen)),
        Err(e) => {
            return Err(NodeError::Transport(format!(
                "cannot listen on {listen}: {e}; change `listen` in node.toml"
            )));
        }
        Ok(probe) => drop(probe),
    }
    let idle = Duration::from_secs(15);
    let transport = QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle.try_into().expect("15 s is a QUIC timeout")))
        .send_fairness(false)
        // Fewer acknowledgements would be cheaper, but noq-proto 1.4 writes its ACK_FREQUENCY frame without looking for room:
        // in a handshake's full datagram that panics, and the connection's destructor makes it an abort of the process.
        .ack_frequency_config(None)
        .build();
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&node_key.to_bytes()))
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport)
        .clear_ip_transports()
        .bind_addr(listen)
        .map_err(|e| NodeError::Transport(format!("cannot listen on {listen}: {e}")))?
        .bind()
        .await
        .map_err(|e| match &e {
            BindError::Sockets { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                in_use(listen)
            }
            _ => NodeError::Transport(format!("cannot listen on {listen}: {e:#}")),
        })
}

fn in_use(addr: SocketAddr) -> NodeError {
    NodeError::PortInUse {
        what: "network (UDP)",
        addr,
        key: "listen",
    }
}
