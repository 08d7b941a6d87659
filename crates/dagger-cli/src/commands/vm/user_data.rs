//! `dagger vm create --user-data`: sealed before it leaves this machine, to those machines alone that may run the VM.

use crate::context::{Connection, Context, Uploader};
use crate::failure::{Done, Exit, Failure};
use dagger_client::api::MachineView;
use dagger_client::user_data;
use dagger_ledger::{Key, Placement, UserData};
use futures_util::stream;
use std::path::Path;

/// Machines that a VM may be sealed to; the ledger takes no more.
const MACHINES_MAX: usize = 64;

/// Seals the file, uploads the sealed body to every node that answers, and returns what the ledger is to know.
pub async fn seal(
    context: &Context,
    connection: &Connection,
    uploader: &Uploader<'_>,
    path: &Path,
    placement: &Placement,
) -> Done<UserData> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::file(path.display(), &error))?;
    let mut machines = connection.client.machines().await?;
    machines.retain(|machine| machine.state != "draining" && may_run(placement, machine));
    // Those with most room first: where there are too many, placement keeps to these.
    machines.sort_by_key(|machine| {
        std::cmp::Reverse(
            machine
                .capacity
                .memory_mib
                .saturating_sub(machine.used.memory_mib),
        )
    });
    let mut keys = Vec::new();
    for machine in machines.into_iter().take(MACHINES_MAX) {
        let key = machine.node_key.parse::<dagger_ledger::Digest>();
        let key = key.map_err(|_| unusable("names no node key for a machine", connection))?;
        keys.push((machine.name, Key(key.0)));
    }
    if keys.is_empty() {
        let text = "no machine may run this VM, so there is none to seal its user-data to";
        return Err(Failure::new(Exit::Refused, "no_machine_fits", text)
            .hint("`dagger machine list` shows the machines; ask for fewer places"));
    }
    let sealed = user_data::seal(&connection.chain, text.as_bytes(), &keys)
        .map_err(|error| Failure::new(Exit::Failure, error.code(), error.to_string()))?;
    for client in context.clients()? {
        let body = stream::iter([Ok(sealed.body.clone().into())]);
        let token = uploader.token()?;
        let (named, size_bytes) = ((uploader.account, &*token), sealed.user_data.size_bytes);
        match client.upload(named, size_bytes, body).await {
            // One copy is enough to begin with: the machine that runs the VM keeps its own.
            Err(error) if client.api() == connection.client.api() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(sealed.user_data)
}

fn unusable(what: &str, connection: &Connection) -> Failure {
    let text = format!("{} {what}", connection.client.api());
    Failure::new(Exit::Failure, "E_NOT_A_NODE", text)
}

/// Whether the customer's own wishes allow this machine; capacity is the ledger's concern.
fn may_run(placement: &Placement, machine: &MachineView) -> bool {
    let region = machine.labels.get("region");
    let named = |names: &[String], name: &String| names.contains(name);
    let wanted = |names: &[String], name: &String| names.is_empty() || named(names, name);
    wanted(&placement.machines, &machine.name)
        && wanted(&placement.operators, &machine.operator)
        && (placement.regions.is_empty()
            || region.is_some_and(|region| named(&placement.regions, region)))
        && !named(&placement.deny_machines, &machine.name)
        && !named(&placement.deny_operators, &machine.operator)
        && !region.is_some_and(|region| named(&placement.deny_regions, region))
}
