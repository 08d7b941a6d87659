//! Ways into a VM: tokens and tunnels.

use crate::args::{ProxyArgs, TokenArgs, TokenRight};
use crate::context::{Connection, Context, OWN_TOKEN_FOR_MS, now_ms};
use crate::failure::{Done, Failure};
use crate::output;
use dagger_client::api::VmView;
use dagger_client::keys::KeyKind;
use dagger_client::token::{self, Restriction, Right, VmScope};

impl From<TokenRight> for Right {
    fn from(right: TokenRight) -> Self {
        match right {
            TokenRight::Tunnel => Right::Tunnel,
            TokenRight::Console => Right::Console,
            TokenRight::Logs => Right::Logs,
        }
    }
}

fn scope(connection: &Connection, vm: &VmView) -> VmScope {
    VmScope {
        chain: connection.chain.0,
        vm: vm.id,
    }
}

/// A token for one use of `right`, signed by the account's key.
pub fn own_token(
    context: &Context,
    connection: &Connection,
    vm: &VmView,
    right: Right,
) -> Done<String> {
    let key = context.key(KeyKind::Account)?;
    let expires_ms = now_ms() + OWN_TOKEN_FOR_MS;
    Ok(token::issue(
        &key,
        scope(connection, vm),
        &[right],
        expires_ms,
    )?)
}

/// A token for one connection to `port`, signed by the account's key.
pub fn port_token(
    context: &Context,
    connection: &Connection,
    vm: &VmView,
    port: u16,
) -> Done<String> {
    let token = own_token(context, connection, vm, Right::Tunnel)?;
    Ok(token::attenuate(
        &token,
        &Restriction {
            ports: Some(vec![port]),
            ..Default::default()
        },
    )?)
}

pub async fn token(context: &Context, args: &TokenArgs) -> Done {
    let connection = context.connect().await?;
    let vm = context.vm(&connection, &args.vm.vm).await?;
    let key = context.key(KeyKind::Account)?;
    let rights: Vec<Right> = args.rights.iter().map(|right| (*right).into()).collect();
    let expires_at_ms = now_ms() + args.expires;
    let mut token = token::issue(&key, scope(&connection, &vm), &rights, expires_at_ms)?;
    if !args.ports.is_empty() {
        let ports = Some(args.ports.clone());
        token = token::attenuate(
            &token,
            &Restriction {
                ports,
                ..Default::default()
            },
        )?;
    }
    match context.json() {
        true => output::json(
            &serde_json::json!({"token": token, "vm": vm.id, "expires_at_ms": expires_at_ms}),
        ),
        false => output::line(&token),
    }
}

pub async fn proxy(context: &Context, args: ProxyArgs) -> Done {
    let connection = context.connect().await?;
    let vm = context.vm(&connection, &args.vm.vm).await?;
    let token = match args.token {
        Some(token) => token,
        None => port_token(context, &connection, &vm, args.port)?,
    };
    let tunnel = connection
        .client
        .tunnel(&vm.account, &vm.name, args.port, &token)
        .await?;
    tunnel
        .carry(tokio::io::stdin(), tokio::io::stdout())
        .await
        .map_err(Failure::from)
}
