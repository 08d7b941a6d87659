use std::io::{Cursor, Read};

use super::*;
use crate::spec::tests::spec;

fn read(image: Vec<u8>, name: &str) -> String {
    let fs = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new())
        .expect("a FAT file system");
    let mut text = String::new();
    fs.root_dir()
        .open_file(name)
        .expect("the file is there")
        .read_to_string(&mut text)
        .expect("it is text");
    text
}

#[test]
fn the_seed_is_a_cidata_disk_and_the_same_every_time() {
    let image = disk_image(&spec());
    assert_eq!(image, disk_image(&spec()));
    let fs = fatfs::FileSystem::new(Cursor::new(image.clone()), fatfs::FsOptions::new())
        .expect("a FAT file system");
    assert_eq!(fs.volume_label(), "CIDATA");
    let meta = read(image, "meta-data");
    assert!(
        meta.starts_with("instance-id: 7-1\nlocal-hostname: web\npublic-keys:\n  - \"ssh-ed25519 "),
        "{meta}"
    );
}

#[test]
fn user_data_is_passed_on_untouched_whatever_its_size() {
    let mut spec = spec();
    let text = "#!/bin/sh\n".to_owned() + &"echo ä\n".repeat(60_000);
    spec.seed.user_data = Some(text.clone());
    assert_eq!(read(disk_image(&spec), "user-data"), text);
}

#[test]
fn the_host_key_stands_in_vendor_data_as_a_block() {
    let vendor = read(disk_image(&spec()), "vendor-data");
    assert!(
        vendor.contains(
            "\nssh_keys:\n  ed25519_private: |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n    "
        ),
        "{vendor}"
    );
    assert!(
        vendor.contains("\n  ed25519_public: ssh-ed25519 "),
        "{vendor}"
    );
}

#[test]
fn a_keys_comment_cannot_leave_its_line() {
    let mut spec = spec();
    spec.seed.ssh_authorized_keys[0].push_str(" \": [x]\\");
    let meta = read(disk_image(&spec), "meta-data");
    assert!(meta.contains(" \\\": [x]\\\\\"\n"), "{meta}");
}
