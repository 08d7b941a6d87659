use super::*;
use crate::spec::tests::spec;

fn line(spec: &InstanceSpec, accelerator: Accelerator) -> String {
    let words = arguments(spec, accelerator, false, Aio::Threads);
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
fn an_image_is_read_only_in_its_declared_format_and_cannot_inject_options() {
    let mut spec = spec();
    let base = "/images/a,readonly=off\",\"driver\":\"host_device".into();
    spec.boot = BootSource::Disk {
        base,
        format: DiskFormat::Qcow2,
        firmware: Firmware::Bios,
    };
    let words = arguments(&spec, Accelerator::Tcg, true, Aio::IoUring);
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
    assert_eq!(
        base["file"]["filename"],
        "/images/a,readonly=off\",\"driver\":\"host_device"
    );
    let disk = nodes
        .iter()
        .find(|n| n["node-name"] == "disk")
        .expect("a disk node");
    assert_eq!(disk["backing"], "base");
    assert_eq!(disk["file"]["aio"], "io_uring");
}
