//! Which user a guest's QEMU runs as: one for each instance, out of a range that nobody else on the host uses.
//!
//! Whoever breaks out of an emulator is that user, who owns nothing: not the daemon's keys, not another guest's disk.
//! Ranges are those that the system hands out for such purposes (subuid(5), subgid(5)).

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{User, geteuid};
use serde::{Deserialize, Serialize};

/// Root's range if the system names none: above what systemd and container engines take for themselves.
const ROOT_RANGE: Range<u32> = 0x7000_0000..0x7800_0000;
/// Permission of everybody to execute, or to search a directory.
const OTHERS_EXECUTE: u32 = 0o001;

/// Who QEMU is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestUser {
    /// A user (and a group of the same number) of the instance's own.
    Own(u32),
    /// The daemon's user, and why.
    Daemons(String),
}

impl Default for GuestUser {
    fn default() -> Self {
        Self::Daemons("it was prepared by an older program".into())
    }
}

/// The users for guests that this process may hand out.
///
/// # Errors
/// Why there are none, and what to do.
pub fn range() -> Result<Range<u32>, String> {
    let user = geteuid();
    let name = User::from_uid(user).ok().flatten().map(|user| user.name);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid) = (read("/etc/subuid"), read("/etc/subgid"));
    let own = common(&subuid, &subgid, name.as_deref(), user.as_raw());
    own.or(user.is_root().then_some(ROOT_RANGE)).ok_or_else(|| {
        let name = name.unwrap_or_else(|| user.to_string());
        format!("no ids are set aside for {name}: usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 {name}")
    })
}

/// The longest range that both files give to the user.
fn common(subuid: &str, subgid: &str, name: Option<&str>, user: u32) -> Option<Range<u32>> {
    let user = user.to_string();
    let given = |text: &str| -> Vec<Range<u32>> {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.trim().split(':');
            let whose = words.next()?;
            let start: u32 = words.next()?.parse().ok()?;
            let end = start.checked_add(words.next()?.parse().ok()?)?;
            // Number 0 is root whatever the file says.
            (name == Some(whose) || whose == user).then_some(start.max(1)..end)
        });
        lines.collect()
    };
    let groups = given(subgid);
    let pairs = given(subuid).into_iter().flat_map(|users| {
        let both = move |g: &Range<u32>| users.start.max(g.start)..users.end.min(g.end);
        groups.iter().map(both).collect::<Vec<_>>()
    });
    pairs.filter(|both| !both.is_empty()).max_by_key(Range::len)
}

/// The user of the instance in a directory: where the directory's name leads, or the next one that is not taken. Daemons
/// that share a range choose apart without knowing of one another.
pub fn choose(range: &Range<u32>, dir: &Path, taken: &BTreeSet<u32>) -> Option<u32> {
    let hash = blake3::derive_key("dagger guest user v1", dir.as_os_str().as_encoded_bytes());
    let count = u64::from(
        range
            .end
            .checked_sub(range.start)
            .filter(|count| *count > 0)?,
    );
    let first = u64::from_le_bytes(hash[..8].try_into().expect("eight bytes")) % count;
    let from_there = (0..count).map(|step| range.start + ((first + step) % count) as u32);
    from_there.into_iter().find(|user| !taken.contains(user))
}

/// Whether any user of the host may run the program at this (absolute) path.
pub fn everybody_may_run(program: &Path) -> bool {
    let Ok(program) = program.canonicalize() else {
        return false;
    };
    program
        .ancestors()
        .all(|path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & OTHERS_EXECUTE != 0))
}

#[cfg(test)]
#[path = "uids_tests.rs"]
mod tests;
