//! The ledger's stream: pages of commits, and server-sent events that resume where they broke off.

use super::{Api, ApiError, commit_views};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use dagger_client::api::{CommitPage, CommitView, ErrorBody};
use futures_util::Stream;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

/// Commits of one page at most.
const PAGE_COMMITS_MAX: usize = 500;

/// A silent stream says that it is alive this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Which commits.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParams {
    /// Index of the first.
    #[serde(default)]
    from: u64,
    /// How many at most; never more than 500.
    limit: Option<usize>,
}

/// Commits from an index on, as far as this node keeps them.
#[utoipa::path(get, path = "/v1/ledger/commits", tag = "ledger", params(PageParams), responses((status = 200, body = CommitPage)))]
pub(super) async fn commits(
    State(api): State<Api>,
    Query(params): Query<PageParams>,
) -> Json<CommitPage> {
    let limit = params.limit.unwrap_or(100).min(PAGE_COMMITS_MAX);
    Json(page(&api, params.from, limit))
}

fn page(api: &Api, from: u64, limit: usize) -> CommitPage {
    let records = api.node.commits(from, limit);
    let first = records.first().map(|record| record.index);
    let next = records.last().map_or(from, |record| record.index + 1);
    let commits = api.node.read(|ledger| {
        records
            .iter()
            .map(|record| commit_views::commit(ledger, record))
            .collect()
    });
    // The first commit has index 1: asking from 0 or 1 asks for all there is.
    let oldest = first.filter(|first| *first > from.max(1));
    CommitPage {
        commits,
        next,
        oldest,
    }
}

/// What to follow.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TailParams {
    /// Begin after this commit; now, if neither this nor `Last-Event-ID` is given.
    after: Option<u64>,
    /// Send commits without transactions and changes too.
    #[serde(default)]
    all: bool,
}

/// Server-sent events, one `commit` for each; its id is the commit's index, so `Last-Event-ID` resumes.
///
/// When commits from the cursor on are no longer kept, one `error` event with code `E_GONE` ends the stream.
#[utoipa::path(
    get, path = "/v1/ledger/tail", tag = "ledger",
    params(TailParams, ("last-event-id" = Option<u64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = CommitView), (status = 400, body = ErrorBody))
)]
pub(super) async fn tail(
    State(api): State<Api>,
    Query(params): Query<TailParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let resume = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    ApiError::bad_request(
                        "E_BAD_CURSOR",
                        "Last-Event-ID must be the index of a commit.",
                    )
                })?,
        ),
    };
    let after = resume
        .or(params.after)
        .unwrap_or_else(|| api.node.status().ledger.commit);
    let follower = Follower {
        changes: api.node.changes(),
        api,
        next: after + 1,
        all: params.all,
        ready: VecDeque::new(),
        ended: false,
    };
    let stream = futures_util::stream::unfold(follower, async |mut follower| {
        let event = follower.next_event().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Reads pages; the channel only says that there may be more, so a lag loses nothing.
struct Follower {
    api: Api,
    changes: tokio::sync::broadcast::Receiver<std::sync::Arc<crate::CommitRecord>>,
    next: u64,
    all: bool,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Follower {
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if !self.fill() {
                match self.changes.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    }

    /// Reads one page; false when there is nothing new.
    fn fill(&mut self) -> bool {
        let page = page(&self.api, self.next, PAGE_COMMITS_MAX);
        if let Some(oldest) = page.oldest {
            let text = format!(
                "This node keeps commits from {oldest} on; begin there, or ask another node."
            );
            self.ready.push_back(error_event("E_GONE", &text));
            self.ended = true;
            return true;
        }
        let found = !page.commits.is_empty();
        self.next = page.next;
        for commit in page.commits {
            if self.all || !commit.outcomes.is_empty() || !commit.changes.is_empty() {
                self.ready.push_back(commit_event(&commit));
            }
        }
        found
    }
}

fn commit_event(commit: &CommitView) -> Event {
    let event = Event::default()
        .event("commit")
        .id(commit.index.to_string());
    event.json_data(commit).expect("a view is plain JSON")
}

fn error_event(code: &str, text: &str) -> Event {
    let body = ErrorBody::new(code, text);
    Event::default()
        .event("error")
        .json_data(body)
        .expect("an error is plain JSON")
}
