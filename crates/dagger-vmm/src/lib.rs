//! Hypervisor driver of DAGGER.
//!
//! [`Host`] keeps one directory per instance and, while it runs, one [`shim`] process that owns QEMU, its console and its
//! lease. The daemon may die, freeze or be upgraded around it: everything it needs to take instances over again stands in
//! the directories and behind the shims' sockets.
//!
//! **Architecture invariant:** nothing here knows the ledger, the network or the API. Times that decide (leases) are
//! CLOCK_BOOTTIME; Unix times are for showing.

mod cgroup;
mod clock;
mod control;
mod error;
mod fake;
mod host;
mod host_key;
mod qcow2;
mod qemu;
mod record;
mod seed;
mod shim;
mod spec;
mod status;
mod uids;
mod vmm;

pub use cgroup::Resource;
pub use clock::boottime_ms;
pub use error::VmmError;
pub use fake::FakeVmm;
pub use host::Host;
pub use host_key::new_ssh_host_key;
pub use qcow2::create_empty as create_empty_disk;
pub use shim::shim_main;
pub use spec::{
    AccelChoice, Accelerator, BootSource, DISK_MIB_MAX, DiskFormat, Firmware, InstanceId,
    InstanceSpec, MEMORY_MIB_MAX, MEMORY_MIB_MIN, Profile, SSH_KEYS_MAX, Seed, USER_DATA_BYTES_MAX,
    VCPUS_MAX,
};
pub use status::{Confinement, InstanceState, InstanceStatus, Network, StopCode, StopMode};
pub use vmm::Vmm;
