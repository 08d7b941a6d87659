//! What operators decide together, as the API shows it.

use dagger_client::api::ProposalView;
use dagger_ledger::{Ledger, OperatorId, ProposedChange};

/// All proposals that the ledger keeps, the newest first.
pub(super) fn proposals(ledger: &Ledger) -> Vec<ProposalView> {
    let seats = ledger.committee();
    let weight: u64 = seats.iter().map(|seat| seat.weight).sum();
    let quorum_weight = weight - weight.saturating_sub(1) / 3;
    let weigh = |who: &[OperatorId]| {
        let votes = seats.iter().filter(|seat| who.contains(&seat.operator));
        votes.map(|seat| seat.weight).sum()
    };
    let names = |who: &[OperatorId]| who.iter().map(|id| name(ledger, *id)).collect();
    let view = |proposal: &dagger_ledger::ProposalRecord| ProposalView {
        id: proposal.id,
        proposer: name(ledger, proposal.proposer),
        text: text(&proposal.change),
        change: serde_json::to_value(&proposal.change).expect("a change is plain JSON"),
        status: super::views::word(&proposal.status),
        approvals: names(&proposal.approvals),
        rejections: names(&proposal.rejections),
        approved_weight: weigh(&proposal.approvals),
        quorum_weight,
        closes_ms: proposal.closes_ms,
    };
    let mut views: Vec<ProposalView> = ledger.proposals().map(view).collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.id));
    views
}

fn name(ledger: &Ledger, id: OperatorId) -> String {
    let operator = ledger.operator(id);
    operator.map_or_else(|| format!("operator {}", id.0), |o| o.name.clone())
}

fn text(change: &ProposedChange) -> String {
    match change {
        ProposedChange::OperatorAdd(add) => {
            let at = add.address.as_deref().unwrap_or("no known address");
            format!("admit {} with weight {}, {at}", add.name, add.weight)
        }
        ProposedChange::OperatorRemove(of) => format!("remove {}", of.operator),
        ProposedChange::OperatorRemoveAnyway(of) => format!(
            "remove {}, even if the network then bears no faulty member any more",
            of.operator
        ),
        ProposedChange::OperatorReseat(of) => format!("give {} its seat back", of.operator),
        ProposedChange::Allocation(of) => format!("another allocation for {}", of.operator),
        ProposedChange::Parameters(change) => {
            let named = serde_json::to_value(change).expect("a change is plain JSON");
            let named = named.as_object().into_iter().flatten();
            let named: Vec<String> = named.map(|(name, to)| format!("{name} = {to}")).collect();
            format!("parameters {}", named.join(", "))
        }
        ProposedChange::ProtocolVersion(to) => format!("rules of version {}", to.version),
    }
}
