//! Receipts and proofs of records, for people who do not trust this node. `dagger ledger verify` checks them offline.

use super::{Api, ApiError};
use crate::outcomes::Answer;
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

/// The transaction may have been ordered before this node's outcomes begin.
pub(super) fn not_kept(from_commit: Option<u64>) -> ApiError {
    let text = match from_commit {
        Some(commit) => format!(
            "This node holds the outcomes of commits from {commit} on, and none of that transaction among them. If it is older, ask a node that keeps more (`outcomes` in [store] of its node.toml)."
        ),
        None => "This node holds the newest outcomes in memory only, and none of that transaction among them; ask another node.".to_owned(),
    };
    ApiError::not_found("E_OUTCOME_NOT_KEPT", text)
}

/// What would say what became of the transaction cannot be read.
pub(super) fn damaged() -> ApiError {
    ApiError::coded(
        "E_OUTCOME_DAMAGED",
        "This node's index of outcomes is damaged where that transaction may stand; ask another node. `dagger node status` says what its operator can do.",
    )
}

/// The receipt of a transaction: that it was ordered, what became of it, and the signatures that prove it.
#[utoipa::path(
    get, path = "/v1/transactions/{digest}/receipt", tag = "ledger",
    params(("digest" = String, Path)),
    responses((status = 200, body = Receipt), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody), (status = 504, body = ErrorBody))
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
        match api.node.past_receipt(&digest).await {
            Answer::Known(receipt) => return Ok(Json(receipt)),
            Answer::Unknown => {
                return Err(ApiError::not_found(
                    "E_UNKNOWN_TRANSACTION",
                    "This node holds every outcome since its network began, and none of that transaction: it was never ordered, or not yet.",
                ));
            }
            Answer::NotKept { from_commit } => return Err(not_kept(from_commit)),
            Answer::Damaged => return Err(damaged()),
            Answer::Later if Instant::now() >= deadline => return Err(not_certified()),
            Answer::Later => tokio::time::sleep(LOOK_EVERY).await,
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
