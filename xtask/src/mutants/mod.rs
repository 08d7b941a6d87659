//! `cargo xtask mutants`: are the tests able to fail? Plants wrong versions of single expressions in a copy of `shadowgraph`,
//! and runs its tests and the simulator's against each. All mutants are in one build, and one of them is switched on
//! by an environment variable: a hundred builds would take hours. Verdicts are kept: an interrupted run goes on where it was.

mod catalogue;
mod memory;
mod trial;

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use catalogue::Mutation;
use clap::Args;
use memory::Memory;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trial::{Suite, Verdict};

/// The variable that switches a mutant on.
const VARIABLE: &str = "SHADOWGRAPH_MUTANT";
/// The crates that are copied; the first is mutated.
const CRATES: [&str; 2] = ["shadowgraph", "shadowgraph-sim"];

/// Which mutants to try.
#[derive(Args, Default)]
pub struct MutantsArgs {
    /// Only mutants whose name contains one of these
    filters: Vec<String>,
    /// Print the mutants and where they stand, and try none
    #[arg(long)]
    list: bool,
    /// Try also those that were killed before, in the same source
    #[arg(long)]
    again: bool,
}

/// Tries the mutants; fails when one survives.
pub fn run(args: &MutantsArgs) -> Result<()> {
    let all = catalogue::catalogue()?;
    let chosen = |mutation: &Mutation| {
        let hit = |filter: &String| mutation.name.contains(filter.as_str());
        args.filters.is_empty() || args.filters.iter().any(hit)
    };
    let numbered: Vec<(u32, &Mutation)> = (1..).zip(&all).collect();
    let tried: Vec<_> = numbered.iter().filter(|(_, m)| chosen(m)).collect();
    ensure!(
        !tried.is_empty(),
        "no mutant has such a name: --list shows them"
    );
    if args.list {
        for (_, mutation) in tried {
            println!("{:<34} {}", mutation.name, mutation.file);
        }
        return Ok(());
    }
    let copy = shell::target_dir().join("mutants");
    let planted = plant(&copy, &numbered)?;
    let mut memory = Memory::open(copy.join("verdicts.json"), planted);
    let killed_before = |name: &str| memory.is_killed(name) && !args.again;
    let open = tried.iter().filter(|(_, m)| !killed_before(&m.name));
    let open: Vec<_> = open.collect();
    println!(
        "{} mutants, {} of them killed in an earlier run of this source",
        tried.len(),
        tried.len() - open.len()
    );
    let start = Instant::now();
    let mut survivors = Vec::new();
    if !open.is_empty() {
        let suites = shell::step("build", || trial::build(&copy))?;
        let suites = shell::step("the source as it is", || baseline(suites))?;
        for (number, mutation) in open {
            let began = Instant::now();
            let before = memory.before(&mutation.name).cloned();
            let verdict = trial::against(&suites, *number, before.as_ref())?;
            let took = shell::seconds(began.elapsed());
            println!("{:<34} {verdict} ({took})", mutation.name);
            if matches!(verdict, Verdict::Survived) {
                survivors.push(mutation.name.as_str());
            }
            memory.note(&mutation.name, verdict)?;
        }
    }
    let killed = tried.len() - survivors.len();
    println!(
        "\n{killed} of {} mutants killed; this run took {}",
        tried.len(),
        shell::seconds(start.elapsed())
    );
    if !survivors.is_empty() {
        bail!("no test notices: {}", survivors.join(", "));
    }
    Ok(())
}

/// The tests must pass without a mutant; the CPU time they take bounds what they may take with one.
fn baseline(suites: Vec<Suite>) -> Result<Vec<Suite>> {
    let mut timed = Vec::new();
    for mut suite in suites {
        let before = trial::children_cpu()?;
        match suite.run(0, None)? {
            Verdict::Survived => {}
            other => bail!("without a mutant, {}: {other}", suite.name),
        }
        suite.usual = trial::children_cpu()?.saturating_sub(before);
        println!("    {:<34} {}", suite.name, shell::seconds(suite.usual));
        timed.push(suite);
    }
    // What kills most in the least time goes first.
    timed.sort_by_key(|suite| suite.usual);
    Ok(timed)
}

/// Copies the crates and plants the switches. Files that would not change are left alone, so that cargo builds only what did.
/// Returns the digest of all that was planted.
fn plant(copy: &Path, mutations: &[(u32, &Mutation)]) -> Result<String> {
    let manifest = std::fs::read_to_string(shell::root().join("Cargo.toml"))?;
    let members = "members = [\"crates/*\", \"xtask\"]";
    ensure!(
        manifest.contains(members),
        "the workspace lists its members otherwise than {members}"
    );
    let mut files = BTreeMap::new();
    files.insert(
        PathBuf::from("Cargo.toml"),
        manifest
            .replace(members, "members = [\"crates/*\"]")
            .into_bytes(),
    );
    files.insert(
        PathBuf::from("Cargo.lock"),
        std::fs::read(shell::root().join("Cargo.lock"))?,
    );
    for name in CRATES {
        gather(&Path::new("crates").join(name), &mut files)?;
    }
    let sources = Path::new("crates").join(CRATES[0]).join("src");
    let mut by_file: BTreeMap<&str, Vec<(u32, &Mutation)>> = BTreeMap::new();
    for (number, mutation) in mutations {
        by_file
            .entry(&mutation.file)
            .or_default()
            .push((*number, mutation));
    }
    for (name, mutations) in by_file {
        let path = sources.join(name);
        let source = files
            .get_mut(&path)
            .with_context(|| format!("there is no {}", path.display()))?;
        let text = std::str::from_utf8(source)?;
        *source = catalogue::with_switches(text, &mutations)?.into_bytes();
    }
    let library = files
        .get_mut(&sources.join("lib.rs"))
        .context("there is no lib.rs")?;
    // The switches are not written for the compiler's taste.
    library.splice(..0, *b"#![allow(warnings, clippy::all)]\n");
    library.extend_from_slice(switchboard().as_bytes());
    for (path, bytes) in &files {
        let to = copy.join(path);
        if std::fs::read(&to).is_ok_and(|old| old == *bytes) {
            continue;
        }
        std::fs::create_dir_all(to.parent().expect("below the copy"))?;
        std::fs::write(to, bytes)?;
    }
    remove_others(copy, &copy.join("crates"), &files)?;
    Ok(digest(&files))
}

fn digest(files: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in files {
        for part in [path.as_os_str().as_encoded_bytes(), bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The module that the switches ask.
fn switchboard() -> String {
    format!(
        r#"
mod mutation {{
    /// The number of the mutant that is on.
    pub(crate) fn active() -> u32 {{
        static ACTIVE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let read = || std::env::var("{VARIABLE}").ok()?.parse().ok();
        *ACTIVE.get_or_init(|| read().unwrap_or(0))
    }}
}}
"#
    )
}

fn gather(below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(shell::root().join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            gather(&path, files)?;
        } else {
            files.insert(path, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// A test file that was removed must not go on testing the copy.
fn remove_others(copy: &Path, below: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(below)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_others(copy, &entry.path(), files)?;
        } else if !files.contains_key(entry.path().strip_prefix(copy)?) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
