//! The audit trail of a run: every step goes into one hash, so that two runs of a seed can be compared to the byte, and on
//! request onto the terminal's side as text. Nothing here decides anything.

/// Collects the steps of a run.
pub struct Trace {
    hasher: blake3::Hasher,
    steps: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trail; with `keep_lines` it also keeps a line of text a step.
    pub fn new(keep_lines: bool) -> Self {
        let hasher = blake3::Hasher::new_derive_key("dagger simulator trace v1");
        Self {
            hasher,
            steps: 0,
            lines: keep_lines.then(Vec::new),
        }
    }

    /// Records that `node` did `what` at `at_us`. `data` is hashed; `text` is only made when lines are kept.
    pub fn step(
        &mut self,
        at_us: u64,
        node: usize,
        what: &'static str,
        data: &[u8],
        text: impl FnOnce() -> String,
    ) {
        self.steps += 1;
        self.hasher.update(&at_us.to_le_bytes());
        self.hasher.update(&(node as u64).to_le_bytes());
        self.hasher.update(&(what.len() as u64).to_le_bytes());
        self.hasher.update(what.as_bytes());
        self.hasher.update(&(data.len() as u64).to_le_bytes());
        self.hasher.update(data);
        if let Some(lines) = &mut self.lines {
            lines.push(format!(
                "{:>10}.{:03} ms  n{node:<3} {what:<12} {}",
                at_us / 1000,
                at_us % 1000,
                text()
            ));
        }
    }

    /// Number of steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash of all steps so far, in hex. Equal seeds give equal hashes.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
