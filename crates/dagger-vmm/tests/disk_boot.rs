//! Booting a disk image through firmware: a boot sector that says hello on the serial line is enough of a guest.

mod support;

use std::path::Path;
use std::process::Command;

use dagger_vmm::{
    AccelChoice, BootSource, DiskFormat, Firmware, Host, InstanceId, InstanceSpec, Profile, Seed,
    StopMode, new_ssh_host_key,
};
use support::{console, shim, until};
use tokio::io::AsyncReadExt;

const HELLO: &[u8] = b"hello from the boot sector\r\n\0";

/// cli; ds = 0; si = text; until a zero byte: out 0x3f8, byte; halt for ever.
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![
        0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x17, 0x7c, 0xfc, 0xac, 0x84, 0xc0, 0x74, 0x06, 0xba,
        0xf8, 0x03, 0xee, 0xeb, 0xf5, 0xf4, 0xeb, 0xfd,
    ];
    sector.extend_from_slice(HELLO);
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector
}

fn spec(vm: u64, base: &Path, format: DiskFormat) -> InstanceSpec {
    let (pem, public) = new_ssh_host_key([1; 32]);
    InstanceSpec {
        id: InstanceId { vm, lease_epoch: 1 },
        name: "web".into(),
        account: "acme".into(),
        vcpus: 1,
        memory_mib: 64,
        disk_mib: 16,
        boot: BootSource::Disk {
            base: base.to_owned(),
            format,
            firmware: Firmware::Bios,
        },
        seed: Seed {
            hostname: "web".into(),
            instance_id: "i".into(),
            ssh_authorized_keys: vec![public],
            ssh_host_key_pem: pem,
            user_data: None,
        },
        accel: AccelChoice::Tcg,
        profile: Profile::Q35,
    }
}

#[tokio::test]
async fn raw_and_qcow2_images_boot_under_an_overlay_and_stay_as_they_are() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let raw = dir.path().join("image,with=commas.raw");
    let mut image = boot_sector();
    image.resize(1 << 20, 0);
    std::fs::write(&raw, &image).expect("it is written");
    let qcow2 = dir.path().join("image.qcow2");
    let convert = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &qcow2])
        .status();
    assert!(
        convert
            .expect("qemu-img runs (Debian: apt-get install qemu-utils)")
            .success()
    );
    let before = std::fs::read(&qcow2).expect("it is readable");

    let host = Host::open(dir.path().join("vms"), shim()).expect("it opens");
    for (vm, base, format) in [(1, &raw, DiskFormat::Raw), (2, &qcow2, DiskFormat::Qcow2)] {
        let spec = spec(vm, base, format);
        host.start(&spec, None)
            .await
            .expect("QEMU starts (Debian: apt-get install qemu-system-x86)");
        let hello = String::from_utf8_lossy(&HELLO[..20]).into_owned();
        until("the boot sector says hello", || async {
            let status = host.status(spec.id).await;
            assert!(
                status.as_ref().is_some_and(|s| s.stopped_ms.is_none()),
                "{status:?}"
            );
            console(&host, spec.id).contains(&hello).then_some(())
        })
        .await;
        // The line can be watched while it is up, and ends with the guest.
        let mut line = host
            .console(spec.id)
            .await
            .expect("the console can be watched");
        host.stop(spec.id, StopMode::Kill)
            .await
            .expect("it is stopped");
        line.read_to_end(&mut Vec::new())
            .await
            .expect("the line ends");
        host.remove(spec.id).await.expect("it is removed");
    }
    assert_eq!(std::fs::read(&raw).expect("it is readable"), image);
    assert_eq!(std::fs::read(&qcow2).expect("it is readable"), before);
}
