//! Follows the ledger over server-sent events.

use super::{Client, ClientError, Fault};
use crate::api::{CommitView, ErrorBody};
use futures_util::StreamExt as _;
use std::pin::Pin;

/// A line longer than this is not one that a node sends.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

type Bytes = Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>;

/// Commits as they are executed. After a failure, [`Client::follow`] from [`CommitStream::cursor`]
/// goes on without a gap.
pub struct CommitStream {
    api: String,
    bytes: Bytes,
    parser: Parser,
    cursor: u64,
}

impl Client {
    /// Commits after index `after` as they are executed; those without content only if `all`.
    pub async fn follow(&self, after: u64, all: bool) -> Result<CommitStream, ClientError> {
        let request = self
            .http
            .get(format!("{}/v1/ledger/tail?all={all}", self.api))
            .header("accept", "text/event-stream")
            .header("last-event-id", after);
        let response = request
            .send()
            .await
            .map_err(|error| ClientError::transport(&self.api, &error))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(ClientError::answered(&self.api, status, &body));
        }
        Ok(CommitStream {
            api: self.api.clone(),
            bytes: Box::pin(response.bytes_stream()),
            parser: Parser::default(),
            cursor: after,
        })
    }
}

impl CommitStream {
    /// The next commit; `None` when the node has ended the stream.
    ///
    /// # Errors
    /// When the connection breaks, or `E_GONE` when the node no longer keeps what was asked for.
    pub async fn next(&mut self) -> Result<Option<CommitView>, ClientError> {
        loop {
            while let Some(event) = self.parser.next_event() {
                if let Some(cursor) = event.id {
                    self.cursor = cursor;
                }
                match event.kind.as_str() {
                    "commit" => {
                        let commit = serde_json::from_str(&event.data);
                        return commit
                            .map(Some)
                            .map_err(|e| ClientError::unintelligible(&self.api, &e));
                    }
                    "error" => return Err(self.refused(&event.data)),
                    _ => {}
                }
            }
            match self.bytes.next().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::transport(&self.api, &error)),
                Some(Ok(bytes)) => {
                    if !self.parser.push(&bytes) {
                        let text = "a line of the stream is longer than any commit";
                        return Err(ClientError::new(
                            &self.api,
                            Fault::Node,
                            "E_NOT_A_NODE",
                            text,
                        ));
                    }
                }
            }
        }
    }

    /// Index of the last commit seen.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    fn refused(&self, data: &str) -> ClientError {
        match serde_json::from_str::<ErrorBody>(data) {
            Ok(ErrorBody { error }) => ClientError {
                api: self.api.clone(),
                fault: Fault::Refused,
                code: error.code,
                text: error.text,
            },
            Err(error) => ClientError::unintelligible(&self.api, &error),
        }
    }
}

/// One server-sent event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentEvent {
    pub(super) kind: String,
    pub(super) id: Option<u64>,
    pub(super) data: String,
}

/// Cuts the byte stream into events, as the HTML standard has it, for the fields used here.
#[derive(Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    kind: String,
    id: Option<u64>,
    data: String,
}

impl Parser {
    /// Takes more bytes; false when a line exceeds its bound.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() <= LINE_BYTES_MAX || self.buffer.contains(&b'\n')
    }

    pub(super) fn next_event(&mut self) -> Option<SentEvent> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = self.take();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.kind = value.to_owned(),
                "id" => self.id = value.parse().ok(),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                _ => {}
            }
        }
        None
    }

    fn take(&mut self) -> Option<SentEvent> {
        let (kind, id) = (std::mem::take(&mut self.kind), self.id.take());
        let data = std::mem::take(&mut self.data);
        (!data.is_empty() || id.is_some()).then_some(SentEvent { kind, id, data })
    }
}
