//! `dagger operator`.

use crate::args::OperatorCommand;
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::output::{self, Listing};
use crate::setup::Card;
use dagger_client::api::ProposalView;
use dagger_client::keys::KeyKind;
use dagger_ledger::{
    AccountCreate, Action, OperatorLeave, OperatorName, Propose, ProposedChange, Vote,
};

pub async fn run(context: &Context, command: OperatorCommand) -> Done {
    match command {
        OperatorCommand::List => list(context).await,
        OperatorCommand::Sponsor {
            account,
            public_key,
        } => sponsor(context, account, &public_key).await,
        OperatorCommand::ProposeAdd { card } => {
            let add = Card::load(&card)?.operator_add()?;
            propose(context, ProposedChange::OperatorAdd(add)).await
        }
        OperatorCommand::ProposeRemove { operator } => {
            let remove = OperatorName { operator };
            propose(context, ProposedChange::OperatorRemove(remove)).await
        }
        OperatorCommand::Vote { proposal, against } => vote(context, proposal, !against).await,
        OperatorCommand::Proposals => proposals(context).await,
        OperatorCommand::Leave { operator } => leave(context, &operator).await,
    }
}

async fn propose(context: &Context, change: ProposedChange) -> Done {
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

async fn vote(context: &Context, proposal: u64, approve: bool) -> Done {
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

async fn proposals(context: &Context) -> Done {
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

async fn leave(context: &Context, name: &str) -> Done {
    let operator = context.key(KeyKind::Operator)?;
    let connection = context.connect().await?;
    let public = hex::encode(operator.public());
    let known = connection.client.operators().await?;
    if !known
        .iter()
        .any(|o| o.name == name && o.operator_key == public)
    {
        return Err(Failure::usage(format!(
            "this is not the key of operator {name}; name the operator whose key signs"
        )));
    }
    let action = Action::OperatorLeave(OperatorLeave {});
    let status = context.execute(&connection, &operator, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&format!(
            "{name} gives up its seat with the next epoch; leave its node running until `dagger node status` shows no seat"
        )),
    }
}

async fn list(context: &Context) -> Done {
    let operators = context.connect().await?.client.operators().await?;
    if context.json() {
        return output::json(&operators);
    }
    let columns = [
        "NAME",
        ">SEAT",
        ">WEIGHT",
        ">MACHINES",
        ">VMS",
        ">ACCOUNTS",
        "KEY",
    ];
    let mut listing = Listing::new(&columns, "no operators");
    for operator in operators {
        listing.row([
            operator.name,
            operator
                .seat
                .map_or_else(|| "-".to_owned(), |seat| seat.to_string()),
            operator.weight.to_string(),
            operator.machines.to_string(),
            operator.vms.to_string(),
            operator.accounts.to_string(),
            output::short(&operator.operator_key),
        ]);
    }
    listing.print()
}

async fn sponsor(context: &Context, account: String, public_key: &str) -> Done {
    let key = public_key.parse().map_err(|_| {
        Failure::usage(format!(
            "`{public_key}` is not a public key of 64 lower-case hex digits"
        ))
    })?;
    let operator = context.key(KeyKind::Operator)?;
    let connection = context.connect().await?;
    let action = Action::AccountCreate(AccountCreate {
        account: account.clone(),
        key,
    });
    let status = context.execute(&connection, &operator, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&format!("account {account} is open")),
    }
}
