//! `cargo xtask layers`: the crates depend only downwards, and the pure ones stay pure. The allowed
//! edges and the forbidden words stand here, in two tables; reading cargo's metadata and scanning
//! sources lives beside them.

#[path = "layers/scan.rs"]
mod scan;

use crate::shell;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a crate of this workspace may depend on besides crates of the registry.
struct Layer {
    name: &'static str,
    /// Crates of the workspace that this one may use.
    may_use: &'static [&'static str],
    /// A pure crate reads no clock, socket, disk, environment or random source and never logs;
    /// this is then the whole list of registry crates it may use.
    pure: Option<&'static [&'static str]>,
}

/// The layers from the bottom up. A crate that is not here fails the check.
const LAYERS: &[Layer] = &[
    Layer {
        name: "shadowgraph",
        may_use: &[],
        pure: Some(&[
            "blake3",
            "borsh",
            "bytes",
            "ed25519-zebra",
            "hex",
            "rand_core",
            "thiserror",
        ]),
    },
    Layer {
        name: "dagger-ledger",
        may_use: &[],
        pure: Some(&[
            "blake3",
            "borsh",
            "ed25519-zebra",
            "hex",
            "rand_core",
            // Derives on the types, only with the feature that prints the schemas.
            "schemars",
            "serde",
            "serde_json",
            "thiserror",
        ]),
    },
    Layer {
        name: "dagger-vmm",
        may_use: &[],
        pure: None,
    },
    Layer {
        name: "netwatch",
        may_use: &[],
        pure: None,
    },
    Layer {
        name: "shadowgraph-sim",
        may_use: &["shadowgraph"],
        pure: None,
    },
    Layer {
        name: "dagger-client",
        may_use: &["shadowgraph", "dagger-ledger"],
        pure: None,
    },
    Layer {
        name: "dagger-node",
        may_use: &[
            "shadowgraph",
            "dagger-ledger",
            "dagger-vmm",
            "dagger-client",
        ],
        pure: None,
    },
    Layer {
        name: "dagger-cli",
        may_use: &[
            "shadowgraph",
            "dagger-ledger",
            "dagger-vmm",
            "dagger-client",
            "dagger-node",
        ],
        pure: None,
    },
    Layer {
        name: "xtask",
        may_use: &[],
        pure: None,
    },
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
    /// Set for a crate of this workspace.
    path: Option<PathBuf>,
}

/// Checks the whole workspace; the failure lists every edge and line that is not allowed.
pub fn run() -> Result<()> {
    let mut command = shell::cargo();
    command.args(["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Metadata = serde_json::from_str(&shell::output(&mut command)?)
        .context("cargo metadata is not the JSON it should be")?;
    let mut faults = edges(&metadata.packages);
    let mut files = 0;
    for package in &metadata.packages {
        if layer(&package.name).is_some_and(|layer| layer.pure.is_some()) {
            let source = package.manifest_path.with_file_name("src");
            files += impurities(&source, &mut faults)?;
        }
    }
    if faults.is_empty() {
        println!(
            "layers: {} crates depend only downwards, {files} files of pure crates are pure",
            metadata.packages.len()
        );
        return Ok(());
    }
    bail!(
        "{} faults in the layers:\n  {}",
        faults.len(),
        faults.join("\n  ")
    )
}

fn layer(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

/// Edges that the table does not allow. Tests may use any crate of the workspace.
fn edges(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Some(layer) = layer(&package.name) else {
            faults.push(format!(
                "{} is in no layer: add it to the table",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            if dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            let allowed = if dependency.path.is_some() {
                layer.may_use.contains(&dependency.name.as_str())
            } else {
                layer
                    .pure
                    .is_none_or(|crates| crates.contains(&dependency.name.as_str()))
            };
            if !allowed {
                faults.push(format!("{} must not use {}", package.name, dependency.name));
            }
        }
    }
    faults
}

/// Adds the forbidden words in every source file under `dir` and returns how many files it read.
/// Files of tests (`*_tests.rs`) may use what they like.
fn impurities(dir: &Path, faults: &mut Vec<String>) -> Result<usize> {
    let mut files = 0;
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            files += impurities(&path, faults)?;
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") && name != "tests.rs" {
            files += 1;
            let source = std::fs::read_to_string(&path)?;
            for fault in scan::impurities(&source) {
                let shown = path.strip_prefix(shell::root()).unwrap_or(&path);
                faults.push(format!(
                    "{}:{}: {}",
                    shown.display(),
                    fault.line,
                    fault.text
                ));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod layers_tests;
