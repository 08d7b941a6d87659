//! What can go wrong between a client and a node.

use crate::api::ErrorBody;
use std::fmt;

/// Whose fault a failure is; decides what a caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller asked for something that makes no sense.
    Usage,
    /// The node or the ledger understood and refused.
    Refused,
    /// No answer: try another node.
    Unreachable,
    /// Not in time.
    TimedOut,
    /// The node failed, or answered what cannot be understood.
    Node,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// URL of the node asked.
    pub api: String,
    /// Whose fault.
    pub fault: Fault,
    /// Stable code.
    pub code: String,
    /// What happened and what to do.
    pub text: String,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// A failure of these parts.
    pub fn new(api: &str, fault: Fault, code: &str, text: impl Into<String>) -> Self {
        Self {
            api: api.to_owned(),
            fault,
            code: code.to_owned(),
            text: text.into(),
        }
    }

    pub(super) fn transport(api: &str, error: &reqwest::Error) -> Self {
        // The innermost cause is the one that helps ("Connection refused").
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        if error.is_timeout() {
            return Self::new(
                api,
                Fault::Unreachable,
                "E_UNREACHABLE",
                format!("{api} does not answer"),
            );
        }
        Self::new(
            api,
            Fault::Unreachable,
            "E_UNREACHABLE",
            format!("{api} cannot be reached: {cause}"),
        )
    }

    pub(super) fn answered(api: &str, status: reqwest::StatusCode, body: &[u8]) -> Self {
        let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
            let text = format!("{api} answered {status} without a reason; is that a node's API?");
            return Self::new(api, Fault::Node, "E_NOT_A_NODE", text);
        };
        let fault = match status.as_u16() {
            504 | 408 => Fault::TimedOut,
            400..=499 => Fault::Refused,
            _ => Fault::Node,
        };
        Self {
            api: api.to_owned(),
            fault,
            code: error.code,
            text: error.text,
        }
    }

    pub(super) fn unintelligible(api: &str, error: &serde_json::Error) -> Self {
        let text = format!(
            "{api} answered something else than was expected ({error}); is that a node's API, and of this version?"
        );
        Self::new(api, Fault::Node, "E_NOT_A_NODE", text)
    }
}
