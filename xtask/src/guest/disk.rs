//! The Debian guest's disk: partitions as on Debian's own cloud images (14 for BIOS, 15 for UEFI, 1 for the root, which
//! is last and so can grow), and the boot loader's two ways in. No root, no loop devices: all is written into a file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::shell;

/// Size of the disk; a VM's may be larger, never smaller.
pub const BYTES: u64 = 2048 * MIB;
/// The root file system.
pub const ROOT_UUID: &str = "2e0b1a1e-7c1b-4a8e-9a53-6d1f0c3f1f12";

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
/// Where GRUB for BIOS lies, and the room it has.
const BIOS_START: u64 = MIB;
const BIOS_BYTES: u64 = MIB;
/// The file system that UEFI reads.
const EFI_START: u64 = 2 * MIB;
const EFI_BYTES: u64 = 14 * MIB;
const ROOT_START: u64 = 16 * MIB;
/// The end of the disk holds the table's second copy.
const ROOT_BYTES: u64 = BYTES - ROOT_START - MIB;
const _: () = assert!(BIOS_START + BIOS_BYTES <= EFI_START && EFI_START + EFI_BYTES <= ROOT_START);

/// Only what every GRUB 2.06 and every Linux of the last ten years reads, whatever this machine's mke2fs prefers.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
    large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// mke2fs' arguments: the root file system at its place on the disk, with the content of `root`.
pub fn root_arguments(root: &Path, raw: &Path) -> Vec<OsString> {
    let extended = format!("offset={ROOT_START},hash_seed={ROOT_UUID},lazy_itable_init=0");
    let mut arguments: Vec<OsString> = ["-q", "-t", "ext4", "-b", "4096", "-O", FEATURES, "-U"]
        .map(OsString::from)
        .to_vec();
    arguments.extend([ROOT_UUID.into(), "-E".into(), extended.into(), "-d".into()]);
    arguments.extend([root.into(), raw.into()]);
    arguments.push(format!("{}k", ROOT_BYTES / 1024).into());
    arguments
}

/// Sets the dates of a file's change, last reading and making, which mke2fs takes from the directory it copied, for every
/// file of the root file system: else no two builds would be the same.
pub fn date_root(raw: &Path, epoch: &str) -> anyhow::Result<()> {
    let debugfs = shell::find_program("debugfs").context("debugfs is not installed")?;
    let mut target = raw.as_os_str().to_owned();
    target.push(format!("?offset={ROOT_START}"));
    let stats =
        shell::output(Command::new(&debugfs).args(["-R".as_ref(), "stats -h".as_ref(), &*target]))?;
    let used = used_inodes(&stats).context("debugfs does not know the new file system")?;
    let mut orders = tempfile::NamedTempFile::new()?;
    let mut text = std::io::BufWriter::new(&mut orders);
    // The root directory, the journal, and all that is not reserved; inodes are given out in order.
    for inode in [2, 8].into_iter().chain(11..=used) {
        for field in ["ctime", "atime", "crtime"] {
            writeln!(text, "set_inode_field <{inode}> {field} @{epoch}")?;
        }
    }
    text.flush()?;
    drop(text);
    let mut command = Command::new(debugfs);
    command.args(["-w", "-f"]).arg(orders.path()).arg(&target);
    // The file system's own date of its last change.
    command.env("E2FSPROGS_FAKE_TIME", epoch);
    shell::output(&mut command).map(drop)
}

/// How many inodes are in use, from what `debugfs` says of a file system.
fn used_inodes(stats: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    field("Inode count:")?.checked_sub(field("Free inodes:")?)
}

/// GRUB, as `debian/customize` left it in the new system.
pub struct BootParts {
    /// The disk's first sector: loads the first of `bios`.
    sector: Vec<u8>,
    /// The rest for BIOS: its first sector loads the others.
    bios: Vec<u8>,
    /// An UEFI application.
    efi: Vec<u8>,
}

impl BootParts {
    /// Reads them from the root of the new system.
    pub fn of(root: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            fs::read(root.join("boot/grub").join(name))
                .with_context(|| format!("the new system holds no /boot/grub/{name}"))
        };
        Ok(Self {
            sector: read("i386-pc/boot.img")?,
            bios: read("i386-pc/core.img")?,
            efi: read("x86_64-efi/core.efi")?,
        })
    }
}

/// Writes the partition table and GRUB onto a disk that has its root file system.
pub fn make_bootable(raw: &Path, parts: &BootParts) -> anyhow::Result<()> {
    partition(raw)?;
    let disk = File::options().read(true).write(true).open(raw)?;
    let bios = located(&parts.bios, BIOS_START / SECTOR_BYTES)?;
    disk.write_all_at(&bios, BIOS_START)?;
    disk.write_all_at(&efi_file_system(&parts.efi)?, EFI_START)?;
    let sector = pointing(&parts.sector, BIOS_START / SECTOR_BYTES)?;
    disk.write_all_at(&sector, 0)?;
    Ok(())
}

fn partition(raw: &Path) -> anyhow::Result<()> {
    let sfdisk = shell::find_program("sfdisk").context("sfdisk is not installed")?;
    let mut child = Command::new(sfdisk)
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(raw)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start sfdisk")?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(table().as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "sfdisk failed ({status})");
    Ok(())
}

/// The partition table in sfdisk's words; ids are fixed so that the same content gives the same bytes.
fn table() -> String {
    let line = |number: u32, start: u64, bytes: u64, kind: &str| {
        format!(
            "disk{number} : start={}, size={}, type={kind}, uuid=5d0f6a5c-3c0e-4b8f-8f44-0000000000{number:02}\n",
            start / SECTOR_BYTES,
            bytes / SECTOR_BYTES
        )
    };
    let mut out = "label: gpt\nlabel-id: 5d0f6a5c-3c0e-4b8f-8f44-000000000000\n".to_owned();
    out += &line(1, ROOT_START, ROOT_BYTES, ROOT_TYPE);
    out += &line(14, BIOS_START, BIOS_BYTES, BIOS_TYPE);
    out += &line(15, EFI_START, EFI_BYTES, EFI_TYPE);
    out
}

const ROOT_TYPE: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"; // the root of an x86_64 Linux
const BIOS_TYPE: &str = "21686148-6449-6E6F-744E-656564454649";
const EFI_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// GRUB's `core.img` for its place: the first sector lists where the others are (`struct grub_pc_bios_boot_blocklist` at
/// its end: first sector, number of sectors, segment; grub-mkimage has filled in all but the first).
fn located(core: &[u8], sector: u64) -> anyhow::Result<Vec<u8>> {
    const LIST_AT: usize = 512 - 12;
    ensure!(
        core.len() > 512 && core.len() as u64 <= BIOS_BYTES,
        "GRUB for BIOS has {} bytes and must have between 513 and {BIOS_BYTES}",
        core.len()
    );
    let mut core = core.to_vec();
    core[LIST_AT..LIST_AT + 8].copy_from_slice(&(sector + 1).to_le_bytes());
    Ok(core)
}

/// The code of GRUB's `boot.img` with the sector that it loads (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`). What follows the code
/// in the disk's first sector is the partition table's.
fn pointing(boot: &[u8], sector: u64) -> anyhow::Result<Vec<u8>> {
    const SECTOR_AT: usize = 0x5c;
    const CODE_BYTES: usize = 440;
    ensure!(
        boot.len() == 512,
        "GRUB's first sector has {} bytes",
        boot.len()
    );
    let mut code = boot[..CODE_BYTES].to_vec();
    code[SECTOR_AT..SECTOR_AT + 8].copy_from_slice(&sector.to_le_bytes());
    Ok(code)
}

/// A FAT file system with the application where UEFI looks on a disk that it does not know.
fn efi_file_system(application: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; EFI_BYTES as usize]);
    let options = fatfs::FormatVolumeOptions::new()
        .volume_label(*b"EFI        ")
        .volume_id(0x0DA6_6E12);
    fatfs::format_volume(&mut disk, options)?;
    let clock: &'static NoClock = &NoClock;
    let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new().time_provider(clock))?;
    let dir = fs.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
    dir.create_file("BOOTX64.EFI")?
        .write_all(application)
        .context("GRUB for UEFI is larger than its file system")?;
    drop(dir);
    fs.unmount()?;
    Ok(disk.into_inner())
}

/// Files carry the same date everywhere.
#[derive(Debug)]
struct NoClock;

impl fatfs::TimeProvider for NoClock {
    fn get_current_date(&self) -> fatfs::Date {
        self.get_current_date_time().date
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: fatfs::Date {
                year: 2025,
                month: 1,
                day: 1,
            },
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
#[path = "disk_tests.rs"]
mod disk_tests;
