//! `dagger vm`.

mod access;
mod create;
mod progress;
mod show;
mod ssh;

use crate::args::{ChangeArgs, VmCommand};
use crate::context::{Connection, Context};
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::VmView;
use dagger_client::keys::KeyKind;
use dagger_ledger::{Action, VmName, VmPlace};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a waiting command looks at a VM.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(context: &Context, command: VmCommand) -> Done<ExitCode> {
    match command {
        VmCommand::Ssh(args) => return ssh::run(context, args).await,
        VmCommand::Create(args) => create::run(context, *args).await,
        VmCommand::List(args) => show::list(context, &args).await,
        VmCommand::Show(vm) => show::show(context, &vm.vm).await,
        VmCommand::Explain(vm) => show::explain(context, &vm.vm).await,
        VmCommand::Proxy(args) => access::proxy(context, args).await,
        VmCommand::Token(args) => access::token(context, &args).await,
        VmCommand::Stop(args) => {
            change(context, &args, Action::VmStop, "is to stop", |vm| {
                phase_is(vm, &["stopped"])
            })
            .await
        }
        VmCommand::Start(args) => {
            change(context, &args, Action::VmStart, "is to start", |vm| {
                phase_is(vm, &["running"])
            })
            .await
        }
        VmCommand::Reboot(args) => {
            change(context, &args, Action::VmReboot, "is to restart", |vm| {
                phase_is(vm, &["running"])
            })
            .await
        }
        VmCommand::Place(args) => {
            let placement = create::placement(&args.placement);
            let place = |of: VmName| {
                Action::VmPlace(VmPlace {
                    vm: of.vm,
                    placement,
                })
            };
            change(context, &args.change, place, "may run there", |vm| {
                phase_is(vm, &["running", "stopped", "failed"])
            })
            .await
        }
        VmCommand::Delete(args) => {
            change(context, &args, Action::VmDelete, "is to be deleted", |vm| {
                vm.is_none()
            })
            .await
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

fn phase_is(vm: Option<&VmView>, phases: &[&str]) -> bool {
    vm.is_some_and(|vm| phases.contains(&vm.phase.as_str()))
}

/// Asks the ledger for a change of a VM and, with `--wait`, waits until `done`.
async fn change(
    context: &Context,
    args: &ChangeArgs,
    action: impl FnOnce(VmName) -> Action,
    said: &str,
    done: impl Fn(Option<&VmView>) -> bool,
) -> Done {
    let connection = context.connect().await?;
    let (account, name) = context.qualify(&connection, &args.vm.vm).await?;
    let key = context.key(KeyKind::Account)?;
    let status = context
        .execute(&connection, &key, action(VmName { vm: name.clone() }))
        .await?;
    if !args.wait.wait {
        return match context.json() {
            true => output::json(&status),
            false => output::line(&format!(
                "vm {account}/{name} {said}; follow it with `dagger vm show {name}`"
            )),
        };
    }
    let deadline = Instant::now() + Duration::from_millis(args.wait.timeout);
    let mut last = String::new();
    loop {
        let vm = find(&connection, &account, &name).await?;
        let phase = vm.as_ref().map_or("gone", |vm| vm.phase.as_str());
        if phase != last {
            last = phase.to_owned();
            match context.json() {
                true => output::json_line(
                    &serde_json::json!({"vm": format!("{account}/{name}"), "phase": phase}),
                )?,
                false => output::line(&format!("vm {account}/{name} is {phase}"))?,
            }
        }
        if done(vm.as_ref()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let text = format!("vm {account}/{name} is still {phase}");
            return Err(
                Failure::new(Exit::TimedOut, "E_TIMED_OUT", text).hint(format!(
                    "it goes on without you; look with `dagger vm show {name}`"
                )),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The VM of that name, or none.
async fn find(connection: &Connection, account: &str, name: &str) -> Done<Option<VmView>> {
    match connection.client.vm(account, name).await {
        Ok(vm) => Ok(Some(vm)),
        Err(error) if error.code == "unknown_vm" => Ok(None),
        Err(error) => Err(error.into()),
    }
}
