//! The HTTP client of one node's API.
//!
//! Every error says which node, a stable code and what to do. No retry and no choice between nodes
//! happens here, except that waiting asks again.

mod error;
mod stream;
mod tunnel;

pub use error::{ClientError, Fault};
pub use stream::CommitStream;
pub use tunnel::{LogStream, Tunnel};

use crate::api::*;
use crate::proof::{Receipt, RecordProof};
use dagger_ledger::{Parameters, SignedTransaction, StateKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// A server is asked to hold a waiting request no longer than this.
const LONG_POLL: Duration = Duration::from_secs(10);

/// A server that takes longer to answer, beyond what it was asked to wait, counts as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A stage of a transaction's way that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is in an event.
    Event,
    /// It is in order.
    Commit,
    /// It is executed.
    Executed,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Stage::Event => "event",
            Stage::Commit => "commit",
            Stage::Executed => "executed",
        }
    }

    fn reached(self, status: &TransactionStatus) -> bool {
        status.outcome.is_some()
            || match self {
                Stage::Event => status.event.is_some(),
                Stage::Commit => status.commit.is_some(),
                Stage::Executed => false,
            }
    }
}

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    api: String,
}

impl Client {
    /// A client of the node whose API is at `api`, such as `http://127.0.0.1:7480`. Does not connect yet.
    ///
    /// # Errors
    /// `E_API_URL` when `api` is not an `http://` URL.
    pub fn new(api: &str) -> Result<Self, ClientError> {
        let api = api.trim_end_matches('/').to_owned();
        let wrong = |why: String| ClientError::new(&api, Fault::Usage, "E_API_URL", why);
        let url = reqwest::Url::parse(&api).map_err(|error| {
            wrong(format!(
                "`{api}` is not a URL ({error}); write for example http://127.0.0.1:7480"
            ))
        })?;
        if url.scheme() != "http" {
            return Err(wrong(format!(
                "`{api}`: only http:// is spoken; reach a distant node through a tunnel or a local proxy"
            )));
        }
        // Another crate of the program may turn on TLS in the HTTP library, which then insists on a
        // provider although none of its connections here use it. An error means that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("dagger/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { http, api })
    }

    /// The URL this client was made with.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// How the node is.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// The node's look at itself.
    pub async fn checks(&self) -> Result<Vec<CheckView>, ClientError> {
        self.get("/v1/checks").await
    }

    /// Open proposals, and those that were closed lately.
    pub async fn proposals(&self) -> Result<Vec<ProposalView>, ClientError> {
        self.get("/v1/proposals").await
    }

    /// The ledger's parameters in force.
    pub async fn parameters(&self) -> Result<Parameters, ClientError> {
        self.get("/v1/parameters").await
    }

    /// All operators.
    pub async fn operators(&self) -> Result<Vec<OperatorView>, ClientError> {
        self.get("/v1/operators").await
    }

    /// All machines.
    pub async fn machines(&self) -> Result<Vec<MachineView>, ClientError> {
        self.get("/v1/machines").await
    }

    /// All accounts.
    pub async fn accounts(&self) -> Result<Vec<AccountView>, ClientError> {
        self.get("/v1/accounts").await
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<ImageView>, ClientError> {
        self.get("/v1/images").await
    }

    /// One image.
    pub async fn image(&self, account: &str, name: &str) -> Result<ImageView, ClientError> {
        self.get(&format!(
            "/v1/images/{}/{}",
            segment(account),
            segment(name)
        ))
        .await
    }

    /// All VMs, or those of one account.
    pub async fn vms(&self, account: Option<&str>) -> Result<Vec<VmView>, ClientError> {
        match account {
            Some(account) => {
                self.get(&format!("/v1/vms?account={}", segment(account)))
                    .await
            }
            None => self.get("/v1/vms").await,
        }
    }

    /// One VM.
    pub async fn vm(&self, account: &str, name: &str) -> Result<VmView, ClientError> {
        self.get(&vm_path(account, name, "")).await
    }

    /// Why a VM is where it is.
    pub async fn explain(&self, account: &str, name: &str) -> Result<ExplanationView, ClientError> {
        self.get(&vm_path(account, name, "/explain")).await
    }

    /// Hands a transaction to the node. Doing so again is harmless.
    pub async fn submit(&self, transaction: &SignedTransaction) -> Result<Submitted, ClientError> {
        let request = SubmitRequest {
            body: String::from_utf8_lossy(&transaction.body).into_owned(),
            signature: hex::encode(transaction.signature),
        };
        self.post("/v1/transactions", &request).await
    }

    /// What the node knows of a transaction; `None` when it knows nothing.
    pub async fn transaction(
        &self,
        digest: &str,
    ) -> Result<Option<TransactionStatus>, ClientError> {
        let answer = self
            .get(&format!("/v1/transactions/{}", segment(digest)))
            .await;
        match answer {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.code == "E_UNKNOWN_TRANSACTION" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The receipt of a transaction. Waits a while for a certificate. Trust it only once [`crate::proof::Verifier`] has checked it.
    pub async fn receipt(&self, digest: &str) -> Result<Receipt, ClientError> {
        let path = format!("/v1/transactions/{}/receipt", segment(digest));
        self.get_within(&path, LONG_POLL + ANSWER_TIMEOUT).await
    }

    /// What the ledger holds under a key, with its proof. Waits a while for a certificate. Trust it only once
    /// [`crate::proof::Verifier`] has checked it.
    pub async fn prove(&self, key: &StateKey) -> Result<RecordProof, ClientError> {
        let key = key.to_string();
        let key: Vec<_> = key.split('/').map(segment).collect();
        let path = format!("/v1/proof?key={}", key.join("/"));
        self.get_within(&path, LONG_POLL + ANSWER_TIMEOUT).await
    }

    /// Waits until a transaction has reached `stage` (or its outcome, which ends every wait).
    ///
    /// # Errors
    /// `E_TIMED_OUT` at the deadline; otherwise as any request.
    pub async fn wait_transaction(
        &self,
        digest: &str,
        stage: Stage,
        deadline: Instant,
    ) -> Result<TransactionStatus, ClientError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(LONG_POLL);
            let path = format!(
                "/v1/transactions/{}?wait={}&timeout_ms={}",
                segment(digest),
                stage.as_str(),
                wait.as_millis()
            );
            let status: TransactionStatus = self.get_within(&path, wait + ANSWER_TIMEOUT).await?;
            if stage.reached(&status) {
                return Ok(status);
            }
            if left.is_zero() {
                return Err(ClientError::new(
                    &self.api,
                    Fault::TimedOut,
                    "E_TIMED_OUT",
                    format!(
                        "transaction {digest} has not been executed yet; it may still be: look again before you repeat it"
                    ),
                ));
            }
        }
    }

    /// Commits from index `from`, at most `limit`.
    pub async fn commits(&self, from: u64, limit: u64) -> Result<CommitPage, ClientError> {
        self.get(&format!("/v1/ledger/commits?from={from}&limit={limit}"))
            .await
    }

    /// Whether the node holds a blob.
    pub async fn has_blob(&self, digest: &str) -> Result<bool, ClientError> {
        match self
            .get::<BlobHeld>(&format!("/v1/blobs/{}", segment(digest)))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.code == "E_UNKNOWN_BLOB" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob of `size_bytes` from a stream, in the name of `account`, whose key signed `token`
    /// ([`issue_upload`](crate::token::issue_upload)).
    pub async fn upload<S>(
        &self,
        (account, token): (&str, &str),
        size_bytes: u64,
        body: S,
    ) -> Result<BlobStored, ClientError>
    where
        S: futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    {
        let request = self
            .http
            .post(format!(
                "{}/v1/blobs?account={}",
                self.api,
                segment(account)
            ))
            .bearer_auth(token)
            .header("content-type", "application/octet-stream")
            .header("content-length", size_bytes)
            .body(reqwest::Body::wrap_stream(body));
        self.answer(request.send().await).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_within(path, ANSWER_TIMEOUT).await
    }

    async fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let request = self
            .http
            .get(format!("{}{path}", self.api))
            .timeout(timeout);
        self.answer(request.send().await).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self
            .http
            .post(format!("{}{path}", self.api))
            .json(body)
            .timeout(ANSWER_TIMEOUT);
        self.answer(request.send().await).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        sent: Result<reqwest::Response, reqwest::Error>,
    ) -> Result<T, ClientError> {
        let response = sent.map_err(|error| ClientError::transport(&self.api, &error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| ClientError::transport(&self.api, &error))?;
        if !status.is_success() {
            return Err(ClientError::answered(&self.api, status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::unintelligible(&self.api, &error))
    }
}

fn vm_path(account: &str, name: &str, rest: &str) -> String {
    format!("/v1/vms/{}/{}{rest}", segment(account), segment(name))
}

/// One segment of a path, or one value of a query. Names are DNS labels and digests hex, so anything
/// else is replaced by what no name contains and finds nothing.
fn segment(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
