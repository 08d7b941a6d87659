//! Submission of transactions, and their way since.

use super::proofs::{damaged, not_kept};
use super::{Api, ApiError};
use crate::outcomes::{Answer, is_repetition};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use dagger_client::api::{ErrorBody, SubmitRequest, Submitted, TransactionStatus};
use dagger_ledger::{Digest, SignedTransaction};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// A request is held no longer than this; the client asks again.
const WAIT_MS_MAX: u64 = 30_000;

/// How often a waiting request looks. A look is one hash-map read.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Hands in a signed transaction. The same one again is harmless.
#[utoipa::path(
    post, path = "/v1/transactions", tag = "ledger", request_body = SubmitRequest,
    responses(
        (status = 202, body = Submitted),
        (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn submit(
    State(api): State<Api>,
    request: Result<Json<SubmitRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    let Json(request) =
        request.map_err(|error| ApiError::bad_request("E_BAD_REQUEST", error.body_text()))?;
    let mut signature = [0; 64];
    hex::decode_to_slice(&request.signature, &mut signature).map_err(|_| {
        ApiError::bad_request(
            "E_BAD_REQUEST",
            "`signature` must be 128 lower-case hex digits.",
        )
    })?;
    let transaction = SignedTransaction {
        signature,
        body: request.body.into_bytes().into(),
    };
    let accepted = api
        .node
        .submit(transaction)
        .await
        .map_err(|e| ApiError::coded(&e.code, e.text))?;
    let submitted = Submitted {
        digest: accepted.digest.to_hex(),
        node: api.node.name().to_owned(),
        at_ms: accepted.at_ms,
    };
    Ok((StatusCode::ACCEPTED, Json(submitted)))
}

/// A stage to wait for.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WaitFor {
    /// It is in an event.
    Event,
    /// It is in order.
    Commit,
    /// It is executed.
    Executed,
}

/// How long to wait for what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitParams {
    /// Answer only when it has reached this stage, or the time is up.
    #[param(inline)]
    wait: Option<WaitFor>,
    /// How long to wait at most; 10 s unless told otherwise, never more than 30 s.
    timeout_ms: Option<u64>,
}

/// What this node knows of a transaction; waits for a stage of it if asked to.
#[utoipa::path(
    get, path = "/v1/transactions/{digest}", tag = "ledger",
    params(("digest" = String, Path), WaitParams),
    responses((status = 200, body = TransactionStatus), (status = 404, body = ErrorBody))
)]
pub(super) async fn transaction(
    State(api): State<Api>,
    Path(digest): Path<String>,
    Query(params): Query<WaitParams>,
) -> Result<Json<TransactionStatus>, ApiError> {
    let digest: Digest = digest.parse().map_err(|_| {
        ApiError::bad_request(
            "E_BAD_DIGEST",
            "A transaction's digest is 64 lower-case hex digits.",
        )
    })?;
    let wait_ms = params.timeout_ms.unwrap_or(10_000).min(WAIT_MS_MAX);
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let mut is_first = true;
    loop {
        let is_last = params.wait.is_none() || Instant::now() >= deadline;
        let recent = api.node.transaction(&digest);
        // What is to come comes through memory: the disk is looked at once, and at the end, lest it has come and gone meanwhile.
        let look_back =
            is_last || (is_first && recent.is_none()) || recent.as_ref().is_some_and(is_repetition);
        is_first = false;
        let answer = if look_back {
            api.node.past_transaction(&digest).await
        } else {
            recent.map_or(Answer::Later, Answer::Known)
        };
        let status = match answer {
            Answer::NotKept { from_commit } if is_last => return Err(not_kept(from_commit)),
            Answer::Damaged if is_last => return Err(damaged()),
            answer => answer.known(),
        };
        let reached = match (&status, params.wait) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(status), Some(stage)) => reached(status, stage),
        };
        if reached || is_last {
            return status.map(Json).ok_or_else(|| {
                let text = "This node knows no such transaction; ask the node that took it, or hand it in again.";
                ApiError::not_found("E_UNKNOWN_TRANSACTION", text)
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn reached(status: &TransactionStatus, stage: WaitFor) -> bool {
    status.outcome.is_some()
        || match stage {
            WaitFor::Event => status.event.is_some(),
            WaitFor::Commit => status.commit.is_some(),
            WaitFor::Executed => false,
        }
}
