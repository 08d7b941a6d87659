//! Access tokens: for what exposes a customer's VM (tunnel, console, logs), and for uploads to a node's store.
//!
//! A token is a biscuit whose root key is the account's own key, so a node needs no secret to check it
//! and its holder can narrow it offline before handing it on. It names the chain, and a VM by number,
//! never by name: a later VM of the same name is another VM. Checking needs no network.
//!
//! One key signs transactions and tokens. The two cannot be confused: a signed transaction starts with
//! the text `dagger transaction v1`, and no biscuit block does, for its first byte would be a protobuf
//! tag of a wire type that does not begin a message.

use crate::keys::SecretKey;
use biscuit_auth::builder::{Algorithm, AuthorizerBuilder, BlockBuilder, Term};
use biscuit_auth::macros::{authorizer, biscuit, block};
use biscuit_auth::{AuthorizerLimits, Biscuit, KeyPair, PrivateKey, PublicKey, UnverifiedBiscuit};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// A longer token is refused unread.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Blocks a token may have; every narrowing adds one.
pub const TOKEN_BLOCKS_MAX: usize = 16;

/// What a token lets its bearer do with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Open connections to ports of the guest.
    Tunnel,
    /// Read and write its serial console.
    Console,
    /// Read the log of its console.
    Logs,
}

impl Right {
    fn as_str(self) -> &'static str {
        match self {
            Right::Tunnel => "tunnel",
            Right::Console => "console",
            Right::Logs => "logs",
        }
    }
}

/// Which VM of which network a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmScope {
    /// Chain id of the network.
    pub chain: [u8; 32],
    /// The VM's number on that ledger.
    pub vm: u64,
}

/// Limits that a holder adds to a token before handing it on. Absent means "as before".
#[derive(Clone, Debug, Default)]
pub struct Restriction {
    /// Only these rights.
    pub rights: Option<Vec<Right>>,
    /// Only these ports of the guest.
    pub ports: Option<Vec<u16>>,
    /// Not after this time.
    pub expires_at_ms: Option<u64>,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all, or beyond the bounds above.
    #[error("this is not an access token ({0})")]
    Malformed(String),
    /// Not signed by the account it is used for.
    #[error("the token is not signed by the key that this account has on the ledger")]
    Signature,
    /// Signed, but not for this: another VM, network, use or port, or expired.
    #[error("the token does not allow this ({0}); ask the account's owner for another")]
    Denied(String),
    /// The token could not be made.
    #[error("the token cannot be made ({0})")]
    Unmakeable(String),
}

impl TokenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            TokenError::Malformed(_) => "E_TOKEN_MALFORMED",
            TokenError::Signature => "E_TOKEN_SIGNATURE",
            TokenError::Denied(_) => "E_TOKEN_DENIED",
            TokenError::Unmakeable(_) => "E_TOKEN_UNMAKEABLE",
        }
    }
}

/// Makes a token for `scope`, signed by the key of the account that owns the VM.
///
/// # Errors
/// [`TokenError::Unmakeable`] when the VM's number does not fit.
pub fn issue(
    account_key: &SecretKey,
    scope: VmScope,
    rights: &[Right],
    expires_at_ms: u64,
) -> Result<String, TokenError> {
    let (chain, vm) = (hex::encode(scope.chain), vm_number(scope.vm)?);
    let mut granted = BlockBuilder::new();
    for right in rights {
        let (chain, right) = (chain.as_str(), right.as_str());
        granted = granted.merge(block!("right({chain}, {vm}, {right});"));
    }
    seal(account_key, granted, expires_at_ms)
}

/// Makes a token that lets its bearer upload files to nodes of the network `chain` in the name of the account.
///
/// # Errors
/// [`TokenError::Unmakeable`], which no key and no time is known to cause.
pub fn issue_upload(
    account_key: &SecretKey,
    chain: [u8; 32],
    expires_at_ms: u64,
) -> Result<String, TokenError> {
    let chain = hex::encode(chain);
    let chain = chain.as_str();
    seal(account_key, block!("upload({chain});"), expires_at_ms)
}

/// Signs a token that grants what `granted` says, until a time.
fn seal(
    account_key: &SecretKey,
    granted: BlockBuilder,
    expires_at_ms: u64,
) -> Result<String, TokenError> {
    let private =
        PrivateKey::from_bytes(account_key.expose(), Algorithm::Ed25519).map_err(unmakeable)?;
    let expires = instant(expires_at_ms);
    biscuit!("check if time($now), $now < {expires};")
        .merge(granted)
        .build(&KeyPair::from(&private))
        .and_then(|token| token.to_base64())
        .map_err(unmakeable)
}

/// Narrows a token. Needs no key; what was refused before stays refused.
///
/// # Errors
/// [`TokenError::Malformed`] when `token` is none.
pub fn attenuate(token: &str, restriction: &Restriction) -> Result<String, TokenError> {
    check_length(token)?;
    let parsed = UnverifiedBiscuit::from_base64(token).map_err(malformed)?;
    let mut narrower = BlockBuilder::new();
    if let Some(rights) = &restriction.rights {
        let rights: BTreeSet<Term> = rights.iter().map(|right| right.as_str().into()).collect();
        narrower = narrower.merge(block!("check if operation($op), {rights}.contains($op);"));
    }
    if let Some(ports) = &restriction.ports {
        let ports: BTreeSet<Term> = ports.iter().map(|port| i64::from(*port).into()).collect();
        narrower = narrower.merge(block!("check if port($port), {ports}.contains($port);"));
    }
    if let Some(expires_at_ms) = restriction.expires_at_ms {
        let expires = instant(expires_at_ms);
        narrower = narrower.merge(block!("check if time($now), $now < {expires};"));
    }
    let narrowed = parsed.append(narrower).map_err(unmakeable)?;
    narrowed.to_base64().map_err(unmakeable)
}

/// Checks that `token` lets its bearer use `right` (on `port` of the guest, for a tunnel) of the VM, now.
///
/// `account_public_key` is the owner's key as the ledger holds it.
///
/// # Errors
/// See [`TokenError`]; never panics on hostile input.
pub fn verify(
    account_public_key: &[u8; 32],
    token: &str,
    scope: VmScope,
    right: Right,
    port: Option<u16>,
    now_ms: u64,
) -> Result<(), TokenError> {
    let verified = signed_by(account_public_key, token)?;
    let (chain, vm) = (hex::encode(scope.chain), vm_number(scope.vm)?);
    let (chain, op) = (chain.as_str(), right.as_str());
    let now = instant(now_ms);
    let mut rules = authorizer!(
        "time({now}); network({chain}); vm({vm}); operation({op});
         allow if right({chain}, {vm}, {op});"
    );
    if let Some(port) = port {
        let port = i64::from(port);
        rules = rules.merge(authorizer!("port({port});"));
    }
    authorise(&verified, rules)
}

/// Checks that `token` lets its bearer upload to nodes of the network `chain`, now, in the name of the account that
/// has this key on the ledger.
///
/// # Errors
/// See [`TokenError`]; never panics on hostile input.
pub fn verify_upload(
    account_public_key: &[u8; 32],
    token: &str,
    chain: [u8; 32],
    now_ms: u64,
) -> Result<(), TokenError> {
    let verified = signed_by(account_public_key, token)?;
    let (chain, now) = (hex::encode(chain), instant(now_ms));
    let chain = chain.as_str();
    let rules = authorizer!(
        "time({now}); network({chain}); operation(\"upload\");
         allow if upload({chain});"
    );
    authorise(&verified, rules)
}

/// The token, if the key signed it and it is within bounds.
fn signed_by(account_public_key: &[u8; 32], token: &str) -> Result<Biscuit, TokenError> {
    check_length(token)?;
    let root = PublicKey::from_bytes(account_public_key, Algorithm::Ed25519)
        .map_err(|_| TokenError::Signature)?;
    let unverified = UnverifiedBiscuit::from_base64(token).map_err(malformed)?;
    if unverified.block_count() > TOKEN_BLOCKS_MAX {
        return Err(TokenError::Malformed(format!(
            "more than {TOKEN_BLOCKS_MAX} blocks"
        )));
    }
    unverified.verify(root).map_err(|_| TokenError::Signature)
}

/// Asks the token whether it allows what `rules` describe.
fn authorise(verified: &Biscuit, rules: AuthorizerBuilder) -> Result<(), TokenError> {
    // The work is bounded by facts and iterations; the time limit only has to be out of a busy host's way.
    let limits = AuthorizerLimits {
        max_facts: 1000,
        max_iterations: 100,
        max_time: Duration::from_secs(5),
    };
    let mut decision = rules
        .set_limits(limits)
        .build(verified)
        .map_err(malformed)?;
    decision
        .authorize()
        .map(drop)
        .map_err(|error| TokenError::Denied(denial(&error)))
}

fn denial(error: &biscuit_auth::error::Token) -> String {
    use biscuit_auth::error::{FailedCheck, Logic, Token};
    let Token::FailedLogic(logic) = error else {
        return error.to_string();
    };
    let (Logic::Unauthorized { checks, .. } | Logic::NoMatchingPolicy { checks }) = logic else {
        return error.to_string();
    };
    let rules: Vec<&str> = checks
        .iter()
        .map(|check| match check {
            FailedCheck::Block(block) => block.rule.as_str(),
            FailedCheck::Authorizer(check) => check.rule.as_str(),
        })
        .collect();
    if rules.is_empty() {
        return "it is for another VM, network or use".to_owned();
    }
    if rules.iter().all(|rule| rule.contains("time(")) {
        return "it has expired".to_owned();
    }
    format!("failed: {}", rules.join("; "))
}

fn check_length(token: &str) -> Result<(), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed(format!(
            "longer than {TOKEN_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn vm_number(vm: u64) -> Result<i64, TokenError> {
    i64::try_from(vm)
        .map_err(|_| TokenError::Unmakeable("the VM's number is out of range".to_owned()))
}

fn instant(at_ms: u64) -> SystemTime {
    // Tokens count whole seconds; rounding down never makes one live longer than asked.
    SystemTime::UNIX_EPOCH + Duration::from_secs(at_ms / 1000)
}

fn malformed(error: impl std::fmt::Display) -> TokenError {
    TokenError::Malformed(error.to_string())
}

fn unmakeable(error: impl std::fmt::Display) -> TokenError {
    TokenError::Unmakeable(error.to_string())
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
