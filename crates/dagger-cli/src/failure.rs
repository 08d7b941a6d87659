//! How a command fails: what happened, a stable code, what to do next, and the exit status.

use dagger_client::http::{ClientError, Fault};
use dagger_client::keys::KeyFileError;
use dagger_client::token::TokenError;
use std::fmt;
use std::process::ExitCode;

/// Exit status of a command that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It failed.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// The ledger refused.
    Refused = 3,
    /// No node could be reached.
    Unreachable = 4,
    /// It was not done in time.
    TimedOut = 5,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub code: String,
    pub text: String,
    pub hint: Option<String>,
}

/// What commands return.
pub type Done<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(exit: Exit, code: &str, text: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            text: text.into(),
            hint: None,
        }
    }

    /// Wrong usage that the argument parser cannot see.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "E_USAGE", text)
    }

    /// A file that cannot be used.
    pub fn file(what: impl fmt::Display, error: &dyn fmt::Display) -> Self {
        Self::new(Exit::Failure, "E_FILE", format!("{what}: {error}"))
    }

    /// Adds what to do next, unless something was said already.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// The failure as programs read it.
    pub fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({"code": self.code, "text": self.text});
        if let Some(hint) = &self.hint {
            error["hint"] = hint.as_str().into();
        }
        serde_json::json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {} [{}]", self.text, self.code)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  next: {hint}")?;
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error.fault {
            Fault::Usage => Exit::Usage,
            Fault::Refused => Exit::Refused,
            Fault::Unreachable => Exit::Unreachable,
            Fault::TimedOut => Exit::TimedOut,
            Fault::Node => Exit::Failure,
        };
        let failure = Self::new(exit, &error.code, error.text);
        match error.fault {
            Fault::Unreachable => failure.hint(
                "check the address in --api, DAGGER_API or client.toml; `dagger dev up` starts a network on this machine",
            ),
            _ => failure,
        }
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let failure = Self::new(Exit::Failure, error.code(), error.to_string());
        match error {
            KeyFileError::Missing(_) => {
                failure.hint("make one with `dagger account new NAME`, or name another with --key")
            }
            KeyFileError::Kind { .. } => failure.hint("name the right one with --key FILE"),
            _ => failure,
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::new(Exit::Failure, error.code(), error.to_string())
    }
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
