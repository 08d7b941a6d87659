//! Changes of a VM that exists: `dagger vm stop`, `start`, `reboot`, `dispute`, `resize`, `rename` and `delete`.

use super::{LOOK_EVERY, create, find, show};
use crate::args::{ChangeArgs, PlaceArgs, RenameArgs, ResizeArgs};
use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::VmView;
use dagger_client::keys::KeyKind;
use dagger_ledger::{Action, VmDispute, VmName, VmPlace, VmRename, VmResize};
use std::time::{Duration, Instant};

pub async fn stop(context: &Context, args: &ChangeArgs) -> Done {
    change(context, args, Action::VmStop, "is to stop", |vm| {
        phase_is(vm, &["stopped"])
    })
    .await
}

pub async fn start(context: &Context, args: &ChangeArgs) -> Done {
    change(context, args, Action::VmStart, "is to start", |vm| {
        phase_is(vm, &["running"])
    })
    .await
}

pub async fn reboot(context: &Context, args: &ChangeArgs) -> Done {
    change_since(
        context,
        args,
        Action::VmReboot,
        "is to restart",
        |vm, commit| vm.is_some_and(|vm| began_after(vm, commit)),
    )
    .await
}

pub async fn dispute(context: &Context, vm: String, claim: String) -> Done {
    let connection = context.connect().await?;
    let key = context.key(KeyKind::Account)?;
    let said = format!(
        "{vm} is disputed: `dagger vm show {vm}` shows who must probe it and what they find"
    );
    let action = Action::VmDispute(VmDispute { vm, claim });
    let status = context.execute(&connection, &key, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&said),
    }
}

pub async fn place(context: &Context, args: PlaceArgs) -> Done {
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

pub async fn delete(context: &Context, args: &ChangeArgs) -> Done {
    change(context, args, Action::VmDelete, "is to be deleted", |vm| {
        vm.is_none()
    })
    .await
}

pub async fn resize(context: &Context, args: &ResizeArgs) -> Done {
    if args.vcpus.is_none() && args.memory.is_none() && args.disk.is_none() {
        return Err(Failure::usage("nothing to change")
            .hint("say what it is to have: --vcpus, --memory, --disk"));
    }
    let connection = context.connect().await?;
    let vm = context.vm(&connection, &args.vm.vm).await?;
    let key = context.key(KeyKind::Account)?;
    let action = Action::VmResize(VmResize {
        vm: vm.name.clone(),
        vcpus: args.vcpus.unwrap_or(vm.resources.vcpus),
        memory_mib: args.memory.unwrap_or(vm.resources.memory_mib),
        disk_mib: args.disk.unwrap_or(vm.resources.disk_mib),
    });
    let status =
        context
            .execute(&connection, &key, action)
            .await
            .map_err(|failure| match failure.code.as_str() {
                "wrong_phase" => failure.hint(format!(
                    "a VM is resized while it is off: `dagger vm stop {} --wait` first",
                    vm.name
                )),
                _ => failure,
            })?;
    if context.json() {
        return output::json(&status);
    }
    let vm = connection.client.vm(&vm.account, &vm.name).await?;
    output::line(&format!(
        "vm {}/{} has {} from its next start on: `dagger vm start {}`",
        vm.account,
        vm.name,
        show::size(&vm),
        vm.name
    ))
}

pub async fn rename(context: &Context, args: &RenameArgs) -> Done {
    let connection = context.connect().await?;
    let (account, name) = context.qualify(&connection, &args.vm.vm).await?;
    let key = context.key(KeyKind::Account)?;
    let action = Action::VmRename(VmRename {
        vm: name.clone(),
        name: args.to.clone(),
    });
    let status = context.execute(&connection, &key, action).await?;
    match context.json() {
        true => output::json(&status),
        false => output::line(&format!("vm {account}/{name} is {account}/{} now", args.to)),
    }
}

fn phase_is(vm: Option<&VmView>, phases: &[&str]) -> bool {
    vm.is_some_and(|vm| phases.contains(&vm.phase.as_str()))
}

/// Whether it runs, and began to after `commit`: a VM that is to reboot is shown as running until its host has heard of it.
fn began_after(vm: &VmView, commit: u64) -> bool {
    let last = vm.history.last();
    phase_is(Some(vm), &["running"]) && last.is_some_and(|event| event.commit > commit)
}

/// Asks the ledger for a change of a VM and, with `--wait`, waits until `done`.
async fn change(
    context: &Context,
    args: &ChangeArgs,
    action: impl FnOnce(VmName) -> Action,
    said: &str,
    done: impl Fn(Option<&VmView>) -> bool,
) -> Done {
    change_since(context, args, action, said, |vm, _| done(vm)).await
}

/// The same; `done` is also told the commit that made the change.
async fn change_since(
    context: &Context,
    args: &ChangeArgs,
    action: impl FnOnce(VmName) -> Action,
    said: &str,
    done: impl Fn(Option<&VmView>, u64) -> bool,
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
    let commit = status.commit.map_or(0, |commit| commit.index);
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
        if done(vm.as_ref(), commit) {
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

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
