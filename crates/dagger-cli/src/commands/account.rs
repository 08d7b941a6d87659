//! `dagger account`.

mod keys;

use super::usage;
use crate::args::AccountCommand;
use crate::config::ClientConfig;
use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use dagger_client::api::AccountView;
use dagger_client::keys::{self as key_files, KeyKind, SecretKey};
use std::path::PathBuf;

pub async fn run(context: &Context, command: AccountCommand) -> Done {
    match command {
        AccountCommand::New { name } => new(context, &name),
        AccountCommand::Show { name } => show(context, name.as_deref()).await,
        AccountCommand::List => list(context).await,
        AccountCommand::Rotate => keys::rotate(context).await,
        AccountCommand::Delegate(args) => keys::delegate(context, args).await,
        AccountCommand::Revoke { public_key } => keys::revoke(context, &public_key).await,
        AccountCommand::Usage { name, proof } => usage::of_account(context, name, &proof).await,
    }
}

fn new(context: &Context, name: &str) -> Done {
    dagger_ledger::check_label(name)
        .map_err(|code| Failure::new(Exit::Usage, code.as_str(), code.text()))?;
    let relative = PathBuf::from("keys").join(format!("{name}.json"));
    let path = context.config_dir.join(&relative);
    let directory = context.config_dir.join("keys");
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure::file(directory.display(), &error))?;
    let key = SecretKey::generate();
    key_files::write(&path, KeyKind::Account, &key)?;
    let public = hex::encode(key.public());
    let mut config = ClientConfig::read(&context.config_dir)?;
    let becomes_default = config.key.is_none();
    if becomes_default {
        config.key = Some(relative);
        config.save(&context.config_dir)?;
    }
    if context.json() {
        return output::json(
            &serde_json::json!({"account": name, "public_key": public, "key_file": path}),
        );
    }
    output::fields(&[
        ("account", name.to_owned()),
        ("public key", public.clone()),
        (
            "key file",
            format!("{} (keep it secret, keep a copy)", path.display()),
        ),
    ])?;
    if !becomes_default {
        output::line(&format!("to use it: --key {}", path.display()))?;
    }
    output::line("\nAn account opens when an operator sponsors it. Ask one to run:")?;
    output::line(&format!("  dagger operator sponsor {name} {public}"))
}

async fn show(context: &Context, name: Option<&str>) -> Done {
    let connection = context.connect().await?;
    let account = match name {
        None => context.account(&connection).await?.1,
        Some(name) => {
            let accounts = connection.client.accounts().await?;
            accounts
                .into_iter()
                .find(|account| account.name == name)
                .ok_or_else(|| {
                    let code = dagger_ledger::Code::UnknownAccount;
                    Failure::new(Exit::Refused, code.as_str(), code.text())
                        .hint("list them with `dagger account list`")
                })?
        }
    };
    if context.json() {
        return output::json(&account);
    }
    output::fields(&[
        ("account", account.name),
        ("public key", account.key),
        ("sponsor", account.sponsor),
        ("vms", account.vms.to_string()),
        ("images", account.images.to_string()),
    ])?;
    for delegation in account.delegations {
        output::line(&format!(
            "key {} may {} {} until {}",
            delegation.key,
            delegation.actions.join(", "),
            match delegation.vms.is_empty() {
                true => "any VM".to_owned(),
                false => delegation.vms.join(", "),
            },
            output::date(delegation.until_ms)
        ))?;
    }
    Ok(())
}

async fn list(context: &Context) -> Done {
    let accounts: Vec<AccountView> = context.connect().await?.client.accounts().await?;
    if context.json() {
        return output::json(&accounts);
    }
    let mut listing = Listing::new(
        &["NAME", "SPONSOR", ">VMS", ">IMAGES", "KEY"],
        "no accounts yet",
    );
    for account in accounts {
        listing.row([
            account.name,
            account.sponsor,
            account.vms.to_string(),
            account.images.to_string(),
            output::short(&account.key),
        ]);
    }
    listing.print()
}
