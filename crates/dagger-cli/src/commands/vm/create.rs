//! `dagger vm create`.

use super::progress::{self, Progress};
use super::user_data;
use crate::args::{self, CreateArgs};
use crate::context::{Connection, Context, Uploader};
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::AccountView;
use dagger_client::http::Stage;
use dagger_ledger::{Action, Failover, OnIsolation, Placement, Restart, VmCreate};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a create without `--wait` waits for its outcome.
const EXECUTE_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(context: &Context, args: CreateArgs) -> Done {
    let connection = context.connect().await?;
    let (key, account) = context.account(&connection).await?;
    let mut create = request(&connection, &account, &args).await?;
    if let Some(path) = &args.user_data {
        let uploader = Uploader {
            account: &account.name,
            key: &key,
            chain: connection.chain,
        };
        let sealed = user_data::seal(context, &connection, &uploader, path, &create.placement);
        create.user_data = Some(sealed.await?);
    }
    let action = Action::VmCreate(create);
    let signed = context.sign(&connection, &key, action);
    let within = if args.wait.wait {
        Duration::from_millis(args.wait.timeout)
    } else {
        EXECUTE_WITHIN
    };
    let deadline = Instant::now() + within;
    let mut progress = Progress::new(context, args.wait.wait);
    progress.title(&format!(
        "creating vm {}/{} from {}: {} vcpu, {} memory, {} disk",
        account.name,
        args.name,
        args.image,
        args.vcpus,
        output::mib(args.memory),
        output::mib(args.disk)
    ))?;
    let submitted = connection.client.submit(&signed).await?;
    progress.accepted(&submitted)?;
    for stage in [Stage::Event, Stage::Commit, Stage::Executed] {
        let status = connection
            .client
            .wait_transaction(&submitted.digest, stage, deadline)
            .await?;
        progress.transaction(&status)?;
        if let Some(refusal) = status.refusal() {
            return Err(refused(&refusal.code, refusal.text, &args.name));
        }
    }
    let vm = connection.client.vm(&account.name, &args.name).await?;
    if !args.wait.wait {
        return match context.json() {
            true => output::json(&vm),
            false => output::line(&format!(
                "vm {}/{} is created and {}; follow it with `dagger vm show {}`",
                vm.account, vm.name, vm.phase, vm.name
            )),
        };
    }
    let vm = progress::follow(context, &connection, &mut progress, vm, deadline).await?;
    match context.json() {
        true => output::json_line(&serde_json::json!({"stage": "done", "vm": vm})),
        false => output::line(&format!("log in: dagger vm ssh {}", vm.name)),
    }
}

fn refused(code: &str, text: String, name: &str) -> Failure {
    let failure = Failure::new(Exit::Refused, code, text);
    match code {
        "name_taken" => failure.hint(format!("`dagger vm show {name}` shows the one that has it")),
        "no_machine_fits" => failure
            .hint("`dagger machine list` shows what is free; ask for less, or for fewer places"),
        _ => failure,
    }
}

async fn request(
    connection: &Connection,
    account: &AccountView,
    args: &CreateArgs,
) -> Done<VmCreate> {
    let (owner, image) = args
        .image
        .split_once('/')
        .unwrap_or((&account.name, &args.image));
    let image = connection.client.image(owner, image).await?;
    let image_digest = image.digest.parse().map_err(|_| {
        Failure::new(
            Exit::Failure,
            "E_NOT_A_NODE",
            format!("the node names no digest for image {}", image.name),
        )
    })?;
    let ssh_keys = args
        .ssh_keys
        .iter()
        .map(|path| read_ssh_key(path))
        .collect::<Done<_>>()?;
    Ok(VmCreate {
        name: args.name.clone(),
        image: image.name,
        image_digest,
        vcpus: args.vcpus,
        memory_mib: args.memory,
        disk_mib: args.disk,
        ssh_keys,
        user_data: None,
        failover: match args.failover {
            args::Failover::None => Failover::None,
            args::Failover::Recreate => Failover::Recreate,
        },
        on_isolation: match args.on_isolation {
            args::OnIsolation::Stop => OnIsolation::Stop,
            args::OnIsolation::Keep => OnIsolation::Keep,
        },
        restart: match args.restart {
            args::Restart::Never => Restart::Never,
            args::Restart::OnFailure => Restart::OnFailure,
            args::Restart::Always => Restart::Always,
        },
        spread: args.spread.clone(),
        placement: placement(&args.placement),
        labels: args.labels.iter().cloned().collect(),
        publish: args.publish.clone(),
    })
}

/// The placement that the arguments describe.
pub(super) fn placement(args: &args::PlacementArgs) -> Placement {
    Placement {
        machines: args.machines.clone(),
        operators: args.operators.clone(),
        regions: args.regions.clone(),
        deny_machines: args.deny_machines.clone(),
        deny_operators: args.deny_operators.clone(),
        deny_regions: args.deny_regions.clone(),
    }
}

fn read_ssh_key(path: &Path) -> Done<String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::file(path.display(), &error))?;
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    if line.starts_with("-----BEGIN") {
        return Err(Failure::usage(format!(
            "{} is a private key; it must never leave your machine",
            path.display()
        ))
        .hint(format!("name the public one: {}.pub", path.display())));
    }
    dagger_ledger::check_ssh_key(line).map_err(|_| {
        Failure::usage(format!("{} holds no OpenSSH public key", path.display()))
            .hint("`ssh-keygen -t ed25519` makes a pair; name the file that ends in .pub")
    })?;
    Ok(line.to_owned())
}
