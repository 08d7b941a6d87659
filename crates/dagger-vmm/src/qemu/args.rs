//! QEMU's command line: a pure function of the specification and the accelerator.
//!
//! Nothing the customer chose reaches QEMU's option parser unescaped: disks are given as JSON, names come from numbers.
//! Standard input is the control channel, standard output the serial console (both sockets, made by the shim). Paths of
//! the instance are relative to its directory, which is QEMU's working directory.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use crate::qemu::aio::Aio;
use crate::seed::mac_address;
use crate::spec::{Accelerator, BootSource, DiskFormat, Firmware, InstanceSpec, Profile};

/// The instance's own disk, in its directory.
pub const DISK_FILE: &str = "disk.qcow2";
/// The seed disk, in the instance's directory.
pub const SEED_FILE: &str = "seed.img";
/// Where UEFI keeps its variables, in the instance's directory.
pub const UEFI_VARS_FILE: &str = "uefi-vars.fd";
/// Debian's UEFI firmware.
pub const UEFI_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The variables it starts with.
pub const UEFI_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Translated code a TCG guest may keep, MiB. QEMU's own default grows to a gigabyte per guest.
const TCG_CACHE_MIB: u32 = 128;

/// The arguments, without the program. `internet`: QEMU runs in a namespace from which nothing private can be reached.
pub fn arguments(
    spec: &InstanceSpec,
    accelerator: Accelerator,
    internet: bool,
    aio: Aio,
) -> Vec<OsString> {
    let profile = effective_profile(spec.profile, accelerator);
    let mut out: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: &str| out.extend([option.into(), value.into()]);
    add("-name", &format!("vm-{}", spec.id));
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    add("-display", "none");
    add("-machine", machine(profile));
    match accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm");
            add("-cpu", "host");
        }
        Accelerator::Tcg => {
            let threads = if spec.vcpus > 1 { "multi" } else { "single" };
            add(
                "-accel",
                &format!("tcg,thread={threads},tb-size={TCG_CACHE_MIB}"),
            );
            add("-cpu", "max");
        }
    }
    add(
        "-smp",
        &format!("cpus={0},sockets=1,cores={0},threads=1", spec.vcpus),
    );
    add("-m", &format!("size={}M", spec.memory_mib));
    add("-rtc", "base=utc,clock=host");
    add("-chardev", "socket,id=qmp,fd=0");
    add("-mon", "chardev=qmp,mode=control");
    add("-chardev", "socket,id=console,fd=1");
    add("-serial", "chardev:console");
    add("-object", "rng-builtin,id=entropy");
    add("-device", &device(profile, "virtio-rng", "rng=entropy"));
    disks(spec, profile, aio, &mut add);
    // `restrict` keeps the guest off everything but the ports forwarded to it: no host, no private network, no internet.
    let restrict = if internet { "off" } else { "on" };
    add(
        "-netdev",
        &format!("user,id=net,restrict={restrict},ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"),
    );
    let no_rom = if profile == Profile::Q35 {
        ",romfile="
    } else {
        ""
    };
    add(
        "-device",
        &device(
            profile,
            "virtio-net",
            &format!("netdev=net,mac={}{no_rom}", mac_address(spec)),
        ),
    );
    if profile == Profile::Q35 {
        add("-device", "pvpanic-pci");
    }
    out.extend(["-nodefaults".into(), "-no-user-config".into()]);
    boot(&spec.boot, &mut out);
    out
}

/// microvm has only hardware-reduced ACPI and so, without KVM's clock, no timer that a stock kernel could calibrate its
/// own against: it hangs there. Emulated guests get q35; their devices are virtio either way.
fn effective_profile(asked: Profile, accelerator: Accelerator) -> Profile {
    match accelerator {
        Accelerator::Kvm => asked,
        Accelerator::Tcg => Profile::Q35,
    }
}

fn machine(profile: Profile) -> &'static str {
    match profile {
        Profile::Q35 => "q35,hpet=off,vmport=off,smm=off,dump-guest-core=off",
        Profile::Microvm => {
            "microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=on,dump-guest-core=off"
        }
    }
}

fn device(profile: Profile, name: &str, rest: &str) -> String {
    let transport = match profile {
        Profile::Q35 => "pci",
        Profile::Microvm => "device",
    };
    format!("{name}-{transport},{rest}")
}

fn disks(spec: &InstanceSpec, profile: Profile, aio: Aio, add: &mut impl FnMut(&str, &str)) {
    let mut disk = json!({
        "node-name": "disk", "driver": "qcow2", "discard": "unmap",
        "file": {
            "driver": "file", "filename": DISK_FILE, "discard": "unmap", "aio": aio.as_str(),
        },
    });
    if let BootSource::Disk { base, format, .. } = &spec.boot {
        add("-blockdev", &base_node(base, *format).to_string());
        disk["backing"] = "base".into();
    }
    add("-blockdev", &disk.to_string());
    let seed = json!({
        "node-name": "seed", "driver": "raw", "read-only": true,
        "file": { "driver": "file", "filename": SEED_FILE, "read-only": true },
    });
    add("-blockdev", &seed.to_string());
    let boot_index = if matches!(spec.boot, BootSource::Disk { .. }) {
        ",bootindex=1"
    } else {
        ""
    };
    add(
        "-device",
        &device(
            profile,
            "virtio-blk",
            &format!("drive=disk,serial=disk{boot_index}"),
        ),
    );
    add(
        "-device",
        &device(profile, "virtio-blk", "drive=seed,serial=seed"),
    );
}

/// The image: read-only, its format as declared; a qcow2 may not bring a backing file of its own.
fn base_node(base: &Path, format: DiskFormat) -> Value {
    let mut node = json!({
        "node-name": "base", "driver": format.as_str(), "read-only": true,
        "file": { "driver": "file", "filename": base.to_string_lossy(), "read-only": true },
    });
    if format == DiskFormat::Qcow2 {
        node["backing"] = Value::Null;
    }
    node
}

fn boot(source: &BootSource, out: &mut Vec<OsString>) {
    match source {
        BootSource::Direct {
            kernel,
            initrd,
            cmdline,
        } => {
            out.extend([
                "-kernel".into(),
                kernel.into(),
                "-append".into(),
                cmdline.into(),
            ]);
            if let Some(initrd) = initrd {
                // QEMU reads `-initrd` as one file name on PC machines (a comma would list several only for multiboot).
                out.extend(["-initrd".into(), initrd.into()]);
            }
        }
        BootSource::Disk {
            firmware: Firmware::Bios,
            ..
        } => out.extend(["-boot".into(), "strict=on".into()]),
        BootSource::Disk {
            firmware: Firmware::Uefi,
            ..
        } => {
            for (unit, (file, read_only)) in [(UEFI_CODE, "on"), (UEFI_VARS_FILE, "off")]
                .into_iter()
                .enumerate()
            {
                let drive =
                    format!("if=pflash,unit={unit},format=raw,readonly={read_only},file={file}");
                out.extend(["-drive".into(), drive.into()]);
            }
        }
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
