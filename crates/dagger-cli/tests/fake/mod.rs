//! A listener that answers like a node, and the command under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

/// A node that knows these answers, and its own status.
pub struct FakeNode {
    pub api: String,
}

impl FakeNode {
    /// `answers` are (method and path, status, body).
    pub fn start(answers: &[(&str, u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let mut answers: Vec<(String, u16, String)> = answers
            .iter()
            .map(|(path, code, body)| ((*path).to_owned(), *code, (*body).to_owned()))
            .collect();
        answers.push(("GET /v1/status".to_owned(), 200, status().to_string()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &answers);
            }
        });
        Self { api }
    }
}

fn answer(mut stream: TcpStream, answers: &[(String, u16, String)]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let missing = (
        String::new(),
        404,
        r#"{"error":{"code":"E_UNKNOWN_PATH","text":"nothing here"}}"#.to_owned(),
    );
    let found = answers
        .iter()
        .find(|(path, ..)| request.starts_with(&format!("{path} ")));
    let (_, code, body) = found.unwrap_or(&missing);
    // In one piece: who opens a WebSocket reads no further than the first.
    let answer = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes())
}

fn status() -> serde_json::Value {
    serde_json::json!({
        "version": "0.1.0", "network": "fake", "chain_id": "00".repeat(32), "name": "alpha", "node_key": "11".repeat(32),
        "state": "ready", "now_ms": 1000, "started_at_ms": 0,
        "consensus": {
            "epoch": 0, "round": 5, "commit": 3, "quorum_weight": 3, "total_weight": 4, "awake": false,
            "leader_timeout_ms": 500, "pool_bytes": 0, "pending_events": 0, "members": []
        },
        "ledger": {"commit": 3, "time_ms": 1000, "transactions": 0}, "peers": [], "problems": []
    })
}

/// The command, away from the settings of whoever runs the tests.
pub fn dagger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagger"));
    for name in [
        "DAGGER_API",
        "DAGGER_KEY",
        "DAGGER_DEV_DATA",
        "DAGGER_TOKEN",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command
        .env("DAGGER_CONFIG_DIR", "/nonexistent/dagger")
        .env("COLUMNS", "100");
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
