//! What a program can do that has taken QEMU's place, as one that broke out of an emulator could: nothing.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dagger_vmm::{Host, InstanceId, StopMode};
use support::{console, script, shim, spec_without_guest, until};

/// Tries what an attacker would, says what came of it, and waits for its end.
const ESCAPED: &str = r#"
# Asked what it can do, by the host itself, it is no guest's emulator yet.
[ "$1" = -name ] || exit 1
exec 3>&1
tell() { printf '%s\n' "$*" >&3; }
dir=$(dirname "$0")
for file in "$dir"/key "$dir"/vms/*/* launch.json disk.qcow2 seed.img lock console.log; do
  [ "$file" = "$dir/vms/*/*" ] || { cat "$file" && tell "read $file"; } >/dev/null 2>&1
done
ls . >/dev/null 2>&1 && tell "listed its directory"
(echo mine >here) 2>/dev/null && tell "wrote into its directory"
kill -0 $PPID 2>/dev/null && tell "may signal the shim"
tell "user $(id -u) groups $(id -G)"
while read -r name value; do
  case $name in CapEff:|CapPrm:|NoNewPrivs:) tell "$name $value";; esac
done < /proc/self/status
while read -r line; do
  case $line in "Max file size"*|"Max data size"*|"Max processes"*) set -- $line; tell "$2 $4";; esac
done < /proc/self/limits
tell "done"
exec sleep 100000"#;

fn id(vm: u64) -> InstanceId {
    InstanceId { vm, lease_epoch: 1 }
}

/// What the intruder of an instance said, once it has said all.
async fn said(host: &Host, id: InstanceId) -> Vec<String> {
    until("the intruder has tried everything", || async {
        let status = host.status(id).await.expect("it is here");
        assert!(status.stopped_ms.is_none(), "{status:?}");
        let lines: Vec<String> = console(host, id).lines().map(str::to_owned).collect();
        lines.iter().any(|line| line == "done").then_some(lines)
    })
    .await
}

#[tokio::test]
async fn whoever_breaks_out_of_an_emulator_owns_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open_to = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours")
    };
    // Nothing but permissions of the files themselves is in the way.
    open_to(dir.path(), 0o755);
    let key = dir.path().join("key");
    std::fs::write(&key, "the operator's").expect("it is written");
    open_to(&key, 0o600);
    let qemu = script(dir.path(), ESCAPED);
    let host = Host::with_qemu(dir.path().join("vms"), shim(), qemu).expect("it opens");
    if let Err(why) = host.guest_users() {
        eprintln!("not shown here: {why}");
        return;
    }
    let mut users = BTreeSet::new();
    for vm in 1..=3 {
        let spec = spec_without_guest(dir.path(), id(vm));
        host.start(&spec, None).await.expect("the shim starts");
        let lines = said(&host, spec.id).await;
        let status = host.status(spec.id).await.expect("it is here");
        let confinement = status.confinement.expect("it was started");
        assert!(confinement.own_user, "{}", confinement.text);
        let (who, rights) = lines.split_first().expect("it said something");
        let user = who.strip_prefix("user ").expect("it got nowhere");
        let (user, groups) = user.split_once(" groups ").expect("it has groups");
        assert_eq!(user, groups, "it is in its own group only");
        assert!(
            users.insert(user.to_owned()),
            "every guest has its own user"
        );
        let number: u32 = user.parse().expect("a number");
        assert!(host.guest_users().expect("as before").contains(&number));
        assert!(confinement.text.contains(user));
        let none = "0000000000000000";
        let wanted = [
            format!("CapPrm: {none}"),
            format!("CapEff: {none}"),
            "NoNewPrivs: 1".into(),
            // A disk of 16 MiB, 64 MiB of memory, one virtual CPU.
            format!("file {}", (16 << 20) + (16 << 10) + (64 << 20)),
            format!("data {}", (64_u64 + 2048 + 8) << 20),
            "processes 257".into(),
            "done".into(),
        ];
        assert_eq!(rights, wanted);
    }
    for vm in 1..=3 {
        host.stop(id(vm), StopMode::Kill)
            .await
            .expect("the shim may");
        host.remove(id(vm))
            .await
            .expect("nothing is left in the way");
    }
}
