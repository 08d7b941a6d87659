//! `dagger vm list`, `show` and `explain`.

use crate::args::ListArgs;
use crate::context::Context;
use crate::failure::Done;
use crate::output::{self, Listing};
use dagger_client::api::{ExplanationView, PublishedView, VmView};

pub async fn list(context: &Context, args: &ListArgs) -> Done {
    let connection = context.connect().await?;
    let vms = match args.all {
        true => connection.client.vms(None).await?,
        false => {
            let account = context.account(&connection).await?.1.name;
            connection.client.vms(Some(&account)).await?
        }
    };
    if context.json() {
        return output::json(&vms);
    }
    let columns = [
        "NAME", "PHASE", "FOR", "MACHINE", "OPERATOR", ">EPOCH", "IMAGE", ">VCPUS", ">MEMORY",
        ">DISK",
    ];
    let mut listing = Listing::new(&columns, "no VMs yet; create one with `dagger vm create`");
    for vm in vms {
        listing.row([
            if args.all {
                format!("{}/{}", vm.account, vm.name)
            } else {
                vm.name
            },
            vm.phase,
            output::ago(connection.status.now_ms, vm.phase_since_ms),
            vm.machine.unwrap_or_else(|| "-".to_owned()),
            vm.operator.unwrap_or_else(|| "-".to_owned()),
            vm.lease_epoch.to_string(),
            vm.image,
            vm.resources.vcpus.to_string(),
            output::mib(vm.resources.memory_mib),
            output::mib(vm.resources.disk_mib),
        ]);
    }
    listing.print()
}

pub async fn show(context: &Context, name: &str) -> Done {
    let connection = context.connect().await?;
    let vm = context.vm(&connection, name).await?;
    if context.json() {
        return output::json(&vm);
    }
    describe(&vm)?;
    output::line("")?;
    let mut listing = Listing::new(
        &["TIME", ">COMMIT", "PHASE", ">EPOCH", "MACHINE", "WHY"],
        "no history",
    );
    for event in &vm.history {
        listing.row([
            output::clock(event.time_ms),
            event.commit.to_string(),
            event.phase.clone(),
            event.lease_epoch.to_string(),
            event.machine.clone().unwrap_or_else(|| "-".to_owned()),
            event.text.clone(),
        ]);
    }
    listing.print()
}

fn describe(vm: &VmView) -> Done {
    let labels: Vec<String> = vm
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    output::fields(&[
        ("vm", format!("{}/{} (id {})", vm.account, vm.name, vm.id)),
        (
            "phase",
            format!("{}: {} [{}]", vm.phase, vm.reason.text, vm.reason.code),
        ),
        ("machine", place(vm)),
        ("lease epoch", vm.lease_epoch.to_string()),
        ("image", format!("{}, digest {}", vm.image, vm.image_digest)),
        ("fetched from", vm.image_source.clone().unwrap_or_default()),
        ("size", size(vm)),
        ("accelerator", accelerator(vm)),
        (
            "failover",
            format!(
                "{}; {} when isolated; restart {}",
                vm.failover, vm.on_isolation, vm.restart
            ),
        ),
        ("ssh host key", vm.ssh_host_key.clone().unwrap_or_default()),
        ("address", vm.address.clone().unwrap_or_default()),
        ("published", published(vm)),
        ("labels", labels.join(", ")),
        ("dispute", dispute(vm)),
        (
            "created",
            format!(
                "{} at commit {}",
                output::date(vm.created_ms),
                vm.created_commit
            ),
        ),
    ])
}

/// Where ports of the guest are open, or why they are not.
fn published(vm: &VmView) -> String {
    let port = |port: &PublishedView| match (&port.address, &port.problem) {
        (Some(address), _) => format!("{} at {address}", port.guest_port),
        (None, Some(problem)) => {
            format!(
                "{} nowhere: {} [{}]",
                port.guest_port, problem.text, problem.code
            )
        }
        (None, None) => format!("{} once it runs", port.guest_port),
    };
    let ports: Vec<String> = vm.published.iter().map(port).collect();
    ports.join(", ")
}

/// The latest dispute: what came of it, who found what, and who must act.
fn dispute(vm: &VmView) -> String {
    let Some(dispute) = &vm.dispute else {
        return String::new();
    };
    let mut said = format!("{} (about {})", dispute.status, dispute.machine);
    for probe in &dispute.probes {
        let found = if probe.reached {
            "reached it"
        } else {
            "could not reach it"
        };
        said.push_str(&format!("; {} {found}: {}", probe.operator, probe.detail));
    }
    if !dispute.waits_for.is_empty() {
        said.push_str(&format!("; waits for {}", dispute.waits_for.join(", ")));
    }
    said
}

/// The machine and its operator.
pub fn place(vm: &VmView) -> String {
    match (&vm.machine, &vm.operator) {
        (Some(machine), Some(operator)) => format!("{machine} of operator {operator}"),
        (Some(machine), None) => machine.clone(),
        (None, _) => "none".to_owned(),
    }
}

/// Processors, memory and disk.
pub fn size(vm: &VmView) -> String {
    let resources = &vm.resources;
    let vcpus = match resources.vcpus {
        1 => "1 vcpu".to_owned(),
        many => format!("{many} vcpus"),
    };
    format!(
        "{vcpus}, {} memory, {} disk",
        output::mib(resources.memory_mib),
        output::mib(resources.disk_mib)
    )
}

/// The accelerator and why it is that one.
pub fn accelerator(vm: &VmView) -> String {
    match (&vm.accelerator, &vm.accelerator_reason) {
        (Some(accelerator), Some(reason)) => format!("{accelerator}: {reason}"),
        (Some(accelerator), None) => accelerator.clone(),
        (None, _) => String::new(),
    }
}

pub async fn explain(context: &Context, name: &str) -> Done {
    let connection = context.connect().await?;
    let (account, name) = context.qualify(&connection, name).await?;
    let explanation = connection.client.explain(&account, &name).await?;
    if context.json() {
        return output::json(&explanation);
    }
    let here = explanation.machine.as_deref().unwrap_or("no machine");
    let now = explanation.chosen.as_deref().unwrap_or("no machine");
    output::line(&format!(
        "vm {account}/{name} is on {here}; placed anew after commit {}, it would go to {now}.\n",
        explanation.commit
    ))?;
    let mut listing = Listing::new(
        &[">RANK", "MACHINE", "OPERATOR", "FITS", "WHY"],
        "no machines at all",
    );
    for (index, candidate) in explanation.candidates.iter().enumerate() {
        listing.row([
            if candidate.fits {
                (index + 1).to_string()
            } else {
                "-".to_owned()
            },
            candidate.machine.clone(),
            candidate.operator.clone(),
            if candidate.fits { "yes" } else { "no" }.to_owned(),
            reasons(&explanation, index),
        ]);
    }
    listing.print()
}

/// What placement says about one candidate.
pub fn reasons(explanation: &ExplanationView, index: usize) -> String {
    let texts: Vec<&str> = explanation.candidates[index]
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    texts.join(", ")
}
