use super::*;

/// A specification that passes every check.
pub(crate) fn spec() -> InstanceSpec {
    let (private, public) = crate::new_ssh_host_key([7; 32]);
    InstanceSpec {
        id: InstanceId {
            vm: 7,
            lease_epoch: 1,
        },
        name: "web".into(),
        account: "acme".into(),
        vcpus: 1,
        memory_mib: 256,
        disk_mib: 64,
        boot: BootSource::Direct {
            kernel: "/k".into(),
            initrd: Some("/i".into()),
            cmdline: "console=ttyS0".into(),
        },
        seed: Seed {
            hostname: "web".into(),
            instance_id: "7-1".into(),
            ssh_authorized_keys: vec![public],
            ssh_host_key_pem: private,
            user_data: None,
        },
        accel: AccelChoice::Tcg,
        profile: Profile::Q35,
    }
}

#[test]
fn ids_are_read_only_in_the_form_they_are_written() {
    let id = InstanceId {
        vm: 7,
        lease_epoch: 12,
    };
    assert_eq!(id.to_string(), "7-12");
    assert_eq!("7-12".parse(), Ok(id));
    for text in [
        "",
        "7",
        "07-1",
        "+7-1",
        "7-1-2",
        "7--1",
        "../7-1",
        ".removed-7-1",
    ] {
        assert_eq!(text.parse::<InstanceId>(), Err(()), "{text}");
    }
}

#[test]
fn a_bad_specification_names_its_field() {
    let refused = |change: fn(&mut InstanceSpec)| {
        let mut spec = spec();
        change(&mut spec);
        match spec.check() {
            Err(VmmError::InvalidSpec { field, .. }) => field,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    assert!(spec().check().is_ok());
    assert_eq!(refused(|s| s.vcpus = 0), "vcpus");
    assert_eq!(refused(|s| s.memory_mib = 1), "memory_mib");
    assert_eq!(refused(|s| s.disk_mib = u64::MAX), "disk_mib");
    assert_eq!(refused(|s| s.seed.hostname = "a b".into()), "hostname");
    assert_eq!(
        refused(|s| s.seed.instance_id = "a\nb: c".into()),
        "instance_id"
    );
    assert_eq!(
        refused(|s| s.seed.ssh_authorized_keys[0] = "ssh-ed25519 nonsense".into()),
        "ssh_keys"
    );
    assert_eq!(
        refused(|s| s.seed.ssh_authorized_keys[0].push_str("\nruncmd: []")),
        "ssh_keys"
    );
    assert_eq!(refused(|s| s.seed.ssh_host_key_pem.clear()), "ssh_host_key");
    assert_eq!(
        refused(|s| s.seed.user_data = Some("x".repeat(USER_DATA_BYTES_MAX + 1))),
        "user_data"
    );
    assert_eq!(
        refused(|s| s.boot = BootSource::Direct {
            kernel: "/k".into(),
            initrd: None,
            cmdline: "a\nb".into()
        }),
        "cmdline"
    );
}

#[test]
fn a_seed_does_not_print_its_secrets() {
    let spec = spec();
    assert!(!format!("{spec:?}").contains("PRIVATE"));
}

#[test]
fn host_keys_are_openssh_ed25519() {
    let (private, public) = crate::new_ssh_host_key([1; 32]);
    let key = ssh_key::PrivateKey::from_openssh(&private).expect("it parses");
    assert_eq!(key.public_key().to_openssh().expect("it encodes"), public);
    assert!(public.starts_with("ssh-ed25519 AAAA"));
}
