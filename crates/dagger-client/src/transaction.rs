//! Builds and signs transactions. What an action means is the ledger's business.

use crate::keys::{SecretKey, fill_random};
use dagger_ledger::{Action, Digest, Key, SignedTransaction, Transaction};

/// How long a transaction is good for unless told otherwise: enough for slow networks, short enough
/// that one which was lost is soon known to be void.
pub const VALID_FOR_MS: u64 = 120_000;

/// Signs `action` for the network `chain`. Void at ledger times after `valid_until_ms`.
///
/// Every call makes another transaction, for it draws a new salt; to retry, send the same one again.
pub fn sign(
    key: &SecretKey,
    chain: Digest,
    action: Action,
    valid_until_ms: u64,
) -> SignedTransaction {
    let mut salt = [0; 16];
    fill_random(&mut salt);
    let transaction = Transaction {
        chain,
        signer: Key(key.public()),
        salt: hex::encode(salt),
        valid_until_ms,
        action,
    };
    transaction.sign(key.signing())
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
