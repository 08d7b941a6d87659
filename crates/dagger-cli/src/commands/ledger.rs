//! `dagger ledger`.

pub(super) mod proofs;
mod replay;

use crate::args::{LedgerCommand, TailArgs};
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::output;
use dagger_client::api::CommitView;
use dagger_client::http::{Client, ClientError, Fault};
use std::time::Duration;

/// How long a broken stream waits before it is taken up again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Attempts in a row that may fail before the stream is given up.
const RECONNECTS_MAX: u32 = 30;

pub async fn run(context: &Context, command: LedgerCommand) -> Done {
    match command {
        LedgerCommand::Tail(args) => tail(context, &args).await,
        LedgerCommand::Receipt { transaction, file } => {
            proofs::receipt(context, &transaction, file.as_deref()).await
        }
        LedgerCommand::Prove { record, file } => {
            proofs::prove(context, &record, file.as_deref()).await
        }
        LedgerCommand::Replay { data } => replay::replay(context, &data),
        LedgerCommand::Verify { proof, genesis } => proofs::verify(context, &proof, &genesis),
    }
}

/// How far the tail has come.
struct Progress {
    cursor: u64,
    left: u64,
    failures: u32,
}

async fn tail(context: &Context, args: &TailArgs) -> Done {
    let connection = context.connect().await?;
    let cursor = args.after.unwrap_or(connection.status.ledger.commit);
    let mut progress = Progress {
        cursor,
        left: args.count.unwrap_or(u64::MAX),
        failures: 0,
    };
    while progress.left > 0 {
        match follow(context, &connection.client, args.all, &mut progress).await {
            Ok(()) => {}
            Err(Broken::Here(failure)) => return Err(failure),
            Err(Broken::There(error)) => {
                if error.fault != Fault::Unreachable || progress.failures >= RECONNECTS_MAX {
                    return Err(error.into());
                }
            }
        }
        if progress.left > 0 {
            progress.failures += 1;
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }
    Ok(())
}

enum Broken {
    Here(Failure),
    There(ClientError),
}

async fn follow(
    context: &Context,
    client: &Client,
    all: bool,
    progress: &mut Progress,
) -> Result<(), Broken> {
    let mut stream = client
        .follow(progress.cursor, all)
        .await
        .map_err(Broken::There)?;
    while progress.left > 0 {
        let Some(commit) = stream.next().await.map_err(Broken::There)? else {
            return Ok(());
        };
        progress.failures = 0;
        progress.cursor = commit.index;
        progress.left -= 1;
        show(context, &commit).map_err(Broken::Here)?;
    }
    Ok(())
}

fn show(context: &Context, commit: &CommitView) -> Done {
    if context.json() {
        return output::json_line(commit);
    }
    output::line(&format!(
        "{}  commit {}  led by {} in round {}  {}",
        output::clock(commit.time_ms),
        commit.index,
        commit.leader.creator_name,
        commit.leader.round,
        output::short(&commit.digest),
    ))?;
    for outcome in &commit.outcomes {
        let action = outcome.action.as_deref().unwrap_or("transaction");
        let what = outcome.subject.as_deref().unwrap_or_default();
        let why = if outcome.code == "ok" {
            ""
        } else {
            outcome.detail.as_str()
        };
        let words = [
            &output::short(&outcome.digest),
            action,
            what,
            &outcome.code,
            why,
        ];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        output::line(&format!("    {}", words.join("  ")))?;
    }
    for change in &commit.changes {
        output::line(&format!("    → {}", change.text))?;
    }
    Ok(())
}
