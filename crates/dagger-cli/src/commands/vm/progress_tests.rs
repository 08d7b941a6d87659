use super::*;

fn event(commit: u64) -> VmEvent {
    VmEvent {
        commit,
        time_ms: 0,
        phase: "placed".into(),
        lease_epoch: 1,
        machine: None,
        code: "requested".into(),
        text: String::new(),
    }
}

#[test]
fn every_entry_is_told_once_also_when_old_ones_fall_off() {
    let history = [event(5), event(7), event(7)];
    assert_eq!(new_events(&history, 0, 0), 3);
    assert_eq!(new_events(&history, 5, 1), 2);
    assert_eq!(new_events(&history, 7, 1), 1);
    assert_eq!(new_events(&history, 7, 2), 0);
    assert_eq!(new_events(&history[1..], 5, 1), 2);
}
