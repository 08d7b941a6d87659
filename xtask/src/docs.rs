//! `cargo xtask docs`: what the documents say about the repository must hold: links lead somewhere,
//! rules that the code cites exist, every dependency has its line, every command named exists.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PROTOCOL: &str = "docs/protocol.md";
const DEPENDENCIES: &str = "docs/dependencies.md";

/// Checks every document and every mention of one in the sources.
pub fn run() -> Result<()> {
    let mut faults = Vec::new();
    let documents = tracked(&["*.md"])?;
    let commands = command_names();
    for document in &documents {
        let text = read(document)?;
        links(document, &text, &mut faults);
        unknown_commands(document, &text, &commands, &mut faults);
    }
    let sources = tracked(&["*.rs", "*.toml"])?;
    let rules = rules(&read(Path::new(PROTOCOL)).unwrap_or_default());
    for source in &sources {
        mentions(source, &read(source)?, &rules, &mut faults);
    }
    missing_dependencies(&mut faults)?;
    if faults.is_empty() {
        println!(
            "docs: {} documents hold, {} rules can be cited",
            documents.len(),
            rules.len()
        );
        return Ok(());
    }
    bail!(
        "{} faults in the documents:\n  {}",
        faults.len(),
        faults.join("\n  ")
    )
}

/// Files of the checkout that git knows or would add, by pattern.
fn tracked(patterns: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = shell::program("git");
    command
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
        ])
        .args(patterns);
    let mut files: Vec<PathBuf> = shell::output(&mut command)?
        .lines()
        .map(PathBuf::from)
        .collect();
    files.retain(|file| shell::root().join(file).is_file());
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(shell::root().join(file))
        .with_context(|| format!("cannot read {}", file.display()))
}

/// Relative links of a document must lead to a file or folder.
fn links(document: &Path, text: &str, faults: &mut Vec<String>) {
    let folder = document.parent().unwrap_or(Path::new(""));
    for target in link_targets(text) {
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
            continue;
        }
        if !shell::root().join(folder).join(path).exists() {
            faults.push(format!(
                "{}: the link to {target} leads nowhere",
                document.display()
            ));
        }
    }
}

/// What stands in the round brackets of `[text](target)`, outside fenced blocks.
fn link_targets(text: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, tail)) = after.split_once(')') else {
                break;
            };
            targets.push(target);
            rest = tail;
        }
    }
    targets
}

/// The lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

fn command_names() -> BTreeSet<String> {
    use clap::CommandFactory;
    crate::Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// `cargo xtask NAME` in a document must name a command that exists.
fn unknown_commands(
    document: &Path,
    text: &str,
    commands: &BTreeSet<String>,
    faults: &mut Vec<String>,
) {
    for after in text.split("cargo xtask ").skip(1) {
        let end = after
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(after.len());
        let name = &after[..end];
        if !name.is_empty() && !name.starts_with('-') && !commands.contains(name) {
            faults.push(format!(
                "{}: there is no `cargo xtask {name}`",
                document.display()
            ));
        }
    }
}

/// The numbers of the rules that the protocol document states: lines and list items that begin
/// with `4.3`, bold or not, and headings that begin with `4.`.
fn rules(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.trim_start_matches(['#', '*', '-', ' ', '|', '`']))
        .map(|line| {
            let end = line
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(line.len());
            line[..end].trim_end_matches('.').to_owned()
        })
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Documents and rules that a source names must exist.
fn mentions(source: &Path, text: &str, rules: &BTreeSet<String>, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        let here = || format!("{}:{}", source.display(), number + 1);
        for after in line.split("docs/").skip(1) {
            let Some((name, rest)) = after.split_once(".md") else {
                continue;
            };
            let path = format!("docs/{name}.md");
            if name.contains([' ', '"', '*', '{']) {
                continue;
            }
            if !shell::root().join(&path).exists() {
                faults.push(format!("{} names {path}, which does not exist", here()));
            } else if path == PROTOCOL {
                let cited = cited_rule(rest);
                if cited.is_some_and(|rule| !rules.contains(rule)) {
                    faults.push(format!(
                        "{} cites rule {}, which {PROTOCOL} does not state",
                        here(),
                        cited.unwrap_or_default()
                    ));
                }
            }
        }
    }
}

/// The `4.3` right after `docs/protocol.md `, if there is one.
fn cited_rule(after: &str) -> Option<&str> {
    let after = after.strip_prefix(' ')?;
    let end = after
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(after.len());
    let rule = after[..end].trim_end_matches('.');
    rule.starts_with(|c: char| c.is_ascii_digit())
        .then_some(rule)
}

/// Every crate of `[workspace.dependencies]` from the registry needs its line.
fn missing_dependencies(faults: &mut Vec<String>) -> Result<()> {
    let manifest = read(Path::new("Cargo.toml"))?;
    let page = read(Path::new(DEPENDENCIES))?;
    for name in registry_crates(&manifest) {
        if !page.contains(&format!("| {name} |")) {
            faults.push(format!("{DEPENDENCIES} has no line on {name}"));
        }
    }
    Ok(())
}

fn registry_crates(manifest: &str) -> Vec<&str> {
    let Some((_, section)) = manifest.split_once("[workspace.dependencies]") else {
        return Vec::new();
    };
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path ="))
        .filter_map(|line| line.split_once(" ="))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

#[cfg(test)]
#[path = "docs_tests.rs"]
mod docs_tests;
