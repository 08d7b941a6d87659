//! A control group below which a daemon under test makes its guests', where this machine lets a test make one. It is the test's own:
//! no group that was there is divided, and what it counts (processes) bounds nobody else.

use std::path::{Path, PathBuf};

/// A group that is there for one test.
pub struct Given {
    /// Its name from the root of its hierarchy, for `node.toml`.
    pub name: String,
    dir: PathBuf,
}

impl Given {
    /// Makes one; or says why there is none here.
    pub fn make() -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = mounts.lines().find_map(counts_processes);
        let point = point.ok_or("no hierarchy of control groups counts processes here")?;
        let name = format!("dagger-test-{}", std::process::id());
        let dir = point.join(&name);
        std::fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { name, dir })
    }

    /// Guests' groups that are there, by name.
    pub fn guests(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).unwrap().flatten();
        let groups = entries.filter(|entry| entry.path().is_dir());
        groups
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // A test that failed leaves guests' groups, whose processes end with the test's.
        for guest in self.guests() {
            let _ = std::fs::remove_dir(self.dir.join(guest));
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// The mount point in a line of `/proc/self/mountinfo`, if groups there can bound processes: both interfaces of the kernel can.
fn counts_processes(line: &str) -> Option<PathBuf> {
    let (front, back) = line.split_once(" - ")?;
    let point = Path::new(front.split(' ').nth(4)?);
    let mut back = back.split(' ');
    let there = match back.next()? {
        "cgroup" => back.nth(1)?.split(',').any(|name| name == "pids"),
        "cgroup2" => {
            let below = std::fs::read_to_string(point.join("cgroup.subtree_control")).ok()?;
            below.split_whitespace().any(|name| name == "pids")
        }
        _ => false,
    };
    there.then(|| point.to_owned())
}
