//! Ways into a guest through a node: a port or the console over a WebSocket, the log as a stream.

use super::{Client, ClientError, Fault, vm_path};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Bytes read from the local side at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// A guest's log as it arrives.
pub struct LogStream {
    api: String,
    response: reqwest::Response,
}

impl LogStream {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection to the node breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| ClientError::transport(&self.api, &error))
    }
}

/// An open way into a guest: to a port of it, or to its serial console.
pub struct Tunnel {
    api: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Connects to `port` of a VM; `token` must allow it.
    pub async fn tunnel(
        &self,
        account: &str,
        name: &str,
        port: u16,
        token: &str,
    ) -> Result<Tunnel, ClientError> {
        let path = vm_path(account, name, &format!("/tunnel?port={port}"));
        self.way(&path, token).await
    }

    /// Opens the serial console of a VM; `token` must allow it.
    pub async fn console(
        &self,
        account: &str,
        name: &str,
        token: &str,
    ) -> Result<Tunnel, ClientError> {
        self.way(&vm_path(account, name, "/console"), token).await
    }

    /// What a VM wrote to its serial console, from the last `tail` lines on (all that are kept if none), and what it
    /// writes from now if `follow`; `token` must allow it.
    pub async fn logs(
        &self,
        account: &str,
        name: &str,
        follow: bool,
        tail: Option<u32>,
        token: &str,
    ) -> Result<LogStream, ClientError> {
        let tail = tail.map_or(String::new(), |lines| format!("&tail={lines}"));
        let path = vm_path(account, name, &format!("/logs?follow={follow}{tail}"));
        let request = self.http.get(format!("{}{path}", self.api));
        let response = request
            .bearer_auth(token)
            .send()
            .await
            .map_err(|error| ClientError::transport(&self.api, &error))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(ClientError::answered(&self.api, status, &body));
        }
        Ok(LogStream {
            api: self.api.clone(),
            response,
        })
    }

    async fn way(&self, path: &str, token: &str) -> Result<Tunnel, ClientError> {
        let url = format!("ws{}{path}", self.api.trim_start_matches("http"));
        let fault = |text: String| ClientError::new(&self.api, Fault::Node, "E_TUNNEL", text);
        let mut request = url
            .into_client_request()
            .map_err(|error| fault(error.to_string()))?;
        let bearer = format!("Bearer {token}").parse().map_err(|_| {
            ClientError::new(
                &self.api,
                Fault::Usage,
                "E_TOKEN_MALFORMED",
                "this is not an access token",
            )
        })?;
        request.headers_mut().insert("authorization", bearer);
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Tunnel {
                api: self.api.clone(),
                socket,
            }),
            Err(tungstenite::Error::Http(response)) => {
                let status = response.status();
                let body = response.into_body().unwrap_or_default();
                Err(ClientError::answered(&self.api, status, &body))
            }
            Err(tungstenite::Error::Io(error)) => Err(ClientError::new(
                &self.api,
                Fault::Unreachable,
                "E_UNREACHABLE",
                format!("{} cannot be reached: {error}", self.api),
            )),
            Err(error) => Err(fault(format!("the tunnel could not be opened: {error}"))),
        }
    }
}

impl Tunnel {
    /// Carries bytes both ways until either side has ended.
    ///
    /// The end of the local input is passed on and what the guest still sends is delivered.
    ///
    /// # Errors
    /// When the connection to the node breaks, or the local side does.
    pub async fn carry(
        self,
        mut input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
    ) -> Result<(), ClientError> {
        let api = self.api;
        let broken = |error: &dyn std::fmt::Display| {
            ClientError::new(
                &api,
                Fault::Unreachable,
                "E_TUNNEL_BROKEN",
                format!("the tunnel broke: {error}"),
            )
        };
        let (mut to_node, mut from_node) = self.socket.split();
        // The directions run apart: one that waits for room must not keep the other from making it.
        let up = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let count = input.read(&mut buffer).await.map_err(|e| broken(&e))?;
                // An empty message stands for the end of the input: the other direction stays open.
                let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
                to_node.send(message).await.map_err(|e| broken(&e))?;
                if count == 0 {
                    return Ok(());
                }
            }
        };
        let down = async {
            loop {
                match from_node.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        output.write_all(&bytes).await.map_err(|e| broken(&e))?;
                        output.flush().await.map_err(|e| broken(&e))?;
                    }
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(
                        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed,
                    )) => {
                        return Ok(());
                    }
                    Some(Err(error)) => return Err(broken(&error)),
                }
            }
        };
        let (mut up, mut down) = (pin!(up), pin!(down));
        tokio::select! {
            ended = &mut down => ended,
            ended = &mut up => match ended {
                Ok(()) => down.await,
                Err(error) => Err(error),
            },
        }
    }
}
