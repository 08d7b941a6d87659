//! `dagger operator propose-…`, `vote`, `proposals`, `parameters`: what operators decide together.

use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::output::{self, Listing};
use dagger_client::api::ProposalView;
use dagger_client::keys::KeyKind;
use dagger_ledger::{
    Action, NEWEST_PROTOCOL_VERSION, ParametersChange, Propose, ProposedChange, ProtocolVersion,
    Vote,
};

pub(super) async fn propose(context: &Context, change: ProposedChange) -> Done {
    let operator = context.key(KeyKind::Operator)?;
    let connection = context.connect().await?;
    let action = Action::Propose(Propose { change });
    let status = context.execute(&connection, &operator, action).await?;
    if context.json() {
        return output::json(&status);
    }
    let newest = connection.client.proposals().await?.into_iter().next();
    match newest {
        Some(proposal) => describe(&proposal),
        None => Ok(()),
    }
}

pub(super) async fn vote(context: &Context, proposal: u64, approve: bool) -> Done {
    let operator = context.key(KeyKind::Operator)?;
    let connection = context.connect().await?;
    let action = Action::Vote(Vote { proposal, approve });
    let status = context.execute(&connection, &operator, action).await?;
    if context.json() {
        return output::json(&status);
    }
    let proposals = connection.client.proposals().await?;
    match proposals.iter().find(|p| p.id == proposal) {
        Some(proposal) => describe(proposal),
        None => Ok(()),
    }
}

fn describe(proposal: &ProposalView) -> Done {
    output::line(&format!(
        "proposal {}: {}: {} (weight {} of {} needed)",
        proposal.id,
        proposal.text,
        proposal.status,
        proposal.approved_weight,
        proposal.quorum_weight
    ))
}

pub(super) async fn proposals(context: &Context) -> Done {
    let proposals = context.connect().await?.client.proposals().await?;
    if context.json() {
        return output::json(&proposals);
    }
    let columns = [
        ">NUMBER", "STATUS", "PROPOSAL", "BY", "FOR", "AGAINST", ">WEIGHT",
    ];
    let mut listing = Listing::new(&columns, "no proposals");
    for proposal in proposals {
        listing.row([
            proposal.id.to_string(),
            proposal.status,
            proposal.text,
            proposal.proposer,
            proposal.approvals.join(", "),
            proposal.rejections.join(", "),
            format!("{}/{}", proposal.approved_weight, proposal.quorum_weight),
        ]);
    }
    listing.print()
}

pub(super) async fn parameters(context: &Context) -> Done {
    let parameters = context.connect().await?.client.parameters().await?;
    if context.json() {
        return output::json(&parameters);
    }
    let mut listing = Listing::new(&["PARAMETER", ">VALUE"], "no parameters");
    let named = serde_json::to_value(&parameters).expect("parameters are plain JSON");
    for (name, value) in named.as_object().into_iter().flatten() {
        listing.row([name.clone(), value.to_string()]);
    }
    listing.print()
}

/// A version that this program does not know, others hardly do: once such a vote has passed, nodes without a newer
/// program stop at the end of the epoch, and the network with them.
pub(super) fn version_change(version: u32, even_unknown: bool) -> Done<ProtocolVersion> {
    if version > NEWEST_PROTOCOL_VERSION && !even_unknown {
        return Err(Failure::usage(format!(
            "this program knows versions of the rules up to {NEWEST_PROTOCOL_VERSION}, not {version}"
        ))
        .hint("install a program that knows it on all nodes first; `--even-unknown` proposes it all the same"));
    }
    Ok(ProtocolVersion { version })
}

/// `NAME=VALUE` pairs as a change of parameters.
pub(super) fn parameters_change(pairs: &[(String, String)]) -> Done<ParametersChange> {
    let mut named = serde_json::Map::new();
    for (name, value) in pairs {
        let number: u64 = value.parse().map_err(|_| {
            Failure::usage(format!("`{name}={value}`: a parameter is a whole number"))
        })?;
        if named.insert(name.clone(), number.into()).is_some() {
            return Err(Failure::usage(format!("`{name}` is named twice")));
        }
    }
    serde_json::from_value(named.into()).map_err(|error| {
        Failure::usage(error.to_string()).hint("`dagger operator parameters` lists them")
    })
}
