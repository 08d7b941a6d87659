//! Kernel modules: finds them by name in an unpacked kernel package and puts them in the order of their dependencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The modules of one unpacked kernel, by name (with `_`, as the kernel says it).
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Finds every `*.ko` below a directory.
    pub fn scan(dir: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut pending = vec![dir.to_owned()];
        while let Some(dir) = pending.pop() {
            for entry in
                fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?
            {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|e| e == "ko") {
                    let name = path
                        .file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .replace('-', "_");
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The wanted modules and all they depend on, each after its dependencies: (name, content).
    pub fn resolve(&self, wanted: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut out = Vec::new();
        for name in wanted {
            self.add(name, &mut out)?;
        }
        Ok(out)
    }

    fn add(&self, name: &str, out: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        if out.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let path = self
            .files
            .get(name)
            .with_context(|| format!("the kernel package has no module {name}"))?;
        let bytes = fs::read(path)?;
        for dependency in dependencies(&bytes) {
            self.add(&dependency, out)?;
        }
        out.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// The `depends=` entry of a module's `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let value = &value[..value.iter().position(|b| *b == 0).unwrap_or(value.len())];
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| s.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            dependencies(b"x\0license=GPL\0depends=virtio-ring,virtio\0y"),
            ["virtio_ring", "virtio"]
        );
        assert!(dependencies(b"x\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
