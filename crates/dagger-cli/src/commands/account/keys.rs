//! `dagger account rotate`, `delegate` and `revoke`: which keys act for an account.

use crate::args::DelegateArgs;
use crate::config::ClientConfig;
use crate::context::{Connection, Context, now_ms};
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::AccountView;
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_ledger::{AccountRotate, Action, Code, Key, KeyDelegate, KeyRevoke};
use std::path::{Path, PathBuf};

/// Names a new key on the ledger. It is on disk before the ledger hears of it: no answer must leave the account without a key.
pub async fn rotate(context: &Context) -> Done {
    let connection = context.connect().await?;
    let (old, account) = own(context, &connection).await?;
    let fresh = SecretKey::generate();
    let public = fresh.public();
    let name = format!("{}-{}.json", account.name, &hex::encode(public)[..8]);
    let relative = PathBuf::from("keys").join(name);
    let path = context.config_dir.join(&relative);
    let directory = context.config_dir.join("keys");
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure::file(directory.display(), &error))?;
    keys::write(&path, KeyKind::Account, &fresh)?;
    let action = Action::AccountRotate(AccountRotate { key: Key(public) });
    let status = match context.execute(&connection, &old, action).await {
        Ok(status) => status,
        Err(failure) if failure.exit == Exit::Refused => {
            // The ledger has said no: nobody will ever ask for this key.
            let _ = std::fs::remove_file(&path);
            return Err(failure);
        }
        Err(failure) => {
            let kept = path.display();
            return Err(failure.hint(format!(
                "whether the key changed is not known; see `dagger account show {}`, and keep {kept} until then",
                account.name
            )));
        }
    };
    let before = context.key_path()?;
    let is_default = context.config.key.as_deref() == Some(before);
    if is_default {
        let mut config = ClientConfig::read(&context.config_dir)?;
        config.key = Some(relative);
        config.save(&context.config_dir)?;
    }
    if context.json() {
        return output::json(&serde_json::json!({
            "account": account.name, "public_key": hex::encode(public), "key_file": path, "transaction": status.digest,
        }));
    }
    say_rotated(&account.name, &path, before, is_default)
}

fn say_rotated(account: &str, path: &Path, before: &Path, is_default: bool) -> Done {
    output::line(&format!(
        "account {account} has another key: {} (keep it secret, keep a copy)",
        path.display()
    ))?;
    output::line(&format!(
        "the one in {} means nothing any more, nor do tokens made with it",
        before.display()
    ))?;
    match is_default {
        true => Ok(()),
        false => output::line(&format!("to use it: --key {}", path.display())),
    }
}

/// Lets another key do some of what the account may do, for a time.
pub async fn delegate(context: &Context, args: DelegateArgs) -> Done {
    let key = public_key(&args.public_key)?;
    let until_ms = now_ms().saturating_add(args.valid_for);
    let said = format!(
        "{} may {} {} until {}",
        output::short(&args.public_key),
        args.actions.join(", "),
        match args.vms.is_empty() {
            true => "any VM".to_owned(),
            false => args.vms.join(", "),
        },
        output::date(until_ms)
    );
    let action = Action::KeyDelegate(KeyDelegate {
        key,
        actions: args.actions,
        vms: args.vms,
        until_ms,
    });
    sign(context, action, &said).await
}

/// Takes a delegated key back.
pub async fn revoke(context: &Context, text: &str) -> Done {
    let key = public_key(text)?;
    let said = format!("{} may do nothing any more", output::short(text));
    sign(context, Action::KeyRevoke(KeyRevoke { key }), &said).await
}

async fn sign(context: &Context, action: Action, said: &str) -> Done {
    let connection = context.connect().await?;
    let (key, _) = own(context, &connection).await?;
    let status = context.execute(&connection, &key, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(said),
    }
}

/// The account whose own key this is: a delegated one decides nothing about keys.
async fn own(context: &Context, connection: &Connection) -> Done<(SecretKey, AccountView)> {
    let (key, account) = context.account(connection).await?;
    if account.key != hex::encode(key.public()) {
        let text = format!(
            "this key acts for account {}, it is not the account's own",
            account.name
        );
        let code = Code::Unauthorised.as_str();
        return Err(Failure::new(Exit::Refused, code, text)
            .hint("sign with the account's own key: --key FILE"));
    }
    Ok((key, account))
}

fn public_key(text: &str) -> Done<Key> {
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "`{text}` is not a public key of 64 lower-case hex digits"
        ))
    })
}
