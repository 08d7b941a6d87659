//! What each command does, and which runtime it gets.

mod account;
mod doctor;
mod image;
mod ledger;
mod machine;
mod node;
mod operator;
mod usage;
mod vm;

pub use node::state;

use crate::args::{Cli, Command, GenesisCommand, Global, NodeCommand};
use crate::bench;
use crate::context::Context;
use crate::dev;
use crate::failure::{Done, Failure};
use clap::CommandFactory as _;
use std::future::Future;
use std::process::ExitCode;

/// Runs the command. The exit code is a success, or that of a command run inside a VM.
pub fn run(cli: Cli) -> Done<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "dagger", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::VmShim { dir } => Ok(dagger_vmm::shim_main(&dir)),
        Command::Genesis(GenesisCommand::Create(args)) => {
            success(node::genesis_create(&global, &args))
        }
        Command::Genesis(GenesisCommand::Id { genesis }) => {
            success(node::genesis_id(&global, &genesis))
        }
        Command::Node(NodeCommand::Init(args)) => success(node::init(&global, &args)),
        Command::Node(NodeCommand::Run { data }) => success(node::run(&data)),
        Command::Node(NodeCommand::Status) => {
            with(&global, async |context| node::status(&context).await)
        }
        Command::Node(NodeCommand::Peers) => {
            with(&global, async |context| doctor::peers(&context).await)
        }
        Command::Node(NodeCommand::Doctor { data }) => with(&global, async |context| {
            doctor::run(&context, data.as_deref()).await
        }),
        Command::Vm(command) => block_on(async {
            let context = Context::new(&global)?;
            vm::run(&context, command).await
        }),
        Command::Image(command) => {
            with(&global, async |context| image::run(&context, command).await)
        }
        Command::Account(command) => with(&global, async |context| {
            account::run(&context, command).await
        }),
        Command::Ledger(command) => with(&global, async |context| {
            ledger::run(&context, command).await
        }),
        Command::Machine(command) => with(&global, async |context| {
            machine::run(&context, command).await
        }),
        Command::Operator(command) => with(&global, async |context| {
            operator::run(&context, command).await
        }),
        Command::Bench(command) => success(bench::run(&command)),
        Command::Dev(command) => success(block_on(dev::run(&global, command))),
    }
}

fn success(done: Done) -> Done<ExitCode> {
    done.map(|()| ExitCode::SUCCESS)
}

fn with(global: &Global, command: impl AsyncFnOnce(Context) -> Done) -> Done<ExitCode> {
    success(block_on(async { command(Context::new(global)?).await }))
}

/// Runs a command of the client: one thread is enough.
fn block_on<T>(command: impl Future<Output = Done<T>>) -> Done<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::file("the runtime cannot start", &error))?;
    let done = runtime.block_on(command);
    // A read of standard input may still be waiting; nothing would ever end it.
    runtime.shutdown_background();
    done
}
