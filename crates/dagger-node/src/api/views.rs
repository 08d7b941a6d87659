//! The ledger's records as the API shows them: numbers become names, enums become words. What commits did is in `commit_views.rs`.

use dagger_client::api::{
    AccountView, CandidateView, DelegationView, DisputeView, ExplanationView, ImageView,
    MachineView, OperatorView, ProbeView, PublishedView, Reason, Resources, VmEvent, VmView,
};
use dagger_ledger as ledger;
use dagger_ledger::{Boot, Filter, Ledger, MachineId, VmId};
use serde::Serialize;

/// The word that an enum of the ledger has in JSON.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => unreachable!("the ledger's enums are plain JSON: {error}"),
    }
}

fn resources(amounts: &ledger::Resources) -> Resources {
    Resources {
        vcpus: amounts.vcpus,
        memory_mib: amounts.memory_mib,
        disk_mib: amounts.disk_mib,
    }
}

fn member_name(ledger: &Ledger, seat: u16) -> String {
    let holder = ledger
        .operators()
        .find(|operator| operator.member == Some(seat));
    holder.map_or_else(|| format!("seat {seat}"), |operator| operator.name.clone())
}

pub(super) fn machine_name(ledger: &Ledger, id: MachineId) -> String {
    ledger
        .machine(id)
        .map_or_else(|| format!("machine {id}"), |machine| machine.name.clone())
}

pub(super) fn vm_name(ledger: &Ledger, id: VmId) -> String {
    let Some(vm) = ledger.vm(id) else {
        return format!("#{id}");
    };
    let account = ledger
        .account(vm.account)
        .map_or("?", |account| account.name.as_str());
    format!("{account}/{}", vm.spec.name)
}

pub(super) fn operators(ledger: &Ledger) -> Vec<OperatorView> {
    let mut views: Vec<OperatorView> = ledger
        .operators()
        .map(|operator| OperatorView {
            id: operator.id.0,
            name: operator.name.clone(),
            operator_key: operator.operator_key.to_hex(),
            seat: operator.member,
            weight: operator.weight,
            machines: 0,
            accounts: 0,
            vms: 0,
        })
        .collect();
    let mut add = |id: ledger::OperatorId, machines: u32, accounts: u32, vms: u32| {
        if let Some(view) = views.iter_mut().find(|view| view.id == id.0) {
            view.machines += machines;
            view.accounts += accounts;
            view.vms += vms;
        }
    };
    ledger
        .machines()
        .for_each(|machine| add(machine.operator, 1, 0, machine.vms));
    ledger
        .accounts()
        .for_each(|account| add(account.sponsor, 0, 1, 0));
    views
}

pub(super) fn machine(ledger: &Ledger, machine: &ledger::MachineRecord) -> MachineView {
    let heard = machine.heard_by.iter().filter(|heard| heard.standing);
    MachineView {
        id: machine.id.0,
        name: machine.name.clone(),
        operator: operator_name(ledger, machine.operator),
        node_key: machine.node_key.to_hex(),
        arch: machine.arch.as_str().to_owned(),
        state: match machine.state {
            ledger::MachineState::Joining => "joining",
            ledger::MachineState::Up if machine.draining => "draining",
            ledger::MachineState::Up => "ready",
            ledger::MachineState::Lost => "lost",
        }
        .to_owned(),
        capacity: resources(&machine.capacity),
        cpu_permille: machine.cpu_permille,
        used: resources(&machine.used),
        labels: machine.labels.clone(),
        vms: machine.vms,
        heard_by: heard
            .map(|heard| member_name(ledger, heard.member))
            .collect(),
        state_since_ms: machine.state_since_ms,
        lapses: machine.lapses,
        disputes_upheld: machine.disputes_upheld,
    }
}

pub(super) fn operator_name(ledger: &Ledger, id: ledger::OperatorId) -> String {
    ledger.operator(id).map_or_else(
        || format!("operator {id}"),
        |operator| operator.name.clone(),
    )
}

pub(super) fn accounts(ledger: &Ledger) -> Vec<AccountView> {
    ledger
        .accounts()
        .map(|account| AccountView {
            id: account.id.0,
            name: account.name.clone(),
            key: account.key.to_hex(),
            sponsor: operator_name(ledger, account.sponsor),
            vms: count(ledger.vms_of(account.id)),
            images: count(ledger.images().filter(|image| image.account == account.id)),
            delegations: account.delegations.iter().map(delegation).collect(),
        })
        .collect()
}

fn delegation(delegation: &ledger::Delegation) -> DelegationView {
    DelegationView {
        key: delegation.key.to_hex(),
        actions: delegation.actions.clone(),
        vms: delegation.vms.clone(),
        until_ms: delegation.until_ms,
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

pub(super) fn image(ledger: &Ledger, image: &ledger::ImageRecord) -> ImageView {
    ImageView {
        id: image.id.0,
        name: image_name(ledger, image.id),
        digest: image.digest.to_hex(),
        arch: image.manifest.arch.as_str().to_owned(),
        boot: match image.manifest.boot {
            Boot::Direct(_) => "direct".to_owned(),
            Boot::Disk(_) => "disk".to_owned(),
        },
        size_bytes: image
            .manifest
            .blobs()
            .iter()
            .map(|blob| blob.size_bytes)
            .sum(),
        retired: image.retired,
        private: image.private,
        shared_with: image
            .shared_with
            .iter()
            .filter_map(|id| Some(ledger.account(*id)?.name.clone()))
            .collect(),
        replicas: image
            .replicas
            .iter()
            .map(|id| operator_name(ledger, *id))
            .collect(),
        manifest: serde_json::to_value(&image.manifest).expect("a manifest is plain JSON"),
    }
}

pub(super) fn image_name(ledger: &Ledger, id: ledger::ImageId) -> String {
    ledger
        .image(id)
        .map_or_else(|| format!("image {id}"), |image| image.name.clone())
}

pub(super) fn vm(ledger: &Ledger, vm: &ledger::VmRecord) -> VmView {
    let machine = vm.machine.and_then(|id| ledger.machine(id));
    VmView {
        id: vm.id.0,
        name: vm.spec.name.clone(),
        account: ledger
            .account(vm.account)
            .map_or_else(String::new, |account| account.name.clone()),
        image: image_name(ledger, vm.spec.image),
        image_digest: vm.spec.image_digest.to_hex(),
        resources: resources(&vm.spec.size),
        failover: word(&vm.spec.failover),
        on_isolation: word(&vm.spec.on_isolation),
        restart: word(&vm.spec.restart),
        restarts: vm.restarts,
        labels: vm.spec.labels.clone(),
        phase: vm.phase.as_str().to_owned(),
        phase_since_ms: vm.phase_since_ms,
        reason: vm_reason(vm),
        machine: vm.machine.map(|id| machine_name(ledger, id)),
        operator: machine.map(|machine| operator_name(ledger, machine.operator)),
        lease_epoch: vm.lease_epoch,
        ssh_host_key: vm.ssh_host_key.clone(),
        accelerator: vm
            .started
            .as_ref()
            .map(|started| started.accelerator.clone()),
        accelerator_reason: vm.started.as_ref().map(|started| started.reason.clone()),
        image_source: vm
            .started
            .as_ref()
            .map(|started| started.image_source.clone()),
        address: vm.address.clone(),
        published: published(vm),
        created_ms: vm.created_ms,
        created_commit: vm.created_commit,
        history: vm
            .history
            .iter()
            .map(|entry| vm_event(ledger, entry))
            .collect(),
        dispute: vm.dispute.as_deref().map(|d| dispute(ledger, d)),
    }
}

/// What was asked, with what its machine says of it while it runs.
fn published(vm: &ledger::VmRecord) -> Vec<PublishedView> {
    let runs = vm.phase == ledger::Phase::Running;
    let said = |port: u16| {
        let mut said = vm.ports.opened.iter().filter(|_| runs);
        said.find(|published| published.guest_port == port)
    };
    let view = |publish: &ledger::Publish| {
        let said = said(publish.guest_port);
        let problem = said.and_then(|said| said.problem.as_ref());
        PublishedView {
            guest_port: publish.guest_port,
            host_port: publish.host_port,
            address: said.and_then(|said| said.address.clone()),
            problem: problem.map(|problem| Reason {
                code: problem.code.clone(),
                text: problem.text.clone(),
            }),
        }
    };
    vm.ports.asked.iter().map(view).collect()
}

fn dispute(ledger: &Ledger, dispute: &ledger::DisputeRecord) -> DisputeView {
    let open = dispute.status == ledger::DisputeStatus::Open;
    let left_ms = dispute
        .deadline_active_ms
        .saturating_sub(ledger.active_ms());
    let probe = |probe: &ledger::Probe| ProbeView {
        operator: operator_name(ledger, probe.operator),
        reached: probe.reached,
        detail: probe.detail.clone(),
        time_ms: probe.time_ms,
    };
    DisputeView {
        status: word(&dispute.status),
        claim: dispute.claim.clone(),
        machine: machine_name(ledger, dispute.machine),
        opened_ms: dispute.opened_ms,
        closed_ms: dispute.closed_ms,
        deadline_ms: open.then(|| ledger.time_ms() + left_ms),
        waits_for: dispute
            .waits_for()
            .filter(|_| open)
            .map(|rival| operator_name(ledger, rival))
            .collect(),
        probes: dispute.probes.iter().map(probe).collect(),
    }
}

fn vm_reason(vm: &ledger::VmRecord) -> Reason {
    use ledger::Phase::{Failed, Pending, Stopped};
    match &vm.ended {
        Some(ended) if matches!(vm.phase, Failed | Pending | Stopped) => Reason {
            code: ended.code.clone(),
            text: ended.text.clone(),
        },
        _ => Reason {
            code: word(&vm.reason),
            text: reason_text(vm.reason).to_owned(),
        },
    }
}

fn vm_event(ledger: &Ledger, entry: &ledger::HistoryEntry) -> VmEvent {
    VmEvent {
        commit: entry.commit,
        time_ms: entry.time_ms,
        phase: entry.phase.as_str().to_owned(),
        lease_epoch: entry.lease_epoch,
        machine: entry.machine.map(|id| machine_name(ledger, id)),
        code: word(&entry.reason),
        text: reason_text(entry.reason).to_owned(),
    }
}

pub(super) fn reason_text(reason: ledger::Reason) -> &'static str {
    use ledger::Reason as R;
    match reason {
        R::Requested => "its owner asked for it",
        R::Reported => "its machine reported it",
        R::LeaseLapsed => "the machine's lease lapsed: its rivals no longer hear it",
        R::NotAccepted => "the machine did not accept it in time",
        R::NotStarted => "the machine did not have it running in time",
        R::NotStopped => "the machine did not report it stopped in time",
        R::MachineFailed => "the machine reported that it cannot run it",
        R::AttemptsExhausted => "as many machines as are tried could not run it",
        R::NoMachineFits => "no machine fits at present; it is tried again",
        R::RoomFound => "room was found",
        R::MachineReturned => "its lost machine came back",
        R::Draining => "its machine drains",
        R::Restarted => "it stopped of itself and is started again",
        R::DisputeUpheld => "rivals of its host could not reach it, as its owner claimed",
    }
}

pub(super) fn explanation(
    ledger: &Ledger,
    vm: &ledger::VmRecord,
    explanation: &ledger::Explanation,
) -> ExplanationView {
    let fitting = explanation
        .machines
        .iter()
        .filter(|verdict| verdict.filtered.is_empty())
        .count();
    let of = explanation.machines.len();
    let best = explanation
        .machines
        .iter()
        .find(|verdict| Some(verdict.machine) == explanation.chosen);
    ExplanationView {
        commit: explanation.commit,
        machine: vm.machine.map(|id| machine_name(ledger, id)),
        chosen: explanation.chosen.map(|id| machine_name(ledger, id)),
        summary: match best {
            Some(best) => format!(
                "{} is the best of {fitting} machines that fit, of {of}: {}",
                best.name,
                join(&verdict_reasons(best))
            ),
            None => format!("none of {of} machines fits"),
        },
        candidates: explanation
            .machines
            .iter()
            .map(|verdict| CandidateView {
                machine: verdict.name.clone(),
                operator: operator_name(ledger, verdict.operator),
                fits: verdict.filtered.is_empty(),
                reasons: verdict_reasons(verdict),
            })
            .collect(),
    }
}

fn join(reasons: &[Reason]) -> String {
    let texts: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    texts.join(", ")
}

fn verdict_reasons(verdict: &ledger::MachineVerdict) -> Vec<Reason> {
    if !verdict.filtered.is_empty() {
        let reasons = verdict.filtered.iter();
        return reasons
            .map(|filter| Reason {
                code: word(filter),
                text: filter_text(*filter).to_owned(),
            })
            .collect();
    }
    let mut reasons = vec![Reason {
        code: "spread".to_owned(),
        text: format!(
            "{} VMs of its group with that operator",
            verdict.spread_count
        ),
    }];
    if let Some(left) = verdict.left_memory_mib {
        reasons.push(Reason {
            code: "left_memory".to_owned(),
            text: format!("{left} MiB memory left"),
        });
    }
    if let Some(left) = verdict.left_vcpus {
        reasons.push(Reason {
            code: "left_vcpus".to_owned(),
            text: format!("{left} vcpus left"),
        });
    }
    if let Some(left) = verdict.left_disk_mib {
        reasons.push(Reason {
            code: "left_disk".to_owned(),
            text: format!("{left} MiB disk left"),
        });
    }
    reasons
}

fn filter_text(filter: Filter) -> &'static str {
    match filter {
        Filter::NotUp => "too few rivals hear it",
        Filter::Draining => "it drains",
        Filter::Flapping => "its lease lapsed again and again; it must stand for a while first",
        Filter::Arch => "it has another architecture",
        Filter::Vcpus => "too few processors are free",
        Filter::Memory => "too little memory is free",
        Filter::Disk => "too little disk is free",
        Filter::NotNamed => "the request names other machines",
        Filter::OperatorNotNamed => "the request names other operators",
        Filter::RegionNotNamed => "the request names other regions",
        Filter::Denied => "the request denies it",
        Filter::NoUserDataKey => "the user-data's key is not wrapped to it",
        Filter::Refused => "it let this placement fail before",
    }
}
