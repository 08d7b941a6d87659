//! Upload of image blobs.

use super::{Api, ApiError};
use axum::Json;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use dagger_client::api::{BlobHeld, BlobStored, ErrorBody};
use dagger_ledger::Digest;
use futures_util::TryStreamExt as _;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The upload route on its own: its body is streamed to disk and bounded by the image store.
pub(super) fn upload_route() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::disable())
}

/// Stores the body as a blob and says its digest.
#[utoipa::path(
    post, path = "/v1/blobs", tag = "ledger",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = BlobStored), (status = 507, body = ErrorBody))
)]
async fn upload(
    State(api): State<Api>,
    body: Body,
) -> Result<(StatusCode, Json<BlobStored>), ApiError> {
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
