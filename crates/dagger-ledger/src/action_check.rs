//! The forms and bounds of an action's values, as far as they need no ledger.

use crate::action::{
    Action, ImageShare, KeyDelegate, Labels, NO_OVERCOMMIT, OperatorKeys, Placement,
    ProposedChange, Publish, Report, VmCreate,
};
use crate::code::Code;
use crate::names::{check_key, check_label, check_ssh_key, check_text};

/// Largest number of virtual CPUs of a VM or machine.
pub const VCPUS_MAX: u32 = 4_096;
/// Largest memory of a VM or machine: 64 TiB.
pub const MEMORY_MIB_MAX: u64 = 1 << 26;
/// Largest disk of a VM or machine: 4 PiB.
pub const DISK_MIB_MAX: u64 = 1 << 32;
/// Most virtual CPUs that a machine may promise for each thousand processors.
pub const CPU_PERMILLE_MAX: u32 = 16_000;
/// Most labels of one object.
pub const LABELS_MAX: usize = 32;
/// Most SSH keys of a VM.
pub const SSH_KEYS_MAX: usize = 16;
/// Most ports that one VM publishes.
pub const PUBLISH_MAX: usize = 16;
/// Most names in one list of a placement.
pub const PLACEMENT_NAMES_MAX: usize = 64;
/// Most accounts that an image is shared with.
pub const SHARES_MAX: usize = 256;
/// Largest sealed user-data: 1 MiB.
pub const USER_DATA_BYTES_MAX: u64 = 1 << 20;
/// Most machines that one attestation names.
pub const ATTEST_MACHINES_MAX: usize = 8_192;

type Checked = Result<(), (Code, &'static str)>;

fn at(field: &'static str) -> impl Fn(Code) -> (Code, &'static str) {
    move |code| (code, field)
}

fn within(value: u64, max: u64, field: &'static str) -> Checked {
    if value == 0 || value > max {
        Err((Code::OutOfRange, field))
    } else {
        Ok(())
    }
}

fn sizes(vcpus: u32, memory_mib: u64, disk_mib: u64) -> Checked {
    within(vcpus.into(), VCPUS_MAX.into(), "vcpus")?;
    within(memory_mib, MEMORY_MIB_MAX, "memory_mib")?;
    within(disk_mib, DISK_MIB_MAX, "disk_mib")
}

fn overcommit(permille: u32) -> Checked {
    if (NO_OVERCOMMIT..=CPU_PERMILLE_MAX).contains(&permille) {
        Ok(())
    } else {
        Err((Code::OutOfRange, "cpu_permille"))
    }
}

fn labels(labels: &Labels) -> Checked {
    if labels.len() > LABELS_MAX {
        return Err((Code::TooMany, "labels"));
    }
    for (name, value) in labels {
        check_label(name).map_err(at("labels"))?;
        check_text(value, 128).map_err(at("labels"))?;
    }
    Ok(())
}

impl Action {
    /// Forms and bounds; the error names the field.
    pub(crate) fn check(&self) -> Checked {
        match self {
            Action::AccountCreate(a) => {
                check_label(&a.account).map_err(at("account"))?;
                check_key(&a.key).map_err(at("key"))
            }
            Action::MachineAdd(a) => {
                check_label(&a.machine).map_err(at("machine"))?;
                check_key(&a.node_key).map_err(at("node_key"))?;
                sizes(a.vcpus, a.memory_mib, a.disk_mib)?;
                overcommit(a.cpu_permille)?;
                labels(&a.labels)
            }
            Action::MachineDrain(a) | Action::MachineUndrain(a) | Action::MachineRemove(a) => {
                check_label(&a.machine).map_err(at("machine"))
            }
            Action::MachineUpdate(a) => {
                check_label(&a.machine).map_err(at("machine"))?;
                sizes(a.vcpus, a.memory_mib, a.disk_mib)?;
                overcommit(a.cpu_permille)?;
                labels(&a.labels)
            }
            Action::Propose(a) => proposed_change(&a.change),
            Action::Vote(_) | Action::OperatorLeave(_) => Ok(()),
            Action::OperatorKeys(a) => operator_keys(a),
            Action::MachineKey(a) => {
                check_label(&a.machine).map_err(at("machine"))?;
                check_key(&a.node_key).map_err(at("node_key"))
            }
            Action::Equivocation(a) => {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if a.proof.len() % 2 == 0 && a.proof.bytes().all(hex) {
                    Ok(())
                } else {
                    Err((Code::BadText, "proof"))
                }
            }
            Action::AccountQuota(a) => check_label(&a.account).map_err(at("account")),
            Action::AccountRotate(a) => check_key(&a.key).map_err(at("key")),
            Action::KeyDelegate(a) => key_delegate(a),
            Action::KeyRevoke(_) => Ok(()),
            Action::ImageAttest(a) => {
                let (account, image) = a.image.split_once('/').unwrap_or(("", ""));
                check_label(account).map_err(at("image"))?;
                check_label(image).map_err(at("image"))
            }
            Action::ImagePublish(a) => {
                check_label(&a.image).map_err(at("image"))?;
                a.manifest.check().map_err(at("manifest"))
            }
            Action::ImageShare(a) => image_share(a),
            Action::ImageRetire(a) => check_label(&a.image).map_err(at("image")),
            Action::VmCreate(a) => vm_create(a),
            Action::VmDelete(a) | Action::VmStop(a) | Action::VmStart(a) | Action::VmReboot(a) => {
                check_label(&a.vm).map_err(at("vm"))
            }
            Action::VmRename(a) => {
                check_label(&a.vm).map_err(at("vm"))?;
                check_label(&a.name).map_err(at("name"))
            }
            Action::VmResize(a) => {
                check_label(&a.vm).map_err(at("vm"))?;
                sizes(a.vcpus, a.memory_mib, a.disk_mib)
            }
            Action::VmPlace(a) => {
                check_label(&a.vm).map_err(at("vm"))?;
                placement(&a.placement)
            }
            Action::AccountAdopt(a) => check_label(&a.account).map_err(at("account")),
            Action::VmDispute(a) => {
                check_label(&a.vm).map_err(at("vm"))?;
                check_text(&a.claim, 256).map_err(at("claim"))
            }
            Action::VmProbe(a) => check_text(&a.detail, 256).map_err(at("detail")),
            Action::VmReport(a) => report(&a.report),
            Action::Attest(a) => {
                if a.hears.len() + a.lost.len() > ATTEST_MACHINES_MAX {
                    return Err((Code::TooMany, "hears"));
                }
                Ok(())
            }
        }
    }
}

fn image_share(share: &ImageShare) -> Checked {
    check_label(&share.image).map_err(at("image"))?;
    for (names, field) in [(&share.with, "with"), (&share.without, "without")] {
        if names.len() > SHARES_MAX {
            return Err((Code::TooMany, field));
        }
        for name in names {
            check_label(name).map_err(at(field))?;
        }
    }
    if share.with.is_empty() && share.without.is_empty() {
        return Err((Code::MissingField, "with"));
    }
    Ok(())
}

fn vm_create(create: &VmCreate) -> Checked {
    check_label(&create.name).map_err(at("name"))?;
    let (account, image) = create
        .image
        .split_once('/')
        .unwrap_or(("own", &create.image));
    check_label(account).map_err(at("image"))?;
    check_label(image).map_err(at("image"))?;
    sizes(create.vcpus, create.memory_mib, create.disk_mib)?;
    if create.ssh_keys.len() > SSH_KEYS_MAX {
        return Err((Code::TooMany, "ssh_keys"));
    }
    for key in &create.ssh_keys {
        check_ssh_key(key).map_err(at("ssh_keys"))?;
    }
    if let Some(spread) = &create.spread {
        check_label(spread).map_err(at("spread"))?;
    }
    if create.on_isolation == crate::action::OnIsolation::Keep
        && create.failover != crate::action::Failover::None
    {
        return Err((Code::KeepNeedsNoFailover, "on_isolation"));
    }
    placement(&create.placement)?;
    if let Some(data) = &create.user_data {
        within(data.size_bytes, USER_DATA_BYTES_MAX, "user_data")?;
        if data.keys.is_empty() || data.keys.len() > PLACEMENT_NAMES_MAX {
            return Err((Code::TooMany, "user_data"));
        }
        for key in &data.keys {
            check_label(&key.machine).map_err(at("user_data"))?;
            let hex = key
                .wrapped
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !hex || key.wrapped.len() > 512 {
                return Err((Code::BadText, "user_data"));
            }
        }
    }
    publish(&create.publish)?;
    labels(&create.labels)
}

/// Each port of the guest once, each port of the machine once.
fn publish(ports: &[Publish]) -> Checked {
    if ports.len() > PUBLISH_MAX {
        return Err((Code::TooMany, "publish"));
    }
    for (at, port) in ports.iter().enumerate() {
        within(port.guest_port.into(), u16::MAX.into(), "publish")?;
        within(
            port.host_port.unwrap_or(1).into(),
            u16::MAX.into(),
            "publish",
        )?;
        let twice = |earlier: &Publish| {
            earlier.guest_port == port.guest_port
                || (earlier.host_port.is_some() && earlier.host_port == port.host_port)
        };
        if ports[..at].iter().any(twice) {
            return Err((Code::PortTwice, "publish"));
        }
    }
    Ok(())
}

fn placement(placement: &Placement) -> Checked {
    for names in placement.lists() {
        if names.len() > PLACEMENT_NAMES_MAX {
            return Err((Code::TooMany, "placement"));
        }
        for name in names {
            check_label(name).map_err(at("placement"))?;
        }
    }
    Ok(())
}

fn proposed_change(change: &ProposedChange) -> Checked {
    match change {
        ProposedChange::OperatorAdd(add) => {
            check_label(&add.name).map_err(at("name"))?;
            for key in [&add.operator_key, &add.consensus_key, &add.node_key] {
                check_key(key).map_err(at("*_key"))?;
            }
            if add.operator_key == add.consensus_key
                || add.operator_key == add.node_key
                || add.consensus_key == add.node_key
            {
                return Err((Code::KeyInUse, "*_key"));
            }
            check_text(add.address.as_deref().unwrap_or(""), 512).map_err(at("address"))?;
            within(add.weight, u32::MAX.into(), "weight")
        }
        ProposedChange::OperatorRemove(of)
        | ProposedChange::OperatorRemoveAnyway(of)
        | ProposedChange::OperatorReseat(of) => check_label(&of.operator).map_err(at("operator")),
        ProposedChange::Parameters(change) if change.is_empty() => {
            Err((Code::MissingField, "parameters"))
        }
        // Bounds tie parameters to one another: those in force decide.
        ProposedChange::Parameters(_) => Ok(()),
        ProposedChange::Allocation(of) => check_label(&of.operator).map_err(at("operator")),
        ProposedChange::ProtocolVersion(to) => within(to.version.into(), 1_000_000, "version"),
    }
}

fn operator_keys(keys: &OperatorKeys) -> Checked {
    let named: Vec<_> = [keys.operator_key, keys.consensus_key, keys.node_key]
        .into_iter()
        .flatten()
        .collect();
    if named.is_empty() && keys.address.is_none() {
        return Err((Code::MissingField, "*_key"));
    }
    for (i, key) in named.iter().enumerate() {
        check_key(key).map_err(at("*_key"))?;
        if named[..i].contains(key) {
            return Err((Code::KeyInUse, "*_key"));
        }
    }
    check_text(keys.address.as_deref().unwrap_or(""), 512).map_err(at("address"))
}

/// What a delegated key may be allowed: what an account does with images and VMs.
pub const DELEGABLE: [&str; 12] = [
    "image_publish",
    "image_share",
    "image_retire",
    "vm_create",
    "vm_delete",
    "vm_stop",
    "vm_start",
    "vm_reboot",
    "vm_rename",
    "vm_resize",
    "vm_place",
    "vm_dispute",
];

fn key_delegate(delegate: &KeyDelegate) -> Checked {
    check_key(&delegate.key).map_err(at("key"))?;
    if delegate.actions.is_empty() || delegate.actions.len() > DELEGABLE.len() {
        return Err((Code::TooMany, "actions"));
    }
    if delegate
        .actions
        .iter()
        .any(|action| !DELEGABLE.contains(&action.as_str()))
    {
        return Err((Code::UnknownAction, "actions"));
    }
    if delegate.vms.len() > PLACEMENT_NAMES_MAX {
        return Err((Code::TooMany, "vms"));
    }
    for vm in &delegate.vms {
        check_label(vm).map_err(at("vms"))?;
    }
    Ok(())
}

fn report(report: &Report) -> Checked {
    match report {
        Report::Accepted(r) => check_ssh_key(&r.ssh_host_key).map_err(at("ssh_host_key")),
        Report::Starting(r) => {
            check_label(&r.accelerator).map_err(at("accelerator"))?;
            check_text(&r.reason, 256).map_err(at("reason"))?;
            check_text(&r.image_source, 256).map_err(at("image_source"))
        }
        Report::Running(r) => {
            if r.published.len() > PUBLISH_MAX {
                return Err((Code::TooMany, "published"));
            }
            for port in &r.published {
                check_text(port.address.as_deref().unwrap_or(""), 128).map_err(at("published"))?;
                if let Some(problem) = &port.problem {
                    check_text(&problem.code, 64).map_err(at("published"))?;
                    check_text(&problem.text, 256).map_err(at("published"))?;
                }
            }
            check_text(r.address.as_deref().unwrap_or(""), 128).map_err(at("address"))
        }
        Report::Stopped(r) | Report::Failed(r) => {
            check_text(&r.code, 64).map_err(at("code"))?;
            check_text(&r.text, 512).map_err(at("text"))
        }
    }
}
