//! Kernel modules: finds them by name in an unpacked kernel package and puts them in the order of their dependencies.

use std::collections::{BTreeMap, BTreeSet};
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

    /// The wanted modules and all they depend on, each after its dependencies: (name, content). Their signatures are taken
    /// off: the kernel asks for none, and checking one costs an emulated guest 60 ms.
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
        let bytes = without_signature(fs::read(path)?);
        for dependency in dependencies(&bytes) {
            self.add(&dependency, out)?;
        }
        out.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// Cuts off what `scripts/sign-file` appended: signature, a 12-byte trailer that ends with its length, and a magic line.
fn without_signature(mut module: Vec<u8>) -> Vec<u8> {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    if let Some(signed) = module.strip_suffix(MAGIC)
        && let Some((rest, length)) = signed.split_last_chunk::<4>()
    {
        let signature = u32::from_be_bytes(*length) as usize + 8;
        module.truncate(rest.len().saturating_sub(signature));
    }
    module
}

/// The table `modules.dep` for modules in the order of their dependencies: each with all that it needs, the first to be
/// loaded last, as modprobe wants it.
pub fn dependency_table(modules: &[(String, Vec<u8>)]) -> String {
    let mut needs: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut out = String::new();
    for (name, bytes) in modules {
        let mut all = BTreeSet::new();
        for dependency in dependencies(bytes) {
            all.extend(
                needs
                    .get(dependency.as_str())
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
            all.insert(dependency);
        }
        let ordered = modules.iter().rev().filter(|(n, _)| all.contains(n));
        let files: Vec<String> = ordered.map(|(n, _)| format!("{n}.ko")).collect();
        out.push_str(&format!("{name}.ko: {}\n", files.join(" ")));
        needs.insert(name, all);
    }
    out
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
    use super::{dependencies, dependency_table, without_signature};

    #[test]
    fn the_table_lists_all_that_a_module_needs_deepest_last() {
        let module = |name: &str, needs: &str| {
            (name.to_owned(), format!("\0depends={needs}\0").into_bytes())
        };
        let modules = [module("a", ""), module("b", "a"), module("c", "b")];
        assert_eq!(
            dependency_table(&modules),
            "a.ko: \nb.ko: a.ko\nc.ko: b.ko a.ko\n"
        );
    }

    #[test]
    fn a_signature_is_cut_off_and_nothing_else() {
        let mut module = b"ELF and so on".to_vec();
        module.extend_from_slice(b"PKCS7\0\0\0\0\0\0\0\0\0\0\0\x05~Module signature appended~\n");
        assert_eq!(without_signature(module), b"ELF and so on");
        assert_eq!(without_signature(b"unsigned".to_vec()), b"unsigned");
    }

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
