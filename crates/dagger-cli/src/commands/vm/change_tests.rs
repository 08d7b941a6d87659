//! When a change that was waited for is done.

use super::*;

/// What a node says of a VM with this history: (commit, phase), oldest first.
fn vm(history: &[(u64, &str)]) -> VmView {
    let events: Vec<_> = history
        .iter()
        .map(|(commit, phase)| {
            serde_json::json!({"commit": commit, "time_ms": 0, "phase": phase, "lease_epoch": 1, "code": "reported", "text": ""})
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "id": 3, "name": "web", "account": "demo", "image": "demo/debian", "image_digest": "22".repeat(32),
        "resources": {"vcpus": 1, "memory_mib": 256, "disk_mib": 1024}, "failover": "none", "on_isolation": "stop",
        "restart": "never", "restarts": 0, "labels": {}, "phase": history.last().unwrap().1, "phase_since_ms": 0,
        "reason": {"code": "ok", "text": ""}, "lease_epoch": 1, "created_ms": 0, "created_commit": 1, "history": events
    }))
    .unwrap()
}

#[test]
fn a_reboot_is_done_when_the_vm_has_begun_to_run_once_more() {
    let reboot = 7;
    let unheard = vm(&[(3, "starting"), (5, "running")]);
    assert!(
        !began_after(&unheard, reboot),
        "its host has not heard of it"
    );
    let under_way = vm(&[(5, "running"), (9, "starting")]);
    assert!(!began_after(&under_way, reboot));
    let done = vm(&[(5, "running"), (9, "starting"), (12, "running")]);
    assert!(began_after(&done, reboot));
    let ended = vm(&[(9, "starting"), (12, "running"), (13, "stopped")]);
    assert!(!began_after(&ended, reboot));
}
