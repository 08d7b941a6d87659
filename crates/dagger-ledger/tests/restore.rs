//! Snapshots: of the present format, of an earlier one, and of a stranger's.

mod cloud;

use cloud::{Cloud, vm};
use dagger_ledger::*;

/// A state as format 4 has it, hexadecimal, below the state root that was computed when it was written.
const FORMAT_4: &str = include_str!("fixtures/format_4.hex");

fn format_4() -> (String, Vec<u8>) {
    let (root, hex) = FORMAT_4.split_once('\n').expect("a line with the root");
    let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
    let bytes = hex
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]));
    (root.to_string(), bytes.collect())
}

#[test]
fn a_state_of_format_4_migrates_with_its_root_and_goes_on() {
    let (root, old) = format_4();
    assert_eq!(old[..4], 4u32.to_le_bytes());
    let mut ledger = Ledger::restore(&old).expect("a format that is still read");
    assert_eq!(Digest(ledger.state_root()).to_string(), root);
    assert_eq!(Digest(ledger.recompute_state_root()).to_string(), root);
    assert!(ledger.vms().all(|vm| vm.ports == Ports::default()));
    let new = ledger.snapshot();
    assert_ne!(new[..4], old[..4]);
    let mut copy = Ledger::restore(&new).expect("a good snapshot");
    assert_eq!(copy.state_root(), ledger.state_root());
    // What came with a later format can be used, and only then is part of a record.
    let mut cloud = Cloud::new(4);
    cloud.next_commit = ledger.commit_index().expect("commits") + 1;
    cloud.time_ms = ledger.time_ms();
    cloud.ledger = ledger;
    let before = record(&mut cloud, "web-0");
    let publish = Publish {
        guest_port: 80,
        host_port: None,
    };
    cloud.create(VmCreate {
        publish: vec![publish],
        ..vm("newer")
    });
    assert_eq!(record(&mut cloud, "web-0"), before);
    let newer: VmRecord = borsh::from_slice(&record(&mut cloud, "newer")).expect("a record");
    assert_eq!(newer.ports.asked, [publish]);
}

/// The bytes that the state root covers of a VM.
fn record(cloud: &mut Cloud, name: &str) -> Vec<u8> {
    cloud.ledger.state_root();
    let key = StateKey::Vm("acme".into(), name.into());
    let proof = cloud.ledger.prove(&key).expect("nothing changed since");
    proof.record.expect("the VM is there")
}

#[test]
fn a_record_has_one_form_with_its_later_part_and_without() {
    let mut cloud = Cloud::new(4);
    cloud.create(vm("plain"));
    let plain = record(&mut cloud, "plain");
    let mut spelled_out = plain.clone();
    spelled_out.extend(borsh::to_vec(&(0u32, 0u32)).expect("bytes"));
    assert!(borsh::from_slice::<VmRecord>(&plain).is_ok());
    assert!(borsh::from_slice::<VmRecord>(&spelled_out).is_err());
    let cloud = Cloud::busy();
    for vm in cloud.ledger.vms() {
        let bytes = borsh::to_vec(vm).expect("bytes");
        assert_eq!(
            borsh::from_slice::<VmRecord>(&bytes).expect("a record"),
            *vm
        );
        for cut in 1..bytes.len() {
            let rest = borsh::from_slice::<VmRecord>(&bytes[..cut]);
            // Cut off before the later part, it is a record of a VM that publishes nothing.
            assert!(rest.is_err() || rest.is_ok_and(|short| short.ports == Ports::default()));
        }
    }
}

#[test]
fn a_snapshot_restores_to_identical_roots_and_goes_on_alike() {
    let mut cloud = Cloud::busy();
    cloud.all_lose(2);
    cloud.run(20_000);
    let mut copy = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(copy.state_root(), cloud.ledger.state_root());
    // A transaction executed before the snapshot is known after it.
    let create = cloud.account(Action::VmCreate(vm("again")));
    cloud.ok(vec![create.clone()]);
    let mut copy_after = Ledger::restore(&cloud.ledger.snapshot()).unwrap();
    assert_eq!(copy_after.check_admission(&create), Err(Code::Repeated));
    for _ in 0..60 {
        let index = copy_after.commit_index().unwrap() + 1;
        cloud.time_ms += 1_000;
        let input = CommitInput {
            index,
            digest: [9; 32],
            time_ms: cloud.time_ms,
            active_members: &[(0, index + 1_000), (1, index + 1_000), (3, index + 1_000)],
            transactions: &[],
            epoch: 0,
            is_checkpoint: true,
        };
        assert_eq!(copy_after.execute(&input), cloud.ledger.execute(&input));
        assert_eq!(copy_after.state_root(), cloud.ledger.state_root());
    }
    assert_eq!(
        copy_after.machine(MachineId(2)).unwrap().state,
        MachineState::Lost
    );
}

#[test]
fn a_strangers_count_does_not_decide_how_much_is_allocated() {
    let cloud = Cloud::busy();
    let bytes = cloud.ledger.snapshot();
    // The number of ids given out stands before the list of VMs, which begins with its length, as each of them does.
    let listed = |vms: &[VmRecord]| {
        let records: Vec<_> = vms.iter().map(|vm| borsh::to_vec(vm).unwrap()).collect();
        borsh::to_vec(&records).unwrap()
    };
    let vms: Vec<_> = cloud.ledger.vms().cloned().collect();
    let list = listed(&vms);
    let at = bytes
        .windows(list.len())
        .position(|window| window == list)
        .expect("the VMs are in the snapshot");
    for ids in [u64::MAX, 1 << 40] {
        let mut hostile = bytes.clone();
        hostile[at - 8..at].copy_from_slice(&ids.to_le_bytes());
        assert_eq!(
            Ledger::restore(&hostile).err(),
            Some(RestoreError::Inconsistent("VM ids".into()))
        );
    }
    let mut hostile = bytes.clone();
    hostile[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        Ledger::restore(&hostile).err(),
        Some(RestoreError::Malformed)
    );
    let mut beyond = vms;
    beyond.last_mut().expect("there are VMs").id.0 = u64::MAX;
    let mut hostile = bytes.clone();
    hostile.splice(at..at + list.len(), listed(&beyond));
    assert_eq!(
        Ledger::restore(&hostile).err(),
        Some(RestoreError::Inconsistent("VM ids".into()))
    );
}

#[test]
fn damaged_snapshots_are_refused() {
    let cloud = Cloud::busy();
    let bytes = cloud.ledger.snapshot();
    assert_eq!(
        Ledger::restore(&bytes[..3]).err(),
        Some(RestoreError::Malformed)
    );
    let mut newer = bytes.clone();
    newer[0] = 200;
    assert_eq!(
        Ledger::restore(&newer).err(),
        Some(RestoreError::Version(200))
    );
    let root = cloud.ledger.recompute_state_root();
    for at in (4..bytes.len()).step_by(41) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        // Refused, or visibly another state: never a panic, never the same root.
        if let Ok(mut other) = Ledger::restore(&damaged) {
            assert_ne!(other.state_root(), root, "byte {at}");
        }
    }
}
