//! What became of the mutants, on disk after each: for the next run. Knows verdicts, not how they come about.

use super::trial::Verdict;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The verdicts of earlier runs.
pub struct Memory {
    path: PathBuf,
    /// The digest of what is tried now.
    source: String,
    verdicts: BTreeMap<String, Noted>,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    /// The digest of what it was planted in.
    source: String,
    verdict: Verdict,
}

impl Memory {
    /// Reads what earlier runs left at `path`; nothing if it cannot be read.
    pub fn open(path: PathBuf, source: String) -> Self {
        let text = std::fs::read(&path).unwrap_or_default();
        let verdicts = serde_json::from_slice(&text).unwrap_or_default();
        Self {
            path,
            source,
            verdicts,
        }
    }

    /// Whether it was killed in this very source.
    pub fn is_killed(&self, mutant: &str) -> bool {
        let noted = self.verdicts.get(mutant);
        noted.is_some_and(|noted| noted.source == self.source && noted.verdict != Verdict::Survived)
    }

    /// What became of it when it was last tried, in whatever source.
    pub fn before(&self, mutant: &str) -> Option<&Verdict> {
        self.verdicts.get(mutant).map(|noted| &noted.verdict)
    }

    /// Notes a verdict, on disk.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn note(&mut self, mutant: &str, verdict: Verdict) -> Result<()> {
        let source = self.source.clone();
        self.verdicts
            .insert(mutant.to_owned(), Noted { source, verdict });
        let text = serde_json::to_vec_pretty(&self.verdicts)?;
        // Whole or not at all: an interruption must not cost what is known.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
