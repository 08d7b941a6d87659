//! Which file of a group gets which value: a pure function of the specification.

use super::{Resource, Version};
use crate::spec::InstanceSpec;

const MIB: u64 = 1 << 20;
/// An emulator's own memory: translated code (128 MiB), devices, buffers. Several times what an honest one was seen to take.
const EMULATOR_MIB: u64 = 512;
/// The kernel's tables for a guest's memory count as memory too: a 512th for QEMU, as much again for KVM, and room.
const TABLES_SHARE: u64 = 128;
/// A thread's stack.
const STACK_MIB: u64 = 8;
/// Threads of an emulator besides those of its virtual CPUs; most wait for disks, 64 for each.
pub const EMULATOR_THREADS: u64 = 256;
/// Over which time a share of the processors is counted.
const PERIOD_US: u64 = 100_000;
/// Of one virtual CPU, where nothing else is said: the kernel's own default.
const WEIGHT_V2: u64 = 100;
const WEIGHT_V2_MAX: u64 = 10_000;
const SHARES_V1: u64 = 1024;
const SHARES_V1_MAX: u64 = 262_144;

/// A value for a file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the file.
    pub file: &'static str,
    /// What is written into it.
    pub value: String,
    /// Without it nothing is bounded. Others are not there on every kernel.
    pub needed: bool,
}

fn needed(file: &'static str, value: impl ToString) -> Setting {
    Setting {
        file,
        value: value.to_string(),
        needed: true,
    }
}

fn wanted(file: &'static str, value: impl ToString) -> Setting {
    Setting {
        needed: false,
        ..needed(file, value)
    }
}

/// Most memory that an instance's group may hold, in MiB.
pub fn memory_mib(spec: &InstanceSpec) -> u64 {
    let guest = spec.memory_mib;
    guest + guest / TABLES_SHARE + EMULATOR_MIB + STACK_MIB * u64::from(spec.vcpus)
}

/// What bounds a resource of an instance, in the order in which it is written.
pub fn settings(version: Version, resource: Resource, spec: &InstanceSpec) -> Vec<Setting> {
    let vcpus = u64::from(spec.vcpus);
    let bytes = memory_mib(spec) * MIB;
    // One more than virtual CPUs: the emulator serves disks and network beside them.
    let quota_us = (vcpus + 1) * PERIOD_US;
    match (resource, version) {
        (Resource::Memory, Version::V2) => vec![
            needed("memory.max", bytes),
            // What may not be held is not to be moved to the swap either.
            wanted("memory.swap.max", 0),
            wanted("memory.oom.group", 1),
        ],
        (Resource::Memory, Version::V1) => vec![
            needed("memory.limit_in_bytes", bytes),
            wanted("memory.memsw.limit_in_bytes", bytes),
        ],
        (Resource::Cpu, Version::V2) => vec![
            needed("cpu.max", format!("{quota_us} {PERIOD_US}")),
            wanted("cpu.weight", (vcpus * WEIGHT_V2).min(WEIGHT_V2_MAX)),
        ],
        (Resource::Cpu, Version::V1) => vec![
            needed("cpu.cfs_period_us", PERIOD_US),
            needed("cpu.cfs_quota_us", quota_us),
            wanted("cpu.shares", (vcpus * SHARES_V1).min(SHARES_V1_MAX)),
        ],
        (Resource::Pids, _) => vec![needed("pids.max", vcpus + EMULATOR_THREADS)],
    }
}

/// What makes all guests together go behind the daemon: half of what its own group has by default.
pub fn together() -> [Setting; 2] {
    [wanted("cpu.weight", 50), wanted("io.weight", 50)]
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
