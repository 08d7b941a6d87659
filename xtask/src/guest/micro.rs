//! The micro guest: Debian's cloud kernel and one initramfs with busybox and dropbear. Reads a NoCloud seed as cloud-init
//! would, as far as a system of this size can; serves ssh in seconds even without hardware virtualisation.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cpio::Tree;
use super::debs::Debs;
use super::modules::{self, Modules};

/// The metapackage whose only dependency is the newest cloud kernel.
const KERNEL_META: &str = "linux-image-cloud-amd64";
/// The user space, and the libraries dropbear is linked with.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dropbear-bin",
    "libc6",
    "libcrypt1",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "zlib1g",
];
/// Loaded at boot, in this order, after what they depend on. Other machine types' transports load to no effect.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "nls_cp437",
    "nls_ascii",
    "vfat",
    "button",
    "evdev",
    "pvpanic_pci",
];
const LIBRARIES: &[&str] = &[
    "libc.so.6",
    "libcrypt.so.1",
    "libgmp.so.10",
    "libtomcrypt.so.1",
    "libtommath.so.1",
    "libz.so.1",
    "libnss_files.so.2",
];
/// What is left out at boot is what a small guest does not miss and an emulated one would wait for: self-tests of
/// cryptography, tracing, statistics of the allocator.
const CMDLINE: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on \
    initcall_blacklist=crypto_kdf108_init,slab_sysfs_init,init_kprobe_trace";

const RC: &str = include_str!("micro/rc");
const SEED_AWK: &str = include_str!("micro/seed.awk");
const INITTAB: &str = include_str!("micro/inittab");
const UDHCPC: &str = include_str!("micro/udhcpc");
const POWER: &str = include_str!("micro/power");

/// The files of the micro guest.
#[derive(Clone, Debug)]
pub struct MicroGuest {
    /// Linux kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk: the whole system.
    pub initrd: PathBuf,
    /// Kernel command line to boot it with.
    pub cmdline: String,
}

/// Builds the micro guest into `out`. Packages are kept in `out/debs`: delete that directory to take newer ones.
///
/// # Errors
/// When Debian's packages cannot be downloaded or unpacked; the text says what to do.
pub fn build_micro(out: &Path) -> anyhow::Result<MicroGuest> {
    let debs = Debs::open(&out.join("debs"))?;
    let guest = MicroGuest {
        kernel: out.join("micro-kernel"),
        initrd: out.join("micro-initrd"),
        cmdline: CMDLINE.into(),
    };
    let depends = debs.field(KERNEL_META, "Depends")?;
    let kernel_package = depends
        .split([' ', ','])
        .find(|s| s.starts_with("linux-image-"))
        .with_context(|| {
            format!(
                "{KERNEL_META} depends on no kernel but {depends:?}; delete {} and try again",
                out.join("debs").display()
            )
        })?;
    let packages: Vec<&str> = [kernel_package].iter().chain(PACKAGES).copied().collect();
    let stamp = stamp(&debs, &packages)?;
    let stamp_file = out.join("micro-stamp");
    if guest.kernel.exists()
        && guest.initrd.exists()
        && fs::read_to_string(&stamp_file).is_ok_and(|s| s == stamp)
    {
        return Ok(guest);
    }
    let unpacked = tempfile::tempdir_in(out).context("cannot make a temporary directory")?;
    debs.unpack(&packages, unpacked.path())?;
    let version = kernel_package.trim_start_matches("linux-image-");
    let kernel = fs::read(
        unpacked
            .path()
            .join("boot")
            .join(format!("vmlinuz-{version}")),
    )
    .context("the kernel package has no kernel")?;
    let initrd = tree(unpacked.path(), version)?.to_newc();
    replace(&guest.kernel, &kernel)?;
    replace(&guest.initrd, &initrd)?;
    // For whoever boots it by hand or by `dagger bench vm`.
    replace(&out.join("micro-cmdline"), guest.cmdline.as_bytes())?;
    replace(&stamp_file, stamp.as_bytes())?;
    Ok(guest)
}

/// Changes when a package, this builder or a file of the guest changes.
fn stamp(debs: &Debs, packages: &[&str]) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for part in [
        include_str!("micro.rs"),
        include_str!("cpio.rs"),
        include_str!("modules.rs"),
        CMDLINE,
        RC,
        SEED_AWK,
        INITTAB,
        UDHCPC,
        POWER,
    ] {
        hasher.update(part.as_bytes());
    }
    for package in packages {
        hasher.update(
            debs.get(package)?
                .file_name()
                .unwrap_or_default()
                .as_encoded_bytes(),
        );
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)
        .with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

fn tree(unpacked: &Path, kernel_version: &str) -> anyhow::Result<Tree> {
    let mut tree = Tree::default();
    for (path, mode) in [
        ("proc", 0o755),
        ("sys", 0o755),
        ("dev", 0o755),
        ("run", 0o755),
        ("mnt/seed", 0o755),
        ("data", 0o755),
        ("tmp", 0o1777),
        ("root/.ssh", 0o700),
        ("home/dagger", 0o755),
        ("var/log", 0o755),
    ] {
        tree.directory(path, mode);
    }
    tree.directory("root", 0o700);
    // Before /dev is mounted the kernel wants a console to give to init.
    tree.device("dev/console", 0o600, 5, 1);
    tree.device("dev/null", 0o666, 1, 3);
    busybox(&mut tree, unpacked)?;
    for name in [
        "usr/sbin/dropbear",
        "usr/bin/dropbearconvert",
        "usr/bin/dropbearkey",
        "usr/bin/dbclient",
    ] {
        tree.file(
            name,
            0o755,
            fs::read(unpacked.join(name))
                .with_context(|| format!("the packages hold no {name}"))?,
        );
    }
    libraries(&mut tree, unpacked)?;
    let modules =
        Modules::scan(&unpacked.join("lib/modules").join(kernel_version))?.resolve(MODULES)?;
    let dir = format!("lib/modules/{kernel_version}");
    tree.file(
        &format!("{dir}/modules.dep"),
        0o644,
        modules::dependency_table(&modules),
    );
    for (name, bytes) in modules {
        tree.file(&format!("{dir}/{name}.ko"), 0o644, bytes);
    }
    tree.file("etc/modules", 0o644, MODULES.join(" "));
    tree.link("init", "bin/busybox");
    tree.file("etc/rc", 0o755, RC);
    tree.file("etc/seed.awk", 0o644, SEED_AWK);
    tree.file("etc/inittab", 0o644, INITTAB);
    tree.file("etc/udhcpc", 0o755, UDHCPC);
    tree.file("etc/acpi/PWRF/00000080", 0o755, POWER);
    tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndagger:x:1000:1000:dagger:/home/dagger:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    tree.file(
        "etc/group",
        0o644,
        "root:x:0:\ndagger:x:1000:\nnogroup:x:65534:\n",
    );
    tree.file(
        "etc/shadow",
        0o600,
        "root:*:19000:0:99999:7:::\ndagger:*:19000:0:99999:7:::\n",
    );
    tree.file("etc/shells", 0o644, "/bin/sh\n/bin/ash\n");
    tree.file("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    tree.file(
        "etc/nsswitch.conf",
        0o644,
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    );
    tree.file(
        "etc/profile",
        0o644,
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\nPS1='\\u@\\h:\\w\\$ '\n",
    );
    tree.file("etc/os-release", 0o644, "ID=dagger-micro\nNAME=\"DAGGER micro guest\"\nPRETTY_NAME=\"DAGGER micro guest (Debian kernel, busybox)\"\n");
    Ok(tree)
}

fn busybox(tree: &mut Tree, unpacked: &Path) -> anyhow::Result<()> {
    let path = unpacked.join("bin/busybox");
    let list = std::process::Command::new(&path)
        .arg("--list")
        .output()
        .context("cannot run the unpacked busybox")?;
    anyhow::ensure!(
        list.status.success(),
        "the unpacked busybox does not run on this machine"
    );
    tree.file("bin/busybox", 0o755, fs::read(&path)?);
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|a| *a != "busybox" && !a.contains('/'))
    {
        tree.link(&format!("bin/{applet}"), "busybox");
    }
    tree.link("sbin", "bin");
    Ok(())
}

fn libraries(tree: &mut Tree, unpacked: &Path) -> anyhow::Result<()> {
    let dirs = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
    let read = |name: &str| {
        dirs.iter()
            .find_map(|dir| fs::read(unpacked.join(dir).join(name)).ok())
    };
    for name in LIBRARIES {
        let bytes = read(name).with_context(|| format!("the packages hold no {name}"))?;
        tree.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o644, bytes);
    }
    let loader = read("ld-linux-x86-64.so.2").context("the packages hold no program loader")?;
    tree.file("lib64/ld-linux-x86-64.so.2", 0o755, loader);
    Ok(())
}
