//! What QEMU is given to read and write: open files, not names. Its user may open none of them.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::qemu::args::{DISK_FILE, Handed, SEED_FILE, UEFI_VARS_FILE};
use crate::spec::{BootSource, Firmware, InstanceSpec};

/// Permission of everybody to read.
const OTHERS_READ: u32 = 0o004;

/// Open files, by what they are.
pub struct Files {
    disk: File,
    seed: File,
    base: Option<File>,
    uefi_vars: Option<File>,
    kernel: Option<File>,
    initrd: Option<File>,
}

impl Files {
    /// Opens all that the instance in the current directory has.
    pub fn open(spec: &InstanceSpec) -> io::Result<Self> {
        let mut files = Self {
            disk: writable(DISK_FILE)?,
            seed: readable(Path::new(SEED_FILE))?,
            base: None,
            uefi_vars: None,
            kernel: None,
            initrd: None,
        };
        match &spec.boot {
            BootSource::Direct { kernel, initrd, .. } => {
                files.kernel = Some(readable_by_name(kernel)?);
                files.initrd = initrd.as_deref().map(readable_by_name).transpose()?;
            }
            BootSource::Disk { base, firmware, .. } => {
                files.base = Some(readable(base)?);
                if *firmware == Firmware::Uefi {
                    files.uefi_vars = Some(writable(UEFI_VARS_FILE)?);
                }
            }
        }
        Ok(files)
    }

    /// Their numbers.
    pub fn handed(&self) -> Handed {
        let number = |file: &Option<File>| file.as_ref().map(AsRawFd::as_raw_fd);
        Handed {
            disk: self.disk.as_raw_fd(),
            seed: self.seed.as_raw_fd(),
            base: number(&self.base),
            uefi_vars: number(&self.uefi_vars),
            kernel: number(&self.kernel),
            initrd: number(&self.initrd),
        }
    }
}

impl Handed {
    /// All numbers; those that stand for nothing are left out.
    pub fn numbers(&self) -> impl Iterator<Item = RawFd> + use<> {
        let optional = [self.base, self.uefi_vars, self.kernel, self.initrd];
        [self.disk, self.seed]
            .into_iter()
            .chain(optional.into_iter().flatten())
    }
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn readable(path: &Path) -> io::Result<File> {
    File::open(path).map_err(named(path))
}

fn writable(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(name);
    file.map_err(named(Path::new(name)))
}

/// QEMU opens kernels by name: that of the open file, which leads past the directories but not past the file's own
/// permissions. What others may not read is handed over as a copy in memory.
fn readable_by_name(path: &Path) -> io::Result<File> {
    let mut file = readable(path)?;
    if file.metadata()?.permissions().mode() & OTHERS_READ != 0 {
        return Ok(file);
    }
    let mut copy = File::from(memfd_create(c"kernel", MFdFlags::MFD_CLOEXEC)?);
    io::copy(&mut file, &mut copy).map_err(named(path))?;
    copy.rewind()?;
    Ok(copy)
}
