//! What is known of KVM on this host since it booted. A `/dev/kvm` that opens proves nothing: only a guest that showed
//! life does. The verdict is kept in a file with the boot's id; another boot may have another kernel.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::boot_id;
use crate::record::write_atomically;

/// Whether KVM runs guests on this host, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    boot_id: String,
    /// Whether it does.
    pub works: bool,
    /// For people.
    pub reason: String,
}

/// The verdict of this boot, if there is one.
pub fn remembered(file: &Path) -> Option<Verdict> {
    let verdict: Verdict = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (!verdict.boot_id.is_empty() && verdict.boot_id == boot_id()).then_some(verdict)
}

/// Keeps a verdict for the rest of this boot. Failing to is harmless: the next instance tries again.
pub fn remember(file: &Path, works: bool, reason: &str) {
    let verdict = Verdict {
        boot_id: boot_id(),
        works,
        reason: reason.into(),
    };
    let _ = serde_json::to_vec(&verdict).map(|bytes| write_atomically(file, &bytes));
}

/// Whether `/dev/kvm` can be opened at all; the reason if not.
pub fn kvm_opens() -> Result<(), String> {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    opened
        .map(drop)
        .map_err(|error| format!("/dev/kvm cannot be opened: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_for_this_boot_only() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("accel.json");
        assert_eq!(remembered(&file), None);
        remember(&file, false, "no sign of life");
        assert!(!remembered(&file).expect("it is remembered").works);
        let other = Verdict {
            boot_id: "another".into(),
            works: true,
            reason: String::new(),
        };
        fs::write(&file, serde_json::to_vec(&other).expect("it encodes")).expect("it is written");
        assert_eq!(remembered(&file), None);
        fs::write(&file, "garbage").expect("it is written");
        assert_eq!(remembered(&file), None);
    }
}
