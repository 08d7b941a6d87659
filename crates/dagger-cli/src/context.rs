//! What every command that talks to a network needs: nodes, the key, the account, transactions.

use crate::args::{Global, Output};
use crate::config::{self, ClientConfig};
use crate::failure::{Done, Exit, Failure};
use dagger_client::api::{AccountView, NodeStatus, TransactionStatus, VmView};
use dagger_client::http::{Client, Fault, Stage};
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_client::{token, transaction};
use dagger_ledger::{Action, Digest, SignedTransaction};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a command waits for a transaction that should take a moment.
const EXECUTE_WITHIN: Duration = Duration::from_secs(30);

/// A token that a command makes for its own use; it is checked when the tunnel opens or the upload begins.
pub const OWN_TOKEN_FOR_MS: u64 = 120_000;

pub struct Context {
    pub output: Output,
    pub config_dir: PathBuf,
    pub config: ClientConfig,
    key_file: Option<PathBuf>,
    clients: Vec<Client>,
}

/// A node that answered, with what it said.
pub struct Connection {
    pub client: Client,
    pub status: NodeStatus,
    pub chain: Digest,
}

/// In whose name files are uploaded to nodes.
pub struct Uploader<'a> {
    pub account: &'a str,
    pub key: &'a SecretKey,
    pub chain: Digest,
}

impl Uploader<'_> {
    /// A token for the upload that is about to begin.
    pub fn token(&self) -> Done<String> {
        let expires_at_ms = now_ms() + OWN_TOKEN_FOR_MS;
        Ok(token::issue_upload(self.key, self.chain.0, expires_at_ms)?)
    }
}

impl Context {
    pub fn new(global: &Global) -> Done<Self> {
        let config_dir = config::directory(global)?;
        let config = ClientConfig::load(&config_dir)?;
        let apis = if global.api.is_empty() {
            &config.api
        } else {
            &global.api
        };
        let clients = apis
            .iter()
            .map(|api| Client::new(api))
            .collect::<Result<_, _>>()?;
        let key_file = global.key.clone().or_else(|| config.key.clone());
        Ok(Self {
            output: global.output,
            config_dir,
            config,
            key_file,
            clients,
        })
    }

    pub fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// All nodes named, the preferred first.
    pub fn clients(&self) -> Done<&[Client]> {
        if self.clients.is_empty() {
            return Err(Failure::usage("no node to talk to")
                .hint("name one with --api URL, DAGGER_API or `api` in client.toml; `dagger dev up` starts a network on this machine"));
        }
        Ok(&self.clients)
    }

    /// The first node that answers and belongs to the right network.
    pub async fn connect(&self) -> Done<Connection> {
        let mut first_failure = None;
        for client in self.clients()? {
            match client.status().await {
                Ok(status) => return self.check_network(client.clone(), status),
                Err(error) => {
                    let unreachable = error.fault == Fault::Unreachable;
                    first_failure.get_or_insert(error);
                    if !unreachable {
                        break;
                    }
                }
            }
        }
        Err(first_failure.expect("at least one node was asked").into())
    }

    fn check_network(&self, client: Client, status: NodeStatus) -> Done<Connection> {
        let chain: Digest = status.chain_id.parse().map_err(|_| {
            Failure::new(
                Exit::Failure,
                "E_NOT_A_NODE",
                format!("{} names no chain id", client.api()),
            )
        })?;
        match &self.config.chain_id {
            Some(expected) if *expected != status.chain_id => Err(Failure::new(
                Exit::Refused,
                "E_WRONG_NETWORK",
                format!(
                    "{} belongs to network {} ({:.12}…), but client.toml is for {:.12}…",
                    client.api(),
                    status.network,
                    status.chain_id,
                    expected
                ),
            )
            .hint("ask a node of that network, or change chain_id in client.toml")),
            _ => Ok(Connection {
                client,
                status,
                chain,
            }),
        }
    }

    /// The key that signs.
    pub fn key(&self, kind: KeyKind) -> Done<SecretKey> {
        let path = self.key_path()?;
        Ok(keys::read(path, kind)?)
    }

    pub fn key_path(&self) -> Done<&Path> {
        self.key_file.as_deref().ok_or_else(|| {
            Failure::usage("no key to sign with")
                .hint("make one with `dagger account new NAME`, or name one with --key FILE or DAGGER_KEY")
        })
    }

    /// Signs `action`, hands it in, and waits for its outcome; a refusal is a failure.
    pub async fn execute(
        &self,
        connection: &Connection,
        key: &SecretKey,
        action: Action,
    ) -> Done<TransactionStatus> {
        let signed = self.sign(connection, key, action);
        let submitted = connection.client.submit(&signed).await?;
        let deadline = Instant::now() + EXECUTE_WITHIN;
        let executed = connection
            .client
            .wait_transaction(&submitted.digest, Stage::Executed, deadline)
            .await?;
        match executed.refusal() {
            Some(refusal) => Err(Failure::new(Exit::Refused, &refusal.code, refusal.text)),
            None => Ok(executed),
        }
    }

    /// Signs `action` for the connection's network.
    pub fn sign(
        &self,
        connection: &Connection,
        key: &SecretKey,
        action: Action,
    ) -> SignedTransaction {
        let valid_until_ms = now_ms() + transaction::VALID_FOR_MS;
        transaction::sign(key, connection.chain, action, valid_until_ms)
    }

    /// The account that the key belongs to, or that has delegated to it.
    pub async fn account(&self, connection: &Connection) -> Done<(SecretKey, AccountView)> {
        let key = self.key(KeyKind::Account)?;
        let public = hex::encode(key.public());
        let accounts = connection.client.accounts().await?;
        let acts_for = |account: &AccountView| {
            account.key == public || account.delegations.iter().any(|d| d.key == public)
        };
        match accounts.into_iter().find(acts_for) {
            Some(account) => Ok((key, account)),
            None => Err(Failure::new(
                Exit::Refused,
                "unknown_signer",
                format!(
                    "no account of network {} has this key",
                    connection.status.network
                ),
            )
            .hint(format!(
                "ask an operator to run: dagger operator sponsor NAME {public}"
            ))),
        }
    }

    /// Splits `NAME` or `ACCOUNT/NAME`; a bare name is of the key's account.
    pub async fn qualify(&self, connection: &Connection, name: &str) -> Done<(String, String)> {
        match name.split_once('/') {
            Some((account, name)) => Ok((account.to_owned(), name.to_owned())),
            None => Ok((self.account(connection).await?.1.name, name.to_owned())),
        }
    }

    /// The VM of that name.
    pub async fn vm(&self, connection: &Connection, name: &str) -> Done<VmView> {
        let (account, name) = self.qualify(connection, name).await?;
        Ok(connection.client.vm(&account, &name).await?)
    }
}

/// This machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
