//! The Debian guest: stock Debian 12 with systemd, cloud-init and openssh on a bootable disk, made of Debian's packages
//! alone. What is put on top of the packages is in `debian/customize`; how the disk is laid out, in `disk.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;

use super::disk::{self, BootParts};
use super::trial;
use crate::setup::{self, Need, SetupArgs};
use crate::shell;

const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Beside what every Debian has: the packages of priority `required`, and apt.
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "libpam-systemd",
    "libnss-resolve",
    "dbus",
    "udev",
    "cloud-init",
    "cloud-guest-utils",
    "openssh-server",
    "sudo",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "iputils-ping",
    "ca-certificates",
    "curl",
    "less",
    "nano",
];
/// No file of the image is younger (2025-01-01): the same packages then give the same bytes.
const EPOCH: &str = "1735689600";

/// The file's name.
const DISK: &str = "debian-12.qcow2";

const CUSTOMIZE: &str = include_str!("debian/customize");

/// What the build starts beside what `cargo xtask setup` installs.
const NEEDS: &[Need] = &[
    Need {
        program: "mmdebstrap",
        package: "mmdebstrap",
        why: "installs Debian's packages into a directory",
    },
    Need {
        program: KEYRING,
        package: "debian-archive-keyring",
        why: "tells Debian's packages from others",
    },
    Need {
        program: "mke2fs",
        package: "e2fsprogs",
        why: "makes the root file system",
    },
    Need {
        program: "debugfs",
        package: "e2fsprogs",
        why: "gives its files their dates",
    },
    Need {
        program: "sfdisk",
        package: "fdisk",
        why: "partitions the disk",
    },
    Need {
        program: "qemu-img",
        package: "qemu-utils",
        why: "makes the disk small",
    },
];
/// What it starts beside those where the user is not root.
const NEEDS_OF_A_USER: &[Need] = &[
    Need {
        program: "fakeroot",
        package: "fakeroot",
        why: "lets files belong to root in the image alone",
    },
    Need {
        program: "newuidmap",
        package: "uidmap",
        why: "lets packages be installed without being root",
    },
];

/// What to do with the Debian guest.
#[derive(Args)]
pub struct DebianArgs {
    #[command(flatten)]
    setup: SetupArgs,
    /// Take the disk (built if there is none) through a VM's life in a network on this machine
    #[arg(long = "try")]
    trial: bool,
    /// The `dagger` to try it with instead of building one
    #[arg(long, value_name = "FILE", requires = "trial")]
    dagger: Option<PathBuf>,
}

/// Builds the Debian guest and prints where it is, or tries it.
///
/// # Errors
/// Those of the build; in a trial, the first thing that is not as it should be.
pub fn debian(args: DebianArgs) -> anyhow::Result<()> {
    let out = shell::target_dir().join("guest/debian");
    let disk = out.join(DISK);
    if !args.trial || !disk.exists() {
        build(&out, &args.setup)?;
    }
    println!("disk    {}", disk.display());
    println!("format  qcow2");
    if args.trial {
        trial::run(&disk, args.dagger, &args.setup)?;
    }
    Ok(())
}

/// Builds the Debian guest's disk, a qcow2, into `out`.
///
/// # Errors
/// When a program is missing and may not be installed, or Debian's packages cannot be had; the text says what to do.
fn build(out: &Path, args: &SetupArgs) -> anyhow::Result<()> {
    setup::ensure(NEEDS, args)?;
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        setup::ensure(NEEDS_OF_A_USER, args)?;
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    let work = tempfile::tempdir_in(&out).context("cannot make a temporary directory")?;
    let archive = work.path().join("root.tar");
    shell::step("Install Debian's packages", || install(&archive))?;
    let raw = work.path().join("disk.raw");
    shell::step("Make the disk", || {
        let root = work.path().join("root");
        File::create(&raw)?.set_len(disk::BYTES)?;
        fill(&archive, &root, &raw, is_root)?;
        disk::date_root(&raw, EPOCH)?;
        disk::make_bootable(&raw, &BootParts::of(&root)?)
    })?;
    shell::step("Compress it", || {
        let new = work.path().join("disk.qcow2");
        shell::run(
            Command::new("qemu-img")
                .args(["convert", "-c", "-f", "raw", "-O", "qcow2"])
                .args([&raw, &new]),
        )?;
        Ok(fs::rename(&new, out.join(DISK))?)
    })
}

/// Installs the packages, as root or in a namespace where this user is root, into an archive of the whole system.
fn install(archive: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("ROOT_UUID", disk::ROOT_UUID)
        // By the environment: as an argument it would be printed, as a file another user (root in a namespace) read it.
        .env("CUSTOMIZE", CUSTOMIZE)
        .arg("--customize-hook=eval \"$CUSTOMIZE\"")
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        // Nothing of a half-made system is kept, so nothing needs to reach the disk on the way.
        .arg("--dpkgopt=force-unsafe-io")
        .arg(format!("--keyring={KEYRING}"))
        .arg(SUITE)
        .arg(archive)
        .stdin(Stdio::null());
    let status = command
        .status()
        .context("cannot start mmdebstrap; run `cargo xtask guest debian --yes`")?;
    anyhow::ensure!(
        status.success(),
        "mmdebstrap failed ({status}): see its lines above. Without root it needs user namespaces and a range of ids \
         for this user in /etc/subuid and /etc/subgid; as root it needs neither"
    );
    Ok(())
}

/// Unpacks the archive into `root` and makes a file system of it on the disk.
fn fill(archive: &Path, root: &Path, raw: &Path, is_root: bool) -> anyhow::Result<()> {
    const SCRIPT: &str = "set -e; archive=$1; root=$2; shift 2; mkdir \"$root\"; \
        tar --extract --numeric-owner --file \"$archive\" --directory \"$root\"; \"$@\"";
    // `fakeroot` remembers who owns what only as long as it runs: one run for both steps.
    let mut command = if is_root {
        Command::new("sh")
    } else {
        let mut command = Command::new("fakeroot");
        command.arg("sh");
        command
    };
    command.args(["-c", SCRIPT, "fill"]).args([archive, root]);
    let mke2fs = shell::find_program("mke2fs").context("mke2fs is not installed")?;
    command.arg(mke2fs).args(disk::root_arguments(root, raw));
    shell::output(command.env("E2FSPROGS_FAKE_TIME", EPOCH)).map(drop)
}
