use std::fs::{self, File};
use std::process::Command;

use super::*;

fn header() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("d.qcow2");
    create_empty(&path, 1 << 30).expect("it is created");
    fs::read(path).expect("it is readable")
}

fn refused(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = header();
    change(&mut bytes);
    let length = bytes.len() as u64;
    parse(&bytes, length).expect_err("it must be refused")
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn what_is_written_is_read_back_and_passes_qemus_own_check() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for size in [1 << 20, 10 << 30, (64_u64 << 40) - 65536] {
        let path = dir.path().join(size.to_string());
        create_empty(&path, size).expect("it is created");
        let read = inspect(&mut File::open(&path).expect("it opens")).expect("it is good");
        assert_eq!(read.virtual_bytes, size);
        let check = Command::new("qemu-img")
            .args(["check", "-f", "qcow2"])
            .arg(&path)
            .output();
        let check = check.expect("qemu-img runs (Debian: apt-get install qemu-utils)");
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stderr)
        );
    }
}

#[test]
fn a_file_that_names_other_files_is_refused() {
    assert_eq!(
        refused(|b| put(b, 8, &200_u64.to_be_bytes())),
        "it names a backing file"
    );
    assert_eq!(
        refused(|b| put(b, 16, &9_u32.to_be_bytes())),
        "it names a backing file"
    );
    assert_eq!(
        refused(|b| put(b, 72, &4_u64.to_be_bytes())),
        "it names an external data file"
    );
    assert_eq!(
        refused(|b| put(b, 104, b"DATA\0\0\0\x08/etc/pwd")),
        "it names an external data file"
    );
    assert_eq!(
        refused(|b| put(b, 104, &EXTENSION_BACKING_FORMAT.to_be_bytes())),
        "it names a backing format"
    );
}

#[test]
fn a_broken_or_hostile_header_is_refused_with_its_reason() {
    assert_eq!(refused(|b| b[0] = 0), "it is not qcow2");
    assert_eq!(refused(|b| b.truncate(30)), "its header is cut off");
    assert_eq!(
        refused(|b| put(b, 4, &9_u32.to_be_bytes())),
        "qcow2 version 9 is unknown"
    );
    assert_eq!(
        refused(|b| put(b, 20, &63_u32.to_be_bytes())),
        "its cluster size 2^63 is out of bounds"
    );
    assert_eq!(
        refused(|b| put(b, 24, &u64::MAX.to_be_bytes())),
        "its size does not fit its tables"
    );
    assert_eq!(
        refused(|b| put(b, 36, &u32::MAX.to_be_bytes())),
        "its size does not fit its tables"
    );
    assert_eq!(
        refused(|b| put(b, 32, &2_u32.to_be_bytes())),
        "it is encrypted"
    );
    assert_eq!(
        refused(|b| put(b, 72, &2_u64.to_be_bytes())),
        "it is marked corrupt"
    );
    assert_eq!(
        refused(|b| put(b, 72, &16_u64.to_be_bytes())),
        "it wants unknown features (0x10)"
    );
    assert_eq!(
        refused(|b| put(b, 100, &u32::MAX.to_be_bytes())),
        "its header length is out of bounds"
    );
    assert_eq!(
        refused(|b| put(b, 48, &u64::MAX.to_be_bytes())),
        "its reference counts lie outside of the file"
    );
    // An extension whose length runs past the header.
    assert_eq!(
        refused(|b| put(b, 104, &[1, 2, 3, 4, 255, 255, 255, 255])),
        "its header extensions have no end"
    );
}

#[test]
fn a_grown_disk_passes_qemus_own_check_and_never_shrinks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("d.qcow2");
    create_empty(&path, 1 << 20).expect("it is created");
    for (asked, found) in [(700_u64 << 30, 700_u64 << 30), (1 << 20, 700 << 30)] {
        grow(&path, asked).expect("it grows");
        let read = inspect(&mut File::open(&path).expect("it opens")).expect("it is good");
        assert_eq!(read.virtual_bytes, found);
        let check = Command::new("qemu-img")
            .args(["check", "-f", "qcow2"])
            .arg(&path)
            .output();
        assert!(
            check
                .expect("qemu-img runs (Debian: apt-get install qemu-utils)")
                .status
                .success()
        );
    }
    assert!(grow(&path, 5 << 40).is_err());
}
