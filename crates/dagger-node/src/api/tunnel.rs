//! A WebSocket that carries bytes to and from a port of a guest. The hosting machine checks the token.
//!
//! Binary messages carry the bytes; an empty one from the client ends its direction.

use super::{Api, ApiError};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use dagger_client::api::ErrorBody;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use utoipa::IntoParams;

/// Bytes read from the guest at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// Where to.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelParams {
    /// Port of the guest.
    port: u16,
}

/// Opens a connection to a port of the guest and upgrades to a WebSocket that carries it.
///
/// Needs `Authorization: Bearer TOKEN` with a token signed by the account's key.
#[utoipa::path(
    get, path = "/v1/vms/{account}/{name}/tunnel", tag = "vm",
    params(("account" = String, Path), ("name" = String, Path), TunnelParams, ("authorization" = String, Header)),
    responses(
        (status = 101, description = "the tunnel is open"),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn tunnel(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
    Query(params): Query<TunnelParams>,
    request: Request,
) -> Result<Response, ApiError> {
    let token = bearer(request.headers())?.to_owned();
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &api)
        .await
        .map_err(|error| ApiError::bad_request("E_BAD_REQUEST", error.body_text()))?;
    let (reader, writer) = crate::tunnel::open(&api.node, &account, &name, params.port, &token)
        .await
        .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
    Ok(upgrade.on_upgrade(async move |socket| carry(socket, reader, writer).await))
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| {
            ApiError::coded(
                "E_TOKEN_MISSING",
                "This needs an access token of the VM's account: Authorization: Bearer TOKEN.",
            )
        })
}

async fn carry(
    socket: WebSocket,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) {
    let (mut to_client, mut from_client) = socket.split();
    // The directions run apart: one that waits for room must not keep the other from making it.
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return false,
                _ => continue,
            };
            if bytes.is_empty() {
                return writer.shutdown().await.is_ok();
            }
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return false;
            }
        }
        false
    };
    let down = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
            if to_client.send(message).await.is_err() {
                return;
            }
        }
        let goodbye = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        let _ = to_client.send(Message::Close(Some(goodbye))).await;
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        () = &mut down => {}
        half_closed = &mut up => if half_closed {
            down.await;
        },
    }
}
