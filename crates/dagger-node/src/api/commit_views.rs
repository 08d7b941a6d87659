//! Commits as the API shows them: what became of each transaction, and what changed, in words.

use super::views::{image_name, machine_name, operator_name, reason_text, vm_name, word};
use crate::CommitRecord;
use dagger_client::api::{ChangeView, CommitView, OutcomeView};
use dagger_ledger as ledger;
use dagger_ledger::{Change, Ledger, Subject};

pub(super) fn commit(ledger: &Ledger, record: &CommitRecord) -> CommitView {
    CommitView {
        index: record.index,
        digest: record.digest.to_hex(),
        time_ms: record.time_ms,
        leader: record.leader.clone(),
        outcomes: record
            .outcomes
            .iter()
            .zip(&record.actions)
            .map(|(outcome, action)| outcome_view(ledger, outcome, *action))
            .collect(),
        changes: record
            .changes
            .iter()
            .map(|change| change_view(ledger, change))
            .collect(),
    }
}

fn outcome_view(ledger: &Ledger, outcome: &ledger::Outcome, action: Option<&str>) -> OutcomeView {
    OutcomeView {
        digest: outcome.digest.to_hex(),
        action: action.map(str::to_owned),
        code: outcome.code.as_str().to_owned(),
        subject: outcome.subject.map(|subject| subject_name(ledger, subject)),
        detail: outcome_text(outcome),
    }
}

/// The outcome in words: what the code means and what it was about.
fn outcome_text(outcome: &ledger::Outcome) -> String {
    match outcome.detail.as_str() {
        "" => outcome.code.text().to_owned(),
        detail => format!("{} ({detail})", outcome.code.text()),
    }
}

fn subject_name(ledger: &Ledger, subject: Subject) -> String {
    match subject {
        Subject::Operator(id) => format!("operator {}", operator_name(ledger, id)),
        Subject::Machine(id) => format!("machine {}", machine_name(ledger, id)),
        Subject::Account(id) => {
            format!(
                "account {}",
                ledger
                    .account(id)
                    .map_or_else(|| id.to_string(), |account| account.name.clone())
            )
        }
        Subject::Image(id) => format!("image {}", image_name(ledger, id)),
        Subject::Vm(id) => format!("vm {}", vm_name(ledger, id)),
        Subject::Proposal(id) => format!("proposal {id}"),
    }
}

fn change_view(ledger: &Ledger, change: &Change) -> ChangeView {
    let data = serde_json::to_value(change).expect("a change is plain JSON");
    // A change is `{"kind": {fields}}`: flatten it to the two.
    let (kind, data) = match data {
        serde_json::Value::Object(object) => object.into_iter().next().unwrap_or_default(),
        other => (word(&other), serde_json::Value::Null),
    };
    ChangeView {
        kind,
        text: change_text(ledger, change),
        data,
    }
}

fn change_text(ledger: &Ledger, change: &Change) -> String {
    let on = |on: bool, yes: &str, no: &str| if on { yes.to_owned() } else { no.to_owned() };
    match change {
        Change::AccountCreated { account } => format!(
            "{} opened",
            subject_name(ledger, Subject::Account(*account))
        ),
        Change::MachineAdded { machine } => {
            format!("machine {} added", machine_name(ledger, *machine))
        }
        Change::MachineState { machine, state } => {
            format!(
                "machine {} is {}",
                machine_name(ledger, *machine),
                word(state)
            )
        }
        Change::MachineDraining { machine, draining } => {
            format!(
                "machine {} {}",
                machine_name(ledger, *machine),
                on(*draining, "drains", "drains no longer")
            )
        }
        Change::MachineRemoved { machine } => {
            format!("machine {} removed", machine_name(ledger, *machine))
        }
        Change::ImagePublished { image } => {
            format!("image {} published", image_name(ledger, *image))
        }
        Change::ImageShared { image } => {
            format!("image {} is shared otherwise", image_name(ledger, *image))
        }
        Change::ImageRetired { image } => format!("image {} retired", image_name(ledger, *image)),
        Change::ImageReplica { image, operator } => format!(
            "image {} kept by {}",
            image_name(ledger, *image),
            subject_name(ledger, Subject::Operator(*operator))
        ),
        Change::MachineChanged { machine } => {
            format!("machine {} changed", machine_name(ledger, *machine))
        }
        Change::AccountChanged { account } => format!(
            "{} changed",
            subject_name(ledger, Subject::Account(*account))
        ),
        Change::OperatorChanged { operator } => format!(
            "{} changed",
            subject_name(ledger, Subject::Operator(*operator))
        ),
        Change::Proposal { proposal, status } => {
            format!("proposal {proposal} is {}", word(status))
        }
        Change::ParametersChanged => "parameters changed".to_owned(),
        Change::Equivocation {
            operator,
            epoch,
            round,
        } => format!(
            "operator {} signed two events of epoch {epoch}, round {round}, and loses its seat",
            operator_name(ledger, *operator)
        ),
        Change::EpochEnded {
            next,
            seats,
            fault_weight: 0,
        } => format!("epoch {next} begins with {seats} seats, none of which may fail"),
        Change::EpochEnded {
            next,
            seats,
            fault_weight,
        } => format!(
            "epoch {next} begins with {seats} seats, of which weight {fault_weight} may fail"
        ),
        Change::VmPlaced {
            vm,
            machine,
            lease_epoch,
            reason,
        } => format!(
            "vm {} placed on {}, lease epoch {lease_epoch}: {}",
            vm_name(ledger, *vm),
            machine_name(ledger, *machine),
            reason_text(*reason)
        ),
        Change::VmPhase {
            vm, phase, reason, ..
        } => {
            format!(
                "vm {} is {phase}: {}",
                vm_name(ledger, *vm),
                reason_text(*reason)
            )
        }
        Change::VmDispute { vm, status } => format!(
            "dispute about vm {} is {}",
            vm_name(ledger, *vm),
            word(status)
        ),
        Change::VmChanged { vm } => format!("vm {} changed", vm_name(ledger, *vm)),
        Change::VmDeleted { vm, .. } => format!("vm {vm} deleted"),
        Change::Brake { on: true, waiting } => {
            format!("mass-failover brake on, {waiting} VMs wait")
        }
        Change::Brake { on: false, .. } => "mass-failover brake off".to_owned(),
    }
}
