//! The NoCloud seed: a small FAT disk labelled CIDATA that tells a guest what to be, in the form cloud-init takes.
//!
//! The customer's user-data is passed on untouched. What the host adds (host key, the login user) stands in vendor-data,
//! which cloud-init merges below user-data; login keys stand in meta-data, to which user-data can only add.

use std::fmt::Write as _;
use std::io::{Cursor, Write};

use crate::spec::{InstanceSpec, Seed};

/// Bytes of an empty seed disk; user-data adds its own length.
const BYTES_MIN: usize = 256 * 1024;

/// The user that guests get beside their image's own.
const LOGIN_USER: &str = "dagger";

/// The disk, ready to be written to a file. The same spec gives the same bytes.
///
/// # Panics
/// Never for a checked spec: the disk is made large enough for what it holds.
pub fn disk_image(spec: &InstanceSpec) -> Vec<u8> {
    let user_data = spec
        .seed
        .user_data
        .as_deref()
        .unwrap_or("#cloud-config\n{}\n");
    let size = (BYTES_MIN + user_data.len() * 2).next_multiple_of(64 * 1024);
    let mut disk = Cursor::new(vec![0; size]);
    let volume = u32::from_le_bytes(
        spec.id.vm.to_le_bytes()[..4]
            .try_into()
            .expect("four bytes"),
    );
    let options = fatfs::FormatVolumeOptions::new()
        .volume_label(*b"CIDATA     ")
        .volume_id(volume);
    fatfs::format_volume(&mut disk, options).expect("a disk of this size can be formatted");
    let clock: &'static FixedClock = &FixedClock;
    let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new().time_provider(clock))
        .expect("it was just formatted");
    let files = [
        ("meta-data", meta_data(&spec.seed)),
        ("vendor-data", vendor_data(&spec.seed)),
        ("network-config", network_config(&mac_address(spec))),
        ("user-data", user_data.to_owned()),
    ];
    for (name, text) in files {
        let mut file = fs
            .root_dir()
            .create_file(name)
            .expect("the disk has room for a name");
        file.write_all(text.as_bytes())
            .expect("the disk has room for its files");
    }
    fs.unmount().expect("a disk in memory does not fail");
    disk.into_inner()
}

/// The guest's MAC address: locally administered, from the VM's id, so that it survives a move to another host.
pub fn mac_address(spec: &InstanceSpec) -> String {
    let digest = blake3::derive_key("dagger guest mac v1", &spec.id.vm.to_le_bytes());
    let [a, b, c, d, ..] = digest;
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn meta_data(seed: &Seed) -> String {
    let mut out = format!(
        "instance-id: {}\nlocal-hostname: {}\n",
        seed.instance_id, seed.hostname
    );
    if !seed.ssh_authorized_keys.is_empty() {
        out.push_str("public-keys:\n");
        list(&mut out, "  ", &seed.ssh_authorized_keys);
    }
    out
}

fn vendor_data(seed: &Seed) -> String {
    let mut out = format!(
        "#cloud-config\nssh_deletekeys: true\nssh_pwauth: false\ndisable_root: false\npreserve_hostname: false\n\
         users:\n  - default\n  - name: {LOGIN_USER}\n    shell: /bin/sh\n    lock_passwd: true\n    sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n"
    );
    if !seed.ssh_authorized_keys.is_empty() {
        out.push_str("    ssh_authorized_keys:\n");
        list(&mut out, "      ", &seed.ssh_authorized_keys);
    }
    out.push_str("ssh_keys:\n  ed25519_private: |\n");
    for line in seed.ssh_host_key_pem.lines() {
        let _ = writeln!(out, "    {line}");
    }
    if let Some(public) = public_half(&seed.ssh_host_key_pem) {
        let _ = writeln!(out, "  ed25519_public: {public}");
    }
    out
}

fn list(out: &mut String, indent: &str, keys: &[String]) {
    for key in keys {
        // Comments of keys are free text: quoted, they cannot end the list or begin a map.
        let text = key.trim().replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(out, "{indent}- \"{text}\"");
    }
}

fn public_half(private_pem: &str) -> Option<String> {
    ssh_key::PrivateKey::from_openssh(private_pem)
        .ok()?
        .public_key()
        .to_openssh()
        .ok()
}

fn network_config(mac: &str) -> String {
    format!(
        "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: \"{mac}\"\n    set-name: eth0\n    dhcp4: true\n    dhcp6: false\n"
    )
}

/// Files on the seed carry the same date everywhere, so that the same spec gives the same bytes.
#[derive(Debug)]
struct FixedClock;

impl fatfs::TimeProvider for FixedClock {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 2020,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
