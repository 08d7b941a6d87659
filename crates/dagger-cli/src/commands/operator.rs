//! `dagger operator`. What operators decide together is in `proposals.rs`.

mod proposals;

use super::usage;
use crate::args::{OperatorCommand, OperatorKeysArgs, QuotaArgs};
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::output::{self, Listing};
use crate::setup::Card;
use dagger_client::keys::{self, KeyFileError, KeyKind, SecretKey};
use dagger_ledger::{
    AccountCreate, AccountName, AccountQuota, Action, Key, OperatorAllocation, OperatorKeys,
    OperatorLeave, OperatorName, ProposedChange, Quota,
};
use proposals::{parameters, proposals, propose, vote};
use std::path::Path;

pub async fn run(context: &Context, command: OperatorCommand) -> Done {
    match command {
        OperatorCommand::List => list(context).await,
        OperatorCommand::Usage { operator, proof } => {
            usage::of_operator(context, operator, &proof).await
        }
        OperatorCommand::Sponsor {
            account,
            public_key,
        } => sponsor(context, account, &public_key).await,
        OperatorCommand::ProposeAdd { card } => {
            let add = Card::load(&card)?.operator_add()?;
            propose(context, ProposedChange::OperatorAdd(add)).await
        }
        OperatorCommand::ProposeRemove {
            operator,
            even_without_tolerance,
        } => {
            let remove = OperatorName { operator };
            let change = match even_without_tolerance {
                true => ProposedChange::OperatorRemoveAnyway(remove),
                false => ProposedChange::OperatorRemove(remove),
            };
            propose(context, change).await
        }
        OperatorCommand::ProposeParameters { changes } => {
            let change = proposals::parameters_change(&changes)?;
            propose(context, ProposedChange::Parameters(Box::new(change))).await
        }
        OperatorCommand::ProposeAllocation { operator, most } => {
            let allocation = quota(&most);
            let change = OperatorAllocation {
                operator,
                allocation,
            };
            propose(context, ProposedChange::Allocation(change)).await
        }
        OperatorCommand::ProposeReseat { operator } => {
            let reseat = OperatorName { operator };
            propose(context, ProposedChange::OperatorReseat(reseat)).await
        }
        OperatorCommand::ProposeVersion {
            version,
            even_unknown,
        } => {
            let change = proposals::version_change(version, even_unknown)?;
            propose(context, ProposedChange::ProtocolVersion(change)).await
        }
        OperatorCommand::Parameters => parameters(context).await,
        OperatorCommand::Keys(args) => operator_keys(context, args).await,
        OperatorCommand::Quota { account, most } => {
            let said = match most.unlimited {
                true => format!("account {account} has no quota"),
                false => format!("account {account} has another quota"),
            };
            let quota = quota(&most);
            sign(
                context,
                Action::AccountQuota(AccountQuota { account, quota }),
                &said,
            )
            .await
        }
        OperatorCommand::Adopt { account } => {
            let said = format!("account {account} is sponsored by this operator");
            sign(
                context,
                Action::AccountAdopt(AccountName { account }),
                &said,
            )
            .await
        }
        OperatorCommand::Vote { proposal, against } => vote(context, proposal, !against).await,
        OperatorCommand::Proposals => proposals(context).await,
        OperatorCommand::Leave { operator } => leave(context, &operator).await,
    }
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
    let said = format!("account {account} is open");
    sign(
        context,
        Action::AccountCreate(AccountCreate { account, key }),
        &said,
    )
    .await
}

/// Signs with the operator's key, and says what came of it.
pub(super) async fn sign(context: &Context, action: Action, said: &str) -> Done {
    let operator = context.key(KeyKind::Operator)?;
    let connection = context.connect().await?;
    let status = context.execute(&connection, &operator, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(said),
    }
}

fn quota(most: &QuotaArgs) -> Option<Quota> {
    Some(Quota {
        vms: most.vms?,
        vcpus: most.vcpus?,
        memory_mib: most.memory?,
        disk_mib: most.disk?,
    })
}

async fn operator_keys(context: &Context, args: OperatorKeysArgs) -> Done {
    let mut new = OperatorKeys {
        address: args.address,
        ..OperatorKeys::default()
    };
    let mut said = Vec::new();
    if let Some(named) = args.node_key {
        new.node_key = Some(public_key(&named, KeyKind::Node)?);
        said.push("the new node key holds at once: start the node with it");
    }
    if let Some(named) = args.consensus_key {
        new.consensus_key = Some(public_key(&named, KeyKind::Consensus)?);
        said.push("the new consensus key signs from the next epoch on: until then the node needs the old one");
    }
    if let Some(named) = args.operator_key {
        new.operator_key = Some(public_key(&named, KeyKind::Operator)?);
        said.push(
            "the new operator key signs from now on, the old one means nothing any more: keep a copy of the new one",
        );
    }
    if new.address.is_some() {
        said.push("the node is dialled at its new address");
    }
    sign(context, Action::OperatorKeys(new), &said.join("\n")).await
}

/// The public half of what a user names: 64 hex characters, or a key file, which is made if it is not there.
pub(super) fn public_key(named: &str, kind: KeyKind) -> Done<Key> {
    if let Ok(key) = named.parse() {
        return Ok(key);
    }
    let path = Path::new(named);
    let key = match keys::read(path, kind) {
        Ok(key) => key,
        Err(KeyFileError::Missing(_)) => {
            let key = SecretKey::generate();
            keys::write(path, kind, &key)?;
            key
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Key(key.public()))
}
