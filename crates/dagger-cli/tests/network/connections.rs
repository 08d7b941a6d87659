//! Connections to a node's API: what is served to any, and what they cost the node while they are open.

use super::support::{Home, found, text};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Connections that are open at once, so many that what a node that has just started grows by anyway is little beside them; and what each
/// may cost: buffers, not a copy of anything.
const OPEN: u64 = 256;
const EACH_KIB_MAX: u64 = 256;

/// Asks for a path.
fn ask(home: &Home, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(home.address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: node\r\n{more}\r\n").unwrap();
    stream
}

/// Memory that is a process' own, KiB.
fn private_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    let values = lines.map(|line| line.split_whitespace().nth(1).unwrap());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn an_open_connection_costs_a_node_little_memory() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let node = homes[0].start();
    homes[0].ready();
    let connect = || {
        let mut stream = ask(&homes[0], "/nothing", "");
        let mut answer = Vec::new();
        while !text(&answer).contains("E_UNKNOWN_PATH") {
            let mut more = [0; 1024];
            let length = stream.read(&mut more).unwrap();
            assert_ne!(length, 0, "{}", text(&answer));
            answer.extend(&more[..length]);
        }
        stream
    };
    // The first fill what all share.
    let mut open = vec![connect(), connect(), connect(), connect()];
    let before = private_kib(node.child.id());
    open.extend((0..OPEN).map(|_| connect()));
    let grown = private_kib(node.child.id()).saturating_sub(before);
    println!("{OPEN} connections: {grown} KiB");
    assert!(
        grown <= OPEN * EACH_KIB_MAX,
        "{OPEN} connections cost {grown} KiB"
    );
}

#[test]
fn the_document_that_is_served_is_the_one_checked_in() {
    let root = tempfile::tempdir().unwrap();
    let homes = found(root.path(), &["alpha"]);
    let _node = homes[0].start();
    homes[0].ready();
    let mut answer = String::new();
    let mut stream = ask(&homes[0], "/openapi.json", "connection: close\r\n");
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/json"), "{head}");
    let served: Value = serde_json::from_str(body).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let checked_in = std::fs::read_to_string(path).unwrap();
    assert!(served == serde_json::from_str::<Value>(&checked_in).unwrap());
}
