//! The product under the same load: runs `dagger bench consensus` and reads its figures.

use crate::measured::{Load, Measured};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Deserialize)]
struct Figure {
    name: String,
    value: f64,
}

/// Runs the program at `dagger` once: processes over iroh (QUIC, encrypted), nothing written to disk.
pub fn run(dagger: &Path, load: &Load) -> anyhow::Result<Measured> {
    let output = Command::new(dagger)
        .args(["bench", "consensus", "--json"])
        .args(["--transport", "iroh", "--store", "memory"])
        .args(["--rate", &load.rate.to_string()])
        .args(["--n", &load.n.to_string()])
        .args(["--size", &load.size.to_string()])
        .args(["--warmup", &load.warmup.to_string()])
        .args(["--duration", &load.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", dagger.display()))?;
    ensure!(output.status.success(), "{} failed", dagger.display());
    parse(&String::from_utf8(output.stdout)?, load)
}

/// Reads figures, one JSON object a line.
fn parse(lines: &str, load: &Load) -> anyhow::Result<Measured> {
    let mut figures = HashMap::new();
    for line in lines.lines() {
        let figure: Figure = serde_json::from_str(line).context("not a figure of `--json`")?;
        figures.insert(figure.name, figure.value);
    }
    let get = |name: &str| {
        let value = figures.get(name).copied();
        value.with_context(|| format!("`dagger bench consensus` gives no figure {name}"))
    };
    Ok(Measured {
        rate: load.rate,
        committed: get("committed")?,
        refused: get("refused")? as u64,
        lost_or_repeated: (get("lost")? + get("repeated")?) as u64,
        p50_ms: get("latency_p50")?,
        p99_ms: get("latency_p99")?,
        max_ms: get("latency_max")?,
        cores: get("cores")?,
        cpu_per_million: get("cpu_per_million")?,
        resident_mib: get("resident_max")?,
        sent_per_byte: get("sent_per_million")? / load.size as f64,
    })
}
