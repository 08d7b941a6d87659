//! `dagger account usage` and `dagger operator usage`: what VMs have held, in exact integers, with the proof of it.

use super::ledger::proofs;
use crate::args::UsageArgs;
use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::proof::{Proof, VerifyError};
use dagger_ledger::{
    AccountRecord, Code, OperatorRecord, ProofError, Resources, StateKey, StateProof, Usage,
};
use serde::Serialize;

const MS_PER_HOUR: u128 = 3_600_000;
const MIB_PER_GIB: u128 = 1_024;

/// What was held up to a checkpoint.
#[derive(Serialize)]
struct Report {
    /// The record that it stands in.
    record: String,
    /// Commit and ledger time of the checkpoint.
    checkpoint: u64,
    time_ms: u64,
    /// Whether the proof was verified against a genesis file.
    verified: bool,
    /// What VMs hold at that time.
    holds: Resources,
    /// All that they have held until then.
    held: Usage,
}

/// What the VMs of an account have held.
pub async fn of_account(context: &Context, name: Option<String>, args: &UsageArgs) -> Done {
    let name = match name {
        Some(name) => name,
        None => context.account(&context.connect().await?).await?.1.name,
    };
    let read = |proof: &StateProof| {
        let record: Option<AccountRecord> = proof.record()?;
        Ok(record.map(|record| (record.used, record.usage)))
    };
    let key = StateKey::Account(name);
    report(context, key, Code::UnknownAccount, args, read).await
}

/// What VMs have held on the machines of an operator.
pub async fn of_operator(context: &Context, name: String, args: &UsageArgs) -> Done {
    let read = |proof: &StateProof| {
        let record: Option<OperatorRecord> = proof.record()?;
        Ok(record.map(|record| (record.hosted, record.usage)))
    };
    let key = StateKey::Operator(name);
    report(context, key, Code::UnknownOperator, args, read).await
}

/// `read` takes what is held and what has been held out of a proven record.
async fn report(
    context: &Context,
    key: StateKey,
    unknown: Code,
    args: &UsageArgs,
    read: impl FnOnce(&StateProof) -> Result<Option<(Resources, Usage)>, ProofError>,
) -> Done {
    let verifier = args.genesis.as_deref().map(proofs::verifier).transpose()?;
    let proof = context.connect().await?.client.prove(&key).await?;
    let checkpoint = match &verifier {
        Some(verifier) => verifier.record(&proof).map_err(proofs::refused)?,
        None => proof.evidence.certificate.0.checkpoint,
    };
    if proof.proof.key != key {
        let text = format!("the node proved {} instead of {key}", proof.proof.key);
        return Err(Failure::new(Exit::Refused, "E_NOT_PROVEN", text));
    }
    let record =
        read(&proof.proof).map_err(|_| proofs::refused(VerifyError::Record("what holds VMs")))?;
    let Some((holds, mut held)) = record else {
        return Err(Failure::new(
            Exit::Refused,
            unknown.as_str(),
            unknown.text(),
        ));
    };
    // The record counts up to its own last change; it has held the same since.
    held.settle(&holds, checkpoint.time_ms);
    let report = Report {
        record: key.to_string(),
        checkpoint: checkpoint.commit.0,
        time_ms: checkpoint.time_ms,
        verified: verifier.is_some(),
        holds,
        held,
    };
    if let Some(file) = &args.file {
        proofs::save(&Proof::Record(proof), file)?;
    }
    if context.json() {
        return output::json(&report);
    }
    show(&report)?;
    match &args.file {
        Some(file) => proofs::say_saved(file),
        None => Ok(()),
    }
}

fn show(report: &Report) -> Done {
    let Report { holds, held, .. } = report;
    let gib_ms = MS_PER_HOUR * MIB_PER_GIB;
    output::fields(&[
        ("record", report.record.clone()),
        ("processors", hours(held.vcpu_ms, MS_PER_HOUR, "vCPU-hours")),
        ("memory", hours(held.memory_mib_ms, gib_ms, "GiB-hours")),
        ("disk", hours(held.disk_mib_ms, gib_ms, "GiB-hours")),
        (
            "holds now",
            format!(
                "{} vcpus, {} memory, {} disk",
                holds.vcpus,
                output::mib(holds.memory_mib),
                output::mib(holds.disk_mib)
            ),
        ),
        (
            "counted to",
            format!(
                "{}, commit {}",
                output::date(report.time_ms),
                report.checkpoint
            ),
        ),
        (
            "proof",
            if report.verified {
                "verified against the genesis file"
            } else {
                "not verified; name the network's genesis file with --genesis"
            }
            .to_owned(),
        ),
    ])
}

/// `amount` in units of `unit`, cut off after three decimals.
fn hours(amount: u128, unit: u128, name: &str) -> String {
    let thousandths = amount * 1_000 / unit;
    format!("{}.{:03} {name}", thousandths / 1_000, thousandths % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_cut_off_not_rounded() {
        assert_eq!(hours(0, MS_PER_HOUR, "h"), "0.000 h");
        assert_eq!(hours(MS_PER_HOUR * 5 / 2, MS_PER_HOUR, "h"), "2.500 h");
        assert_eq!(hours(MS_PER_HOUR - 1, MS_PER_HOUR, "h"), "0.999 h");
        let of_ages = u128::from(u32::MAX) * u128::from(u64::MAX);
        assert_eq!(
            hours(of_ages, MS_PER_HOUR, "h"),
            "22007822915504887087649.842 h"
        );
    }
}
