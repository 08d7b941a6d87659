use super::*;
use crate::spec::tests::spec;

fn written(version: Version, spec: &InstanceSpec) -> Vec<String> {
    let all = Resource::ALL
        .into_iter()
        .flat_map(|r| settings(version, r, spec));
    all.map(|s| format!("{}={}{}", s.file, s.value, if s.needed { "" } else { "?" }))
        .collect()
}

#[test]
fn a_guest_of_two_cpus_and_a_gibibyte_under_version_2() {
    let spec = InstanceSpec {
        vcpus: 2,
        memory_mib: 1024,
        ..spec()
    };
    assert_eq!(memory_mib(&spec), 1024 + 8 + 512 + 16);
    assert_eq!(
        written(Version::V2, &spec),
        [
            "memory.max=1635778560",
            "memory.swap.max=0?",
            "memory.oom.group=1?",
            "cpu.max=300000 100000",
            "cpu.weight=200?",
            "pids.max=258",
        ]
    );
}

#[test]
fn the_same_under_version_1() {
    let spec = InstanceSpec {
        vcpus: 2,
        memory_mib: 1024,
        ..spec()
    };
    assert_eq!(
        written(Version::V1, &spec),
        [
            "memory.limit_in_bytes=1635778560",
            "memory.memsw.limit_in_bytes=1635778560?",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=300000",
            "cpu.shares=2048?",
            "pids.max=258",
        ]
    );
}

#[test]
fn the_largest_guest_stays_within_what_the_kernel_takes() {
    let spec = InstanceSpec {
        vcpus: crate::VCPUS_MAX,
        memory_mib: crate::MEMORY_MIB_MAX,
        ..spec()
    };
    let v2 = written(Version::V2, &spec);
    assert!(v2.contains(&"cpu.weight=6400?".into()), "{v2:?}");
    let v1 = written(Version::V1, &spec);
    assert!(v1.contains(&"cpu.shares=65536?".into()), "{v1:?}");
    // Tables of QEMU and of KVM, a 512th each.
    assert!(memory_mib(&spec) - spec.memory_mib > spec.memory_mib / 256);
}
