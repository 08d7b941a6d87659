//! Where guests' groups may be made: what systemd delegated, or the operator named. Nobody else's group is ever divided.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::group::{clear, try_entering};
use super::limits::{Setting, together};
use super::{Parent, Parents, Resource, Version, write_to};

/// Guests' own group within what systemd delegated; the daemon is in another.
const GUESTS: &str = "guests";
/// What systemd marks a delegated group with (since version 251).
const DELEGATED: &str = "user.delegate";
/// Name of a group that is made to see whether one can be.
const PROBE: &str = "probe";
/// What groups below a group have.
const BELOW: &str = "cgroup.subtree_control";
const HOW: &str = "under systemd 254 or newer dist/dagger.service has one delegated; elsewhere make one for the daemon's user \
    and name it in node.toml (cgroup = \"…\"; docs/operations.md)";

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// Which group is seen at the mount point: not the root's in some containers.
    root: PathBuf,
    point: PathBuf,
    /// Version 1: its controllers.
    controllers: Vec<String>,
}

/// Where this process may make guests' groups, seen by making one. `named`: the operator's choice, from the root of the hierarchies.
///
/// # Errors
/// Why nowhere, and what to do.
pub fn find(named: Option<&Path>) -> Parents {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    find_in(named, &mounts, &own, try_entering)
}

fn find_in(
    named: Option<&Path>,
    mountinfo: &str,
    own: &str,
    try_out: impl Fn(&Path) -> io::Result<()>,
) -> Parents {
    let mounts = mounts(mountinfo);
    if mounts.is_empty() {
        return Err("this host has no control groups mounted".into());
    }
    let candidates = match named {
        Some(named) => given(named, &mounts)?,
        None => vec![delegated(&mounts, own)?],
    };
    let (mut parents, mut why): (Vec<Parent>, Vec<String>) = (Vec::new(), Vec::new());
    for mut parent in candidates {
        // Nothing is bounded twice where both interfaces are there.
        let had = |r: &Resource| parents.iter().any(|p: &Parent| p.resources.contains(r));
        let ready = make_ready(&mut parent, &try_out);
        parent.resources.retain(|resource| !had(resource));
        match ready {
            Ok(()) if parent.resources.is_empty() => {}
            Ok(()) => parents.push(parent),
            Err(error) => why.push(format!("{}: {error}", parent.dir.display())),
        }
    }
    if !parents.is_empty() {
        return Ok(parents);
    }
    why.push("the kernel bounds neither memory nor processors nor processes there".into());
    Err(why.swap_remove(0))
}

/// What the operator named, in every hierarchy that has it: version 2 first.
fn given(named: &Path, mounts: &[Mount]) -> Result<Vec<Parent>, String> {
    let relative: PathBuf = named
        .components()
        .filter(|c| !matches!(c, Component::RootDir))
        .collect();
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    if relative.as_os_str().is_empty() || !relative.components().all(plain) {
        return Err(format!(
            "cgroup = {named:?} names no group below the root of the hierarchies"
        ));
    }
    let mut found: Vec<Parent> = mounts
        .iter()
        .map(|mount| Parent {
            version: mount.version,
            dir: mount.point.join(&relative),
            resources: Resource::ALL
                .into_iter()
                .filter(|r| mount.controllers.iter().any(|c| c == r.as_str()))
                .collect(),
        })
        .filter(|parent| parent.dir.is_dir())
        .filter(|parent| parent.version == Version::V2 || !parent.resources.is_empty())
        .collect();
    found.sort_by_key(|parent| parent.version == Version::V1);
    if found.is_empty() {
        let dirs: Vec<_> = mounts
            .iter()
            .map(|m| m.point.join(&relative).display().to_string())
            .collect();
        return Err(format!(
            "cgroup = {named:?} is not there ({}); make it, for the daemon's user",
            dirs.join(", ")
        ));
    }
    Ok(found)
}

/// The group that systemd delegated, if the daemon is in a group within it (`DelegateSubgroup=`): one that holds processes itself
/// cannot be divided.
fn delegated(mounts: &[Mount], own: &str) -> Result<Parent, String> {
    let none = |why: &str| format!("{why}: {HOW}");
    let Some(mount) = mounts.iter().find(|m| m.version == Version::V2) else {
        return Err(none(
            "this host has cgroup v1 only, of which nothing is delegated",
        ));
    };
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.and_then(|own| Path::new(own).strip_prefix(&mount.root).ok());
    let base = own.and_then(Path::parent).map(|p| mount.point.join(p));
    let base = base.filter(|base| is_delegated(base));
    let base = base.ok_or_else(|| none("no control group was delegated to the daemon"))?;
    divide(&base).map_err(|error| format!("{}: {error}", base.display()))
}

/// Guests' own group within one that is the daemon's: they go behind the daemon together, however many they are.
fn divide(base: &Path) -> io::Result<Parent> {
    hand_down(base)?;
    let dir = base.join(GUESTS);
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for Setting { file, value, .. } in together() {
        // Not every kernel and disk has weights.
        let _ = write_to(&dir.join(file), &value);
    }
    Ok(Parent {
        version: Version::V2,
        dir,
        resources: Vec::new(),
    })
}

#[allow(unsafe_code)]
fn is_delegated(dir: &Path) -> bool {
    let path = CString::new(dir.as_os_str().as_encoded_bytes());
    let (Ok(path), Ok(name)) = (path, CString::new(DELEGATED)) else {
        return false;
    };
    let mut value = [0_u8; 8];
    // SAFETY: both names end in a zero, and the kernel writes at most as many bytes as the buffer has.
    let length = unsafe {
        nix::libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    length == 1 && value[0] == b'1'
}

/// Hands controllers down, and sees whether a guest's group can be made and entered.
fn make_ready(parent: &mut Parent, try_out: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if parent.version == Version::V2 {
        let down = hand_down(&parent.dir)?;
        parent.resources = Resource::ALL
            .into_iter()
            .filter(|r| down.iter().any(|c| c == r.as_str()))
            .collect();
    }
    let probe = parent.dir.join(format!("{PROBE}-{}", std::process::id()));
    fs::create_dir(&probe)?;
    let tried = try_out(&probe);
    clear(parent.version, &probe)?;
    tried
}

/// Lets groups below have what a group has, as far as it goes; what they have then.
fn hand_down(dir: &Path) -> io::Result<Vec<String>> {
    let words = |file: &str| -> io::Result<Vec<String>> {
        let text = fs::read_to_string(dir.join(file))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let known = ["memory", "cpu", "pids", "io"];
    let (there, down) = (words("cgroup.controllers")?, words(BELOW)?);
    let missing =
        |name: &&&str| there.iter().any(|t| t == **name) && !down.iter().any(|d| d == **name);
    let mut refused = None;
    for name in known.iter().filter(missing) {
        let written = write_to(&dir.join(BELOW), &format!("+{name}"));
        refused = written.err().or(refused);
    }
    let down = words(BELOW)?;
    match refused {
        Some(error) if down.is_empty() => Err(error),
        _ => Ok(down),
    }
}

/// Hierarchies in `/proc/self/mountinfo` (proc(5)).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let one = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?.into(), front.next()?.into());
        let mut back = back.split(' ');
        let version = match back.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let options = back.nth(1)?;
        let controllers = match version {
            Version::V1 => options.split(',').map(str::to_owned).collect(),
            Version::V2 => Vec::new(),
        };
        Some(Mount {
            version,
            root,
            point,
            controllers,
        })
    };
    mountinfo.lines().filter_map(one).collect()
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
