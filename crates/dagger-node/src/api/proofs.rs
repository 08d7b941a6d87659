//! Receipts and proofs of records, for people who do not trust this node. `dagger ledger verify` checks them offline.

use super::{Api, ApiError};
use axum::Json;
use axum::extract::{Path, Query, State};
use dagger_client::api::ErrorBody;
use dagger_client::proof::{Receipt, RecordProof};
use dagger_ledger::{Digest, StateKey};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::IntoParams;

/// How long a request waits for a checkpoint's certificate.
const WAIT: Duration = Duration::from_secs(10);

/// How often a waiting request looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn not_certified() -> ApiError {
    ApiError::coded(
        "E_TIMED_OUT",
        "No checkpoint that covers it was certified in time; ask again shortly. If that goes on, too few members are up.",
    )
}

/// The receipt of a transaction: that it was ordered, what became of it, and the signatures that prove it.
#[utoipa::path(
    get, path = "/v1/transactions/{digest}/receipt", tag = "ledger",
    params(("digest" = String, Path)),
    responses((status = 200, body = Receipt), (status = 404, body = ErrorBody), (status = 504, body = ErrorBody))
)]
pub(super) async fn receipt(
    State(api): State<Api>,
    Path(digest): Path<String>,
) -> Result<Json<Receipt>, ApiError> {
    let digest: Digest = digest.parse().map_err(|_| {
        ApiError::bad_request(
            "E_BAD_DIGEST",
            "A transaction's digest is 64 lower-case hex digits.",
        )
    })?;
    let deadline = Instant::now() + WAIT;
    loop {
        match api.node.receipt(&digest) {
            Some(receipt) => return Ok(Json(receipt)),
            None if !api.node.may_have_receipt(&digest) => {
                return Err(ApiError::not_found(
                    "E_UNKNOWN_TRANSACTION",
                    "This node holds no outcome of that transaction, which it would for the newest 65,536; ask another node.",
                ));
            }
            None if Instant::now() >= deadline => return Err(not_certified()),
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Which record.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordParams {
    /// `operator/NAME`, `machine/NAME`, `account/NAME`, `image/ACCOUNT/NAME`, `vm/ACCOUNT/NAME`, `proposal/NUMBER` or `epoch`.
    key: String,
}

/// The proof of what the ledger holds under a name, or that it holds nothing, as of the last checkpoint.
#[utoipa::path(
    get, path = "/v1/proof", tag = "ledger", params(RecordParams),
    responses((status = 200, body = RecordProof), (status = 400, body = ErrorBody), (status = 504, body = ErrorBody))
)]
pub(super) async fn record(
    State(api): State<Api>,
    Query(params): Query<RecordParams>,
) -> Result<Json<RecordProof>, ApiError> {
    let key: StateKey = params
        .key
        .parse()
        .map_err(|error| ApiError::bad_request("E_BAD_KEY", format!("{error}.")))?;
    let deadline = Instant::now() + WAIT;
    // Made once, waited for until its checkpoint is certified: under load, the next one is already being signed by then.
    let mut made = None;
    loop {
        if made.is_none() {
            made = api.node.prove(&key);
        }
        if let Some((commit, proof)) = &made
            && let Some(proof) = api.node.with_evidence(*commit, proof.clone())
        {
            return Ok(Json(proof));
        }
        if Instant::now() >= deadline {
            return Err(not_certified());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
