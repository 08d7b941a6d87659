use super::*;
use crate::spec::tests::spec;

const FILES: Handed = Handed {
    disk: 10,
    seed: 11,
    base: Some(12),
    uefi_vars: Some(13),
    kernel: Some(14),
    initrd: Some(15),
};

fn line(spec: &InstanceSpec, accelerator: Accelerator) -> String {
    let words = arguments(spec, accelerator, false, Aio::Threads, FILES);
    words
        .iter()
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn every_guest_is_sandboxed_restricted_and_without_defaults() {
    for (profile, accelerator) in [
        (Profile::Q35, Accelerator::Tcg),
        (Profile::Q35, Accelerator::Kvm),
        (Profile::Microvm, Accelerator::Kvm),
    ] {
        let mut spec = spec();
        spec.profile = profile;
        let line = line(&spec, accelerator);
        for wanted in [
            "-nodefaults",
            "-no-user-config",
            "spawn=deny",
            "restrict=on",
            "virtio-rng-",
            "-display none",
        ] {
            assert!(line.contains(wanted), "{wanted} in {line}");
        }
    }
}

#[test]
fn an_emulated_microvm_is_a_q35() {
    let mut spec = spec();
    spec.profile = Profile::Microvm;
    assert!(line(&spec, Accelerator::Kvm).contains("-machine microvm,acpi=on"));
    assert!(line(&spec, Accelerator::Tcg).contains("-machine q35"));
}

#[test]
fn the_accelerator_chooses_the_cpu() {
    assert!(line(&spec(), Accelerator::Kvm).contains("-accel kvm -cpu host"));
    assert!(line(&spec(), Accelerator::Tcg).contains("-cpu max"));
}

#[test]
fn an_image_is_read_only_in_its_declared_format_and_its_name_never_reaches_qemu() {
    let mut spec = spec();
    let base = "/images/a,readonly=off\",\"driver\":\"host_device".into();
    spec.boot = BootSource::Disk {
        base,
        format: DiskFormat::Qcow2,
        firmware: Firmware::Bios,
    };
    let words = arguments(&spec, Accelerator::Tcg, true, Aio::IoUring, FILES);
    let line = line(&spec, Accelerator::Tcg);
    assert!(!line.contains("host_device") && line.contains("-add-fd fd=12,set=12"));
    let nodes: Vec<Value> = words
        .iter()
        .filter_map(|w| serde_json::from_str(&w.to_string_lossy()).ok())
        .filter(|v: &Value| v.is_object())
        .collect();
    let base = nodes
        .iter()
        .find(|n| n["node-name"] == "base")
        .expect("a base node");
    assert_eq!(base["driver"], "qcow2");
    assert_eq!(base["read-only"], true);
    assert_eq!(base["backing"], Value::Null);
    assert_eq!(base["file"]["driver"], "file");
    assert_eq!(base["file"]["filename"], "/dev/fdset/12");
    let disk = nodes
        .iter()
        .find(|n| n["node-name"] == "disk")
        .expect("a disk node");
    assert_eq!(disk["backing"], "base");
    assert_eq!(disk["file"]["aio"], "io_uring");
}
