use serde_json::json;

use super::*;

#[test]
fn messages_are_read_however_the_bytes_are_cut() {
    let text = concat!(
        r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#,
        "\r\n",
        r#"{"return": {}, "id": 1}"#,
        "\n",
        r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
        "\n",
        r#"{"id": 2, "error": {"class": "CommandNotFound", "desc": "no such thing"}}"#,
        "\n"
    );
    for cut in 1..text.len() {
        let mut qmp = Qmp::default();
        let mut messages = qmp.feed(&text.as_bytes()[..cut]);
        messages.extend(qmp.feed(&text.as_bytes()[cut..]));
        assert_eq!(messages.len(), 4, "cut at {cut}");
        assert_eq!(messages[0], Message::Greeting);
        assert_eq!(
            messages[1],
            Message::Return {
                id: 1,
                value: json!({})
            }
        );
        assert_eq!(
            messages[3],
            Message::Error {
                id: Some(2),
                text: "no such thing".into()
            }
        );
    }
}

#[test]
fn garbage_is_counted_and_survived() {
    let mut qmp = Qmp::default();
    let garbage: &[u8] =
        b"\xff\xfe\n[]\n{}\n{\"event\": 7}\nnull\n{\"return\": 1}\n\n{\"return\": 1, \"id\": 5}\n";
    assert_eq!(
        qmp.feed(garbage),
        [Message::Return {
            id: 5,
            value: json!(1)
        }]
    );
    assert_eq!(qmp.garbage_lines(), 6);
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let mut qmp = Qmp::default();
    for _ in 0..100 {
        assert!(qmp.feed(&[b'x'; 16 * 1024]).is_empty());
        assert!(qmp.line.len() <= LINE_BYTES_MAX);
    }
    assert!(qmp.feed(b"\n").is_empty());
    assert_eq!(qmp.feed(b"{\"return\": 1, \"id\": 5}\n").len(), 1);
}

#[test]
fn commands_carry_rising_ids() {
    let mut qmp = Qmp::default();
    let (one, bytes) = qmp.command("system_powerdown", Value::Null);
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        "{\"execute\":\"system_powerdown\",\"id\":1}\n"
    );
    let (two, _) = qmp.command("query-status", Value::Null);
    assert!(two > one);
}

#[test]
fn forwarded_ports_are_read_from_qemus_table() {
    let table = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                 TCP[HOST_FORWARD]  14       127.0.0.1 43651       10.0.2.15    22     0     0\r\n  \
                 TCP[ESTABLISHED]  15       127.0.0.1 50000       10.0.2.15    80     0     0\r\n";
    assert_eq!(forwarded_port(table, 22), Some(43651));
    assert_eq!(forwarded_port(table, 80), None);
    assert_eq!(forwarded_port("", 22), None);
    assert!(taken(table, 80));
    assert!(!taken(table, 22), "that is where QEMU listens");
    assert!(!taken(&table.replace("ESTABLISHED", "SYN_SENT"), 80));
}
