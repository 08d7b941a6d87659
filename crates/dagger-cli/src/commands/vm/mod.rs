//! `dagger vm`.

mod access;
mod change;
mod console;
mod create;
mod logs;
mod progress;
mod show;
mod ssh;
mod user_data;

use crate::args::VmCommand;
use crate::context::{Connection, Context};
use crate::failure::Done;
use dagger_client::api::VmView;
use std::process::ExitCode;
use std::time::Duration;

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
        VmCommand::Logs(args) => logs::run(context, &args).await,
        VmCommand::Console(args) => console::run(context, &args).await,
        VmCommand::Stop(args) => change::stop(context, &args).await,
        VmCommand::Start(args) => change::start(context, &args).await,
        VmCommand::Reboot(args) => change::reboot(context, &args).await,
        VmCommand::Dispute { vm, claim } => change::dispute(context, vm, claim).await,
        VmCommand::Place(args) => change::place(context, args).await,
        VmCommand::Resize(args) => change::resize(context, &args).await,
        VmCommand::Rename(args) => change::rename(context, &args).await,
        VmCommand::Delete(args) => change::delete(context, &args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The VM of that name, or none.
async fn find(connection: &Connection, account: &str, name: &str) -> Done<Option<VmView>> {
    match connection.client.vm(account, name).await {
        Ok(vm) => Ok(Some(vm)),
        Err(error) if error.code == "unknown_vm" => Ok(None),
        Err(error) => Err(error.into()),
    }
}
