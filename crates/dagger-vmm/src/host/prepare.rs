//! Makes an instance's directory ready for its shim: disk, seed, launch file. Blocking.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cgroup::Parents;
use crate::clock::boot_id;
use crate::error::VmmError;
use crate::qcow2;
use crate::qemu::aio::Aio;
use crate::qemu::args::{DISK_FILE, SEED_FILE, UEFI_CODE, UEFI_VARS, UEFI_VARS_FILE};
use crate::record::{
    GuestGroup, LAUNCH_FILE, Launch, Lock, STATE_FILE, read_json, write_atomically,
};
use crate::seed;
use crate::spec::{BootSource, DiskFormat, Firmware, InstanceSpec};
use crate::uids::{self, GuestUser};

const MIB: u64 = 1024 * 1024;
/// Stands beside a disk that the next preparation keeps.
const KEPT_DISK_MARK: &str = "disk.kept";

/// What is to be prepared.
pub struct Plan {
    /// The instance's directory.
    pub dir: PathBuf,
    /// The instance.
    pub spec: InstanceSpec,
    /// QEMU.
    pub qemu: PathBuf,
    /// What connects guests to the internet, if the host has it.
    pub pasta: Option<PathBuf>,
    /// How QEMU is to read and write the disk.
    pub aio: Aio,
    /// The users that guests may run as.
    pub users: Result<Range<u32>, String>,
    /// Where guests' control groups may be made.
    pub parents: Parents,
    /// What their names begin with.
    pub group_prefix: String,
    /// Where the verdict on KVM is kept.
    pub accel_file: PathBuf,
    /// First deadline of the watchdog.
    pub lease_deadline_boottime_ms: Option<u64>,
}

/// The outcome.
pub enum Prepared {
    /// A shim may start.
    Ready,
    /// A shim has it already.
    Running,
}

/// Prepares; what is there already stays. The launch file comes last: a directory without one was never finished.
pub fn prepare(plan: &Plan) -> Result<Prepared, VmmError> {
    let Plan { dir, spec, .. } = plan;
    check_sources(spec)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(VmmError::io("making", dir, error));
        }
        _ => {}
    }
    let lock = Lock::take(dir).map_err(|e| VmmError::io("locking", dir, e))?;
    let launch_file = dir.join(LAUNCH_FILE);
    let known: Option<Launch> = read_json(&launch_file);
    if known.as_ref().is_some_and(|k| k.spec != *spec) {
        return Err(VmmError::Exists(spec.id));
    }
    if lock.is_none() {
        return Ok(Prepared::Running);
    }
    if known.is_none() {
        remove_if_there(&dir.join(SEED_FILE))?;
        remove_if_there(&dir.join(STATE_FILE))?;
        if dir.join(KEPT_DISK_MARK).exists() {
            let path = dir.join(DISK_FILE);
            qcow2::grow(&path, spec.disk_mib * MIB)
                .map_err(|e| VmmError::io("growing", path, e))?;
        } else {
            // Whatever an interrupted preparation left is not trusted.
            remove_if_there(&dir.join(DISK_FILE))?;
            remove_if_there(&dir.join(UEFI_VARS_FILE))?;
            make_disk(spec, dir)?;
        }
        let path = dir.join(SEED_FILE);
        write_new(&path, &seed::disk_image(spec)).map_err(|e| VmmError::io("writing", path, e))?;
    }
    remove_if_there(&dir.join(STATE_FILE))?;
    let launch = Launch {
        spec: spec.clone(),
        qemu: plan.qemu.clone(),
        pasta: plan.pasta.clone(),
        aio: plan.aio,
        user: user(plan),
        group: group(plan),
        accel_file: plan.accel_file.clone(),
        lease_deadline_boottime_ms: plan.lease_deadline_boottime_ms,
        boot_id: boot_id(),
    };
    let bytes = serde_json::to_vec(&launch).expect("a launch is plain data");
    write_atomically(&launch_file, &bytes).map_err(|e| VmmError::io("writing", launch_file, e))?;
    remove_if_there(&dir.join(KEPT_DISK_MARK))?;
    Ok(Prepared::Ready)
}

/// Where the shim makes the instance's control group.
fn group(plan: &Plan) -> GuestGroup {
    match &plan.parents {
        Ok(parents) => GuestGroup::Below {
            parents: parents.clone(),
            name: format!("{}{}", plan.group_prefix, plan.spec.id),
        },
        Err(why) => GuestGroup::None(why.clone()),
    }
}

/// A user that no other instance of this host has.
fn user(plan: &Plan) -> GuestUser {
    let range = match &plan.users {
        Ok(range) => range,
        Err(why) => return GuestUser::Daemons(why.clone()),
    };
    if !uids::everybody_may_run(&plan.qemu) {
        let program = plan.qemu.display();
        return GuestUser::Daemons(format!("other users may not run {program}"));
    }
    let others = plan.dir.parent().map(fs::read_dir).into_iter().flatten();
    let others = others.flatten().flatten().map(|entry| entry.path());
    let launches = others
        .filter(|dir| *dir != plan.dir)
        .filter_map(|dir| read_json(&dir.join(LAUNCH_FILE)));
    let taken: BTreeSet<u32> = launches
        .filter_map(|launch: Launch| match launch.user {
            GuestUser::Own(user) => Some(user),
            GuestUser::Daemons(_) => None,
        })
        .collect();
    match uids::choose(range, &plan.dir, &taken) {
        Some(user) => GuestUser::Own(user),
        None => GuestUser::Daemons("all ids set aside for guests are taken".into()),
    }
}

/// Makes the directory `old` of a stopped instance the directory `new` (it may be the same) of an
/// instance that has its disk and nothing else of it. `None`: it is not stopped.
pub fn succeed(old: &Path, new: &Path) -> io::Result<Option<()>> {
    let Some(_lock) = Lock::take(old)? else {
        return Ok(None);
    };
    // From here the disk is kept whatever happens; the launch file goes last but one, so that a crash
    // leaves the old instance or one whose next preparation keeps the disk.
    File::create(old.join(KEPT_DISK_MARK))?.sync_all()?;
    for name in [STATE_FILE, SEED_FILE, LAUNCH_FILE] {
        match fs::remove_file(old.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if old != new {
        fs::rename(old, new)?;
    }
    Ok(Some(()))
}

/// Everything the instance boots from is there and is what it claims to be.
fn check_sources(spec: &InstanceSpec) -> Result<(), VmmError> {
    match &spec.boot {
        BootSource::Direct { kernel, initrd, .. } => {
            open("kernel", kernel)?;
            initrd
                .as_deref()
                .map_or(Ok(()), |initrd| open("initrd", initrd).map(drop))
        }
        BootSource::Disk {
            base,
            format,
            firmware,
        } => {
            let wanted = base_bytes(base, *format)?;
            if wanted > spec.disk_mib * MIB {
                let reason = format!(
                    "of {} MiB is smaller than the image's {} MiB",
                    spec.disk_mib,
                    wanted.div_ceil(MIB)
                );
                return Err(VmmError::InvalidSpec {
                    field: "disk_mib",
                    reason,
                });
            }
            if *firmware == Firmware::Uefi && !Path::new(UEFI_CODE).is_file() {
                return Err(VmmError::QemuMissing {
                    program: UEFI_CODE.into(),
                    package: "ovmf",
                });
            }
            Ok(())
        }
    }
}

fn open(what: &'static str, path: &Path) -> Result<File, VmmError> {
    File::open(path).map_err(|source| VmmError::ImageMissing {
        what,
        path: path.to_owned(),
        source,
    })
}

/// Size of the disk that an image holds. A qcow2 is refused if its header names other files.
fn base_bytes(base: &Path, format: DiskFormat) -> Result<u64, VmmError> {
    let mut file = open("disk image", base)?;
    let refuse = |reason: String| VmmError::BadImage {
        path: base.to_owned(),
        reason,
    };
    let metadata = file.metadata().map_err(|e| refuse(e.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a plain file".into()));
    }
    match format {
        DiskFormat::Raw if metadata.len() == 0 => Err(refuse("it is empty".into())),
        DiskFormat::Raw => Ok(metadata.len()),
        DiskFormat::Qcow2 => qcow2::inspect(&mut file)
            .map(|q| q.virtual_bytes)
            .map_err(refuse),
    }
}

fn make_disk(spec: &InstanceSpec, dir: &Path) -> Result<(), VmmError> {
    let path = dir.join(DISK_FILE);
    // QEMU wants at least a sector.
    let bytes = (spec.disk_mib * MIB).max(MIB);
    qcow2::create_empty(&path, bytes).map_err(|e| VmmError::io("writing", &path, e))?;
    if matches!(
        spec.boot,
        BootSource::Disk {
            firmware: Firmware::Uefi,
            ..
        }
    ) {
        let path = dir.join(UEFI_VARS_FILE);
        fs::read(UEFI_VARS)
            .and_then(|bytes| write_new(&path, &bytes))
            .map_err(|e| VmmError::io("writing", &path, e))?;
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

fn remove_if_there(path: &Path) -> Result<(), VmmError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VmmError::io("deleting", path, error))
        }
        _ => Ok(()),
    }
}
