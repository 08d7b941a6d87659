//! `dagger ledger receipt`, `prove` and `verify`: claims that hold without trust in the node that made them.

use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::proof::{Proof, Receipt, RecordProof, Verifier, VerifyError, record_json};
use dagger_ledger::StateKey;
use serde::Serialize;
use std::path::Path;

pub async fn receipt(context: &Context, transaction: &str, file: Option<&Path>) -> Done {
    let connection = context.connect().await?;
    let receipt = connection.client.receipt(transaction).await?;
    write(context, &Proof::Receipt(receipt), file)
}

pub async fn prove(context: &Context, record: &str, file: Option<&Path>) -> Done {
    let key: StateKey = record
        .parse()
        .map_err(|error: dagger_ledger::BadStateKey| Failure::usage(error.to_string()))?;
    let connection = context.connect().await?;
    let proof = connection.client.prove(&key).await?;
    write(context, &Proof::Record(proof), file)
}

fn write(context: &Context, proof: &Proof, file: Option<&Path>) -> Done {
    let Some(path) = file else {
        return output::json_line(proof);
    };
    save(proof, path)?;
    if context.json() {
        return Ok(());
    }
    say_saved(path)
}

/// Writes a proof for `dagger ledger verify`.
pub fn save(proof: &Proof, path: &Path) -> Done {
    let text = serde_json::to_string(proof).expect("a proof is JSON");
    std::fs::write(path, text + "\n").map_err(|e| Failure::file(path.display(), &e))
}

/// Says where a proof is, and how to check it.
pub fn say_saved(path: &Path) -> Done {
    output::line(&format!(
        "written to {}; check it with `dagger ledger verify {} --genesis GENESIS`",
        path.display(),
        path.display()
    ))
}

/// What a verified proof says.
#[derive(Serialize)]
struct Verified {
    chain_id: String,
    /// Commit of the checkpoint that covers it.
    checkpoint: u64,
    epoch: u64,
    time_ms: u64,
    #[serde(flatten)]
    claim: Claim,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Claim {
    Transaction {
        digest: String,
        commit: u64,
        position: u64,
        time_ms: u64,
        code: String,
        detail: String,
    },
    Record {
        key: String,
        present: bool,
        record: Option<serde_json::Value>,
    },
}

pub fn verify(context: &Context, proof: &Path, genesis: &Path) -> Done {
    let verifier = verifier(genesis)?;
    let parsed: Proof = serde_json::from_slice(&read(proof)?).map_err(|e| {
        Failure::new(
            Exit::Refused,
            "E_BAD_PROOF",
            format!("{} is no receipt or proof: {e}", proof.display()),
        )
    })?;
    let (checkpoint, claim) = match &parsed {
        Proof::Receipt(receipt) => {
            let checkpoint = verifier.receipt(receipt).map_err(refused)?;
            (checkpoint, transaction(receipt))
        }
        Proof::Record(record) => {
            let checkpoint = verifier.record(record).map_err(refused)?;
            (checkpoint, of_record(record)?)
        }
    };
    let verified = Verified {
        chain_id: verifier.chain_id().to_hex(),
        checkpoint: checkpoint.commit.0,
        epoch: checkpoint.epoch.0,
        time_ms: checkpoint.time_ms,
        claim,
    };
    if context.json() {
        return output::json_line(&verified);
    }
    show(&verified)
}

/// A verifier that trusts this genesis file and nothing else.
pub fn verifier(genesis: &Path) -> Done<Verifier> {
    Verifier::new(&read(genesis)?).map_err(refused)
}

fn read(path: &Path) -> Done<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failure::file(path.display(), &e))
}

pub fn refused(error: VerifyError) -> Failure {
    Failure::new(Exit::Refused, "E_NOT_PROVEN", error.to_string())
}

fn transaction(receipt: &Receipt) -> Claim {
    let (proof, outcome) = (&receipt.proof, &receipt.proof.outcome);
    Claim::Transaction {
        digest: outcome.digest.to_hex(),
        commit: proof.link.commit,
        position: proof.position,
        time_ms: proof.link.time_ms,
        code: outcome.code.as_str().to_owned(),
        detail: outcome.detail.clone(),
    }
}

fn of_record(record: &RecordProof) -> Done<Claim> {
    Ok(Claim::Record {
        key: record.proof.key.to_string(),
        present: record.proof.record.is_some(),
        record: record_json(&record.proof).map_err(refused)?,
    })
}

fn show(verified: &Verified) -> Done {
    match &verified.claim {
        Claim::Transaction {
            digest,
            commit,
            position,
            time_ms,
            code,
            detail,
        } => output::line(&format!(
            "proven: transaction {digest} was number {position} of commit {commit} at {}; outcome: {}",
            output::clock(*time_ms),
            if detail.is_empty() {
                code.clone()
            } else {
                format!("{code} ({detail})")
            }
        ))?,
        Claim::Record { key, present, .. } => output::line(&format!(
            "proven: {key} was {} at commit {}, {}",
            if *present { "there" } else { "not there" },
            verified.checkpoint,
            output::clock(verified.time_ms)
        ))?,
    }
    if let Claim::Record {
        record: Some(record),
        ..
    } = &verified.claim
    {
        let text = serde_json::to_string_pretty(record).expect("JSON");
        output::line(&text)?;
    }
    output::line(&format!(
        "certified by a quorum of epoch {} at commit {}; it does not show what happened since",
        verified.epoch, verified.checkpoint
    ))
}
