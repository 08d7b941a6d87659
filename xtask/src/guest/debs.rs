//! Debian packages: downloaded by apt's own client into a cache and unpacked, never installed. No root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A directory of downloaded packages.
pub struct Debs {
    dir: PathBuf,
}

impl Debs {
    /// Opens the cache.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir: dir.canonicalize()?,
        })
    }

    /// The file of a package, downloaded unless it is in the cache.
    pub fn get(&self, package: &str) -> anyhow::Result<PathBuf> {
        if let Some(file) = self.cached(package)? {
            return Ok(file);
        }
        let output = Command::new("apt-get")
            .args(["--quiet", "--option", "APT::Sandbox::User=root", "download", package])
            .current_dir(&self.dir)
            .output()
            .context("cannot run apt-get: guest images are built on Debian or Ubuntu (or in a container of it)")?;
        if !output.status.success() {
            bail!(
                "apt-get could not download {package}; run `apt-get update` (with sudo) and try again: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        self.cached(package)?
            .with_context(|| format!("apt-get downloaded no file for {package}"))
    }

    fn cached(&self, package: &str) -> anyhow::Result<Option<PathBuf>> {
        let prefix = format!("{package}_");
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".deb") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found.pop())
    }

    /// A field of a package's control file.
    pub fn field(&self, package: &str, field: &str) -> anyhow::Result<String> {
        let file = self.get(package)?;
        let output = Command::new("dpkg-deb")
            .arg("--field")
            .arg(&file)
            .arg(field)
            .output()
            .context("cannot run dpkg-deb")?;
        if !output.status.success() {
            bail!(
                "dpkg-deb cannot read {}; delete it and try again",
                file.display()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Unpacks packages into a directory.
    pub fn unpack(&self, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        for package in packages {
            let file = self.get(package)?;
            let status = Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&file)
                .arg(into)
                .status()
                .context("cannot run dpkg-deb")?;
            if !status.success() {
                bail!(
                    "dpkg-deb cannot unpack {}; delete it and try again",
                    file.display()
                );
            }
        }
        Ok(())
    }
}
