//! QEMU's command line: a pure function of the specification and the accelerator.
//!
//! Nothing the customer chose reaches QEMU's option parser unescaped: disks are given as JSON, names come from numbers.
//! Standard input is the control channel, standard output the serial console (both sockets, made by the shim). Names of files of
//! an instance never reach QEMU: it is handed open files (`-add-fd`).

use std::ffi::OsString;
use std::os::fd::RawFd;

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

/// Open files, by what they are; see `shim/files.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    /// The instance's own disk, to read and write.
    pub disk: RawFd,
    /// The seed disk.
    pub seed: RawFd,
    /// The image under the disk.
    pub base: Option<RawFd>,
    /// Where UEFI keeps its variables, to read and write.
    pub uefi_vars: Option<RawFd>,
    /// The kernel of a direct boot.
    pub kernel: Option<RawFd>,
    /// Its initial ramdisk.
    pub initrd: Option<RawFd>,
}

/// The arguments, without the program. `internet`: QEMU runs in a namespace from which nothing private can be reached.
pub fn arguments(
    spec: &InstanceSpec,
    accelerator: Accelerator,
    internet: bool,
    aio: Aio,
    files: Handed,
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
    let opened = [
        Some(files.disk),
        Some(files.seed),
        files.base,
        files.uefi_vars,
    ];
    for number in opened.into_iter().flatten() {
        add("-add-fd", &format!("fd={number},set={number}"));
    }
    disks(spec, profile, aio, files, &mut add);
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
    boot(&spec.boot, files, &mut out);
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

/// What QEMU opens a handed file as.
fn handed(number: RawFd) -> String {
    format!("/dev/fdset/{number}")
}

fn disks(
    spec: &InstanceSpec,
    profile: Profile,
    aio: Aio,
    files: Handed,
    add: &mut impl FnMut(&str, &str),
) {
    let mut disk = json!({
        "node-name": "disk", "driver": "qcow2", "discard": "unmap",
        "file": {
            "driver": "file", "filename": handed(files.disk), "discard": "unmap", "aio": aio.as_str(),
        },
    });
    if let (BootSource::Disk { format, .. }, Some(base)) = (&spec.boot, files.base) {
        add("-blockdev", &base_node(base, *format).to_string());
        disk["backing"] = "base".into();
    }
    add("-blockdev", &disk.to_string());
    let seed = json!({
        "node-name": "seed", "driver": "raw", "read-only": true,
        "file": { "driver": "file", "filename": handed(files.seed), "read-only": true },
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
fn base_node(base: RawFd, format: DiskFormat) -> Value {
    let mut node = json!({
        "node-name": "base", "driver": format.as_str(), "read-only": true,
        "file": { "driver": "file", "filename": handed(base), "read-only": true },
    });
    if format == DiskFormat::Qcow2 {
        node["backing"] = Value::Null;
    }
    node
}

fn boot(source: &BootSource, files: Handed, out: &mut Vec<OsString>) {
    // QEMU reads kernels itself, by name; this one leads to the open file.
    let name =
        |number: Option<RawFd>| number.map(|number| format!("/proc/self/fd/{number}").into());
    match source {
        BootSource::Direct { cmdline, .. } => {
            out.extend(["-append".into(), cmdline.into()]);
            let images = [("-kernel", files.kernel), ("-initrd", files.initrd)];
            for (option, number) in images {
                out.extend(
                    name(number)
                        .into_iter()
                        .flat_map(|file| [option.into(), file]),
                );
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
            let vars = files.uefi_vars.map(handed).unwrap_or_default();
            for (unit, (file, read_only)) in [(UEFI_CODE, "on"), (vars.as_str(), "off")]
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
