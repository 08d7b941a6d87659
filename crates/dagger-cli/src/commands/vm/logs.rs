//! `dagger vm logs`: what a guest wrote to its serial console, also across nodes that fail and machines that change.

use super::access::own_token;
use super::show;
use crate::args::LogsArgs;
use crate::context::{Connection, Context};
use crate::failure::{Done, Failure};
use dagger_client::api::VmView;
use dagger_client::http::{ClientError, Fault};
use dagger_client::token::Right;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Before a log that broke off is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// So long is nothing heard of the VM before following it is given up. A failover takes less.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

pub async fn run(context: &Context, args: &LogsArgs) -> Done {
    let connection = context.connect().await?;
    let vm = context.vm(&connection, &args.vm.vm).await?;
    if !args.follow {
        let (_, ended) = print(context, &connection, &vm, args, args.tail).await?;
        return Ok(ended?);
    }
    follow(context, connection, vm, args).await
}

/// Prints the log until it ends: whether it was opened, and how it ended.
async fn print(
    context: &Context,
    connection: &Connection,
    vm: &VmView,
    args: &LogsArgs,
    tail: Option<u32>,
) -> Done<(bool, Result<(), ClientError>)> {
    let token = match &args.token {
        Some(token) => token.clone(),
        None => own_token(context, connection, vm, Right::Logs)?,
    };
    let opened = connection
        .client
        .logs(&vm.account, &vm.name, args.follow, tail, &token)
        .await;
    let mut log = match opened {
        Ok(log) => log,
        Err(error) => return Ok((false, Err(error))),
    };
    loop {
        match log.next().await {
            Ok(Some(bytes)) => write(&bytes)?,
            Ok(None) => return Ok((true, Ok(()))),
            Err(error) => return Ok((true, Err(error))),
        }
    }
}

/// The guest's bytes as they are. A reader that has gone away ends the program quietly, as it does for other tools.
fn write(bytes: &[u8]) -> Done {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::file("output", &error)),
        Ok(()) => Ok(()),
    }
}

async fn follow(
    context: &Context,
    mut connection: Connection,
    mut vm: VmView,
    args: &LogsArgs,
) -> Done {
    let mut tail = args.tail;
    let mut heard = Instant::now();
    loop {
        let (printed, ended) = print(context, &connection, &vm, args, tail).await?;
        if printed {
            heard = Instant::now();
        }
        match ended {
            Ok(()) => {}
            Err(error) if passing(&error) && heard.elapsed() < GIVE_UP_AFTER => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        let Ok(found) = context.connect().await else {
            continue;
        };
        connection = found;
        let seen = match connection.client.vm(&vm.account, &vm.name).await {
            Ok(seen) => seen,
            Err(error) if error.code == "unknown_vm" => {
                return Err(Failure::from(error).hint("it was deleted, or has another name now"));
            }
            Err(_) => continue,
        };
        let moved = (seen.id, seen.lease_epoch) != (vm.id, vm.lease_epoch);
        if moved {
            // Said beside the log, not in it.
            eprintln!(
                "[vm {}/{} is on {} now (lease epoch {})]",
                seen.account,
                seen.name,
                show::place(&seen),
                seen.lease_epoch
            );
        }
        // Another incarnation has a log of its own; of the same one, what was printed is not printed again.
        if moved {
            tail = None;
        } else if printed {
            tail = Some(0);
        }
        vm = seen;
    }
}

/// What a failover, a restart of a node, or a stop of the VM brings about, and time mends.
fn passing(error: &ClientError) -> bool {
    error.fault == Fault::Unreachable
        || matches!(
            error.code.as_str(),
            "vm_not_running" | "machine_unreachable" | "guest_unreachable"
        )
}
