//! Errors of the API: a code and a text, and the HTTP status that fits the code.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dagger_client::api::ErrorBody;
use dagger_ledger::Code;

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    /// An error whose status follows from its code.
    pub(crate) fn coded(code: &str, text: impl Into<String>) -> Self {
        Self {
            status: status_of(code),
            body: ErrorBody::new(code, text),
        }
    }

    /// The ledger's word.
    pub(crate) fn ledger(code: Code) -> Self {
        Self::coded(code.as_str(), code.text())
    }

    pub(crate) fn not_found(code: &str, text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            body: ErrorBody::new(code, text),
        }
    }

    pub(crate) fn bad_request(code: &str, text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            body: ErrorBody::new(code, text),
        }
    }

    pub(crate) fn wrong_method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            body: ErrorBody::new(
                "E_WRONG_METHOD",
                "This path does not take that method; see /openapi.json.",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The HTTP status for a stable code. Programs read the code; the status is for what lies between.
fn status_of(code: &str) -> StatusCode {
    match code {
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "bad_signature" | "unauthorised" | "unknown_signer" | "E_TOKEN_SIGNATURE"
        | "E_TOKEN_DENIED" => StatusCode::FORBIDDEN,
        "refused" => StatusCode::FORBIDDEN,
        "vm_not_running" => StatusCode::CONFLICT,
        "machine_unreachable" | "guest_unreachable" => StatusCode::BAD_GATEWAY,
        "E_TOKEN_MALFORMED" | "E_TOKEN_MISSING" => StatusCode::UNAUTHORIZED,
        "name_taken"
        | "key_in_use"
        | "repeated"
        | "wrong_phase"
        | "machine_not_empty"
        | "not_empty"
        | "image_digest_mismatch"
        | "no_machine_fits"
        | "quota_exceeded"
        | "too_few_seats"
        | "too_many_leave"
        | "already_done"
        | "too_soon" => StatusCode::CONFLICT,
        "E_POOL_FULL" | "E_STOPPING" | "E_NO_MEMBER" => StatusCode::SERVICE_UNAVAILABLE,
        "E_TIMEOUT" | "E_TIMED_OUT" => StatusCode::GATEWAY_TIMEOUT,
        "image_store_full" | "disk_full" | "E_DISK_FULL" => StatusCode::INSUFFICIENT_STORAGE,
        "image_store_failed" | "E_IO" | "E_INTERNAL" | "E_OUTCOME_DAMAGED" => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        "E_GONE" => StatusCode::GONE,
        _ if code.starts_with("unknown_") || code.starts_with("E_UNKNOWN_") => {
            StatusCode::NOT_FOUND
        }
        _ => StatusCode::BAD_REQUEST,
    }
}
