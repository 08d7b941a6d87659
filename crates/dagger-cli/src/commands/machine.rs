//! `dagger machine`.

use super::operator::{public_key, sign};
use crate::args::{MachineAddArgs, MachineCommand, MachineUpdateArgs};
use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use dagger_client::api::{MachineView, Resources};
use dagger_client::keys::KeyKind;
use dagger_ledger::{Action, Code, MachineAdd, MachineKey, MachineName, MachineUpdate};

pub async fn run(context: &Context, command: MachineCommand) -> Done {
    match command {
        MachineCommand::List => list(context).await,
        MachineCommand::Add(args) => add(context, args).await,
        MachineCommand::Drain { machine } => {
            let said =
                format!("{machine} drains: nothing new is placed there, what may move is moved");
            sign(
                context,
                Action::MachineDrain(MachineName { machine }),
                &said,
            )
            .await
        }
        MachineCommand::Undrain { machine } => {
            let said = format!("{machine} takes new VMs again");
            sign(
                context,
                Action::MachineUndrain(MachineName { machine }),
                &said,
            )
            .await
        }
        MachineCommand::Update(args) => update(context, args).await,
        MachineCommand::Key { machine, node_key } => {
            let node_key = public_key(&node_key, KeyKind::Node)?;
            let said = format!(
                "{machine} has another node key at once: start its node with it, the old one's word does not count any more"
            );
            sign(
                context,
                Action::MachineKey(MachineKey { machine, node_key }),
                &said,
            )
            .await
        }
        MachineCommand::Remove { machine } => {
            let said = format!("{machine} is removed");
            sign(
                context,
                Action::MachineRemove(MachineName { machine }),
                &said,
            )
            .await
        }
    }
}

async fn list(context: &Context) -> Done {
    let connection = context.connect().await?;
    let machines = connection.client.machines().await?;
    if context.json() {
        return output::json(&machines);
    }
    let columns = [
        "NAME", "OPERATOR", "STATE", "ARCH", ">VCPUS", ">MEMORY", ">DISK", ">VMS", "HEARD BY",
        "LABELS",
    ];
    let mut listing = Listing::new(
        &columns,
        "no machines yet; an operator adds one with `dagger machine add`",
    );
    for machine in machines {
        let MachineView {
            name,
            operator,
            state,
            arch,
            capacity,
            cpu_permille,
            used,
            vms,
            heard_by,
            labels,
            ..
        } = machine;
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        listing.row([
            name,
            operator,
            state,
            arch,
            format!(
                "{}/{}",
                used.vcpus,
                u64::from(capacity.vcpus) * u64::from(cpu_permille) / 1_000
            ),
            used_of(&used, &capacity, |r| r.memory_mib),
            used_of(&used, &capacity, |r| r.disk_mib),
            vms.to_string(),
            if heard_by.is_empty() {
                "-".to_owned()
            } else {
                heard_by.join(",")
            },
            labels.join(","),
        ]);
    }
    listing.print()
}

fn used_of(used: &Resources, capacity: &Resources, amount: impl Fn(&Resources) -> u64) -> String {
    format!(
        "{}/{}",
        output::mib(amount(used)),
        output::mib(amount(capacity))
    )
}

async fn add(context: &Context, args: MachineAddArgs) -> Done {
    let node_key = args.node_key.parse().map_err(|_| {
        Failure::usage(format!(
            "`{}` is not a public key of 64 lower-case hex digits",
            args.node_key
        ))
    })?;
    let said = format!(
        "{} is registered; it takes VMs as soon as enough rivals hear it",
        args.name
    );
    let action = Action::MachineAdd(MachineAdd {
        machine: args.name,
        node_key,
        arch: args.arch.into(),
        vcpus: args.vcpus,
        memory_mib: args.memory,
        disk_mib: args.disk,
        cpu_permille: args.cpu_overcommit,
        labels: args.labels.into_iter().collect(),
    });
    sign(context, action, &said).await
}

/// The ledger takes an update whole: what is not named is what stands there now.
async fn update(context: &Context, args: MachineUpdateArgs) -> Done {
    let machines = context.connect().await?.client.machines().await?;
    let now = machines.into_iter().find(|m| m.name == args.machine);
    let now = now.ok_or_else(|| {
        let code = Code::UnknownMachine;
        Failure::new(Exit::Refused, code.as_str(), code.text())
    })?;
    let mut labels = now.labels;
    labels.retain(|key, _| !args.no_labels.contains(key));
    labels.extend(args.labels);
    let said = format!("{} is changed", args.machine);
    let action = Action::MachineUpdate(MachineUpdate {
        machine: args.machine,
        vcpus: args.vcpus.unwrap_or(now.capacity.vcpus),
        memory_mib: args.memory.unwrap_or(now.capacity.memory_mib),
        disk_mib: args.disk.unwrap_or(now.capacity.disk_mib),
        cpu_permille: args.cpu_overcommit.unwrap_or(now.cpu_permille),
        labels,
    });
    sign(context, action, &said).await
}
