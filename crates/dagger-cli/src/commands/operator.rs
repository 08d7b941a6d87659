//! `dagger operator`.

use crate::args::OperatorCommand;
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::output::{self, Listing};
use dagger_client::keys::KeyKind;
use dagger_ledger::{AccountCreate, Action};

pub async fn run(context: &Context, command: OperatorCommand) -> Done {
    match command {
        OperatorCommand::List => list(context).await,
        OperatorCommand::Sponsor {
            account,
            public_key,
        } => sponsor(context, account, &public_key).await,
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
