//! Upload of image blobs.

use super::{Api, ApiError, bearer};
use axum::Json;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use dagger_client::api::{BlobHeld, BlobStored, ErrorBody};
use dagger_client::token;
use dagger_ledger::{Code, Digest, Ledger};
use futures_util::TryStreamExt as _;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The upload route on its own: its body is streamed to disk and bounded by the image store.
pub(super) fn upload_route() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::disable())
}

/// In whose name.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadParams {
    /// Name of the account.
    account: String,
}

/// Stores the body as a blob and says its digest.
///
/// Needs `Authorization: Bearer TOKEN` with a token for uploads signed by the account's key: a stranger must not
/// fill the disk.
#[utoipa::path(
    post, path = "/v1/blobs", tag = "ledger",
    params(UploadParams, ("authorization" = String, Header)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, body = BlobStored), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn upload(
    State(api): State<Api>,
    Query(params): Query<UploadParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<BlobStored>), ApiError> {
    let token = bearer(&headers)?;
    let owner = |ledger: &Ledger| ledger.account_by_name(&params.account).map(|a| a.key.0);
    let key = api.node.read(owner);
    let key = key.ok_or_else(|| ApiError::ledger(Code::UnknownAccount))?;
    token::verify_upload(&key, token, api.node.chain_id().0, api.node.now_ms())
        .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let (digest, size_bytes) = api
        .images
        .add_stream(bytes)
        .await
        .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
    Ok((
        StatusCode::CREATED,
        Json(BlobStored {
            digest: hex::encode(digest),
            size_bytes,
        }),
    ))
}

/// Whether this node holds a blob.
#[utoipa::path(
    get, path = "/v1/blobs/{digest}", tag = "ledger", params(("digest" = String, Path)),
    responses((status = 200, body = BlobHeld), (status = 404, body = ErrorBody))
)]
pub(super) async fn blob(
    State(api): State<Api>,
    Path(digest): Path<String>,
) -> Result<Json<BlobHeld>, ApiError> {
    let parsed: Digest = digest.parse().map_err(|_| {
        ApiError::bad_request(
            "E_BAD_DIGEST",
            "A blob's digest is 64 lower-case hex digits.",
        )
    })?;
    if !api.images.has(parsed.0) {
        return Err(ApiError::not_found(
            "E_UNKNOWN_BLOB",
            "This node does not hold that blob; upload it.",
        ));
    }
    Ok(Json(BlobHeld { digest }))
}
