//! Ways into a guest: a WebSocket to a port of it or to its serial console, and its log as a plain stream. The hosting
//! machine checks the token.
//!
//! Of a WebSocket, binary messages carry the bytes; an empty one from the client ends its direction.

use super::{Api, ApiError, bearer};
use crate::tunnel::{Duplex, Want, reach};
use axum::body::Body;
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
use tokio_util::io::ReaderStream;
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
    let way = (account, name, Want::Port(params.port));
    upgrade(api, request, way).await
}

/// Opens the serial console of the guest, both ways, and upgrades to a WebSocket that carries it.
///
/// Needs `Authorization: Bearer TOKEN` with a token for the console signed by the account's key. What was written
/// before is in the logs.
#[utoipa::path(
    get, path = "/v1/vms/{account}/{name}/console", tag = "vm",
    params(("account" = String, Path), ("name" = String, Path), ("authorization" = String, Header)),
    responses(
        (status = 101, description = "the console is open"),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)
    )
)]
pub(super) async fn console(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    upgrade(api, request, (account, name, Want::Console)).await
}

/// Which part of a log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LogParams {
    /// Go on with what the guest writes from now.
    #[serde(default)]
    follow: bool,
    /// Only so many of the newest lines.
    tail: Option<u32>,
}

/// What the guest wrote to its serial console, oldest first, as far as it is kept.
///
/// Needs `Authorization: Bearer TOKEN` with a token for the logs signed by the account's key. The bytes are the guest's
/// own. A log that is followed ends when the VM moves to another machine: ask again.
#[utoipa::path(
    get, path = "/v1/vms/{account}/{name}/logs", tag = "vm",
    params(("account" = String, Path), ("name" = String, Path), LogParams, ("authorization" = String, Header)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)
    )
)]
pub(super) async fn logs(
    State(api): State<Api>,
    Path((account, name)): Path<(String, String)>,
    Query(params): Query<LogParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let want = Want::Logs {
        follow: params.follow,
        tail_lines: params.tail,
    };
    let log = open(&api, &account, &name, want, bearer(&headers)?).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(log, CHUNK_BYTES));
    Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body)
        .map_err(|error| ApiError::coded("E_INTERNAL", error.to_string()))
}

async fn open(
    api: &Api,
    account: &str,
    name: &str,
    want: Want,
    token: &str,
) -> Result<Box<dyn Duplex>, ApiError> {
    reach(&api.node, account, name, want, token)
        .await
        .map_err(|error| ApiError::coded(error.code(), error.to_string()))
}

/// Opens a way and turns the request into the WebSocket that carries it.
async fn upgrade(
    api: Api,
    request: Request,
    (account, name, want): (String, String, Want),
) -> Result<Response, ApiError> {
    let token = bearer(request.headers())?.to_owned();
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &api)
        .await
        .map_err(|error| ApiError::bad_request("E_BAD_REQUEST", error.body_text()))?;
    let way = open(&api, &account, &name, want, &token).await?;
    let (reader, writer) = tokio::io::split(way);
    Ok(upgrade.on_upgrade(async move |socket| carry(socket, reader, writer).await))
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
