//! The node's HTTP API: reads of the ledger, submission of signed transactions, uploads, tunnels.
//!
//! Writes are signed transactions, so the API holds no secret and needs no session. What exposes a
//! customer's VM needs a token of the account's key, which the hosting machine checks, not this code; uploads
//! need one too, which is checked here.
//! Must not live here: anything that decides; a handler reads, converts, or hands on.

mod blobs;
mod commit_views;
mod error;
mod proofs;
mod proposal_views;
mod reads;
mod tail;
mod transactions;
mod tunnel;
mod views;

use crate::NodeHandle;
use crate::images::Images;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, header};
use axum::{Router, routing::get};
use bytes::Bytes;
use dagger_client::api::CheckView;
use std::sync::Arc;
use std::time::Instant;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use error::ApiError;

/// A request body larger than this is refused, uploads of blobs apart.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// When the node looked at itself, and what it saw.
type Examined = (Instant, Vec<CheckView>);

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) node: NodeHandle,
    pub(crate) images: Images,
    /// The last look of the node at itself, and when it was.
    examined: Arc<tokio::sync::Mutex<Option<Examined>>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "DAGGER node",
        description = "One node of a cloud of independent operators. Keys and digests are lower-case hex, \
                       times are milliseconds since the Unix epoch. Every error is {\"error\":{\"code\",\"text\"}} \
                       with a code that never changes its meaning.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "ledger", description = "Transactions, commits and what the ledger holds"),
        (name = "vm", description = "Virtual machines and ways into them"),
        (name = "node", description = "This node itself"),
    )
)]
struct Document;

/// The API of `node`, ready to be served.
pub fn router(node: NodeHandle, images: Images) -> Router {
    let (router, document) = routes().split_for_parts();
    // As bytes that all share: the document itself is more than a megabyte in memory, and a handler is cloned for each request.
    let document = Bytes::from(serde_json::to_vec(&document).expect("the document is plain JSON"));
    let as_json = [(header::CONTENT_TYPE, "application/json")];
    router
        .route("/metrics", get(reads::metrics))
        .route("/openapi.json", get(async move || (as_json, document)))
        .fallback(async || {
            ApiError::not_found(
                "E_UNKNOWN_PATH",
                "There is nothing here; see /openapi.json.",
            )
        })
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Api {
            node,
            images,
            examined: Arc::default(),
        })
}

/// The OpenAPI document of this version, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(reads::status))
        .routes(routes!(reads::checks))
        .routes(routes!(reads::genesis))
        .routes(routes!(reads::operators))
        .routes(routes!(reads::proposals))
        .routes(routes!(reads::parameters))
        .routes(routes!(reads::machines))
        .routes(routes!(reads::accounts))
        .routes(routes!(reads::images))
        .routes(routes!(reads::image))
        .routes(routes!(reads::vms))
        .routes(routes!(reads::vm))
        .routes(routes!(reads::explain))
        .routes(routes!(transactions::submit))
        .routes(routes!(transactions::transaction))
        .routes(routes!(proofs::receipt))
        .routes(routes!(proofs::record))
        .routes(routes!(tail::commits))
        .routes(routes!(tail::tail))
        .routes(routes!(blobs::blob))
        .routes(routes!(tunnel::tunnel))
        .routes(routes!(tunnel::console))
        .routes(routes!(tunnel::logs))
        .merge(blobs::upload_route())
}

/// The access token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| {
            ApiError::coded(
                "E_TOKEN_MISSING",
                "This needs an access token of the account: Authorization: Bearer TOKEN.",
            )
        })
}

#[cfg(test)]
mod api_tests;
