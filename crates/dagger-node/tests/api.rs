//! The HTTP API of a running node: one operator, so that every commit is its own.
//!
//! Each bad input has its stable code here, whether the node or the ledger refuses it.

#[path = "support/addresses.rs"]
mod addresses;

use addresses::free_address;
use dagger_client::http::{Client, ClientError, Fault, Stage};
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_client::token::{self, Right, VmScope};
use dagger_client::transaction;
use dagger_ledger::{
    AccountCreate, Action, Arch, Blob, Boot, Digest, DirectBoot, Genesis, GenesisOperator,
    ImageManifest, ImagePublish, Key, MachineAdd, Parameters, SignedTransaction, VmCreate,
};
use dagger_node::config::{Durability, NodeConfig};
use dagger_node::node::Node;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    client: Client,
    chain: Digest,
    operator: SecretKey,
    customer: SecretKey,
    node: Node,
    directory: tempfile::TempDir,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn genesis(operator: &SecretKey, node: &SecretKey, consensus: &SecretKey) -> String {
    Genesis {
        network: "test".into(),
        time_ms: now_ms(),
        parameters: Parameters::default(),
        operators: vec![GenesisOperator {
            name: "alpha".into(),
            operator_key: Key(operator.public()),
            consensus_key: Key(consensus.public()),
            node_key: Key(node.public()),
            weight: 1,
            address: None,
        }],
        chain_id: Digest::default(),
    }
    .to_json()
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (operator, node, consensus) = (
            SecretKey::generate(),
            SecretKey::generate(),
            SecretKey::generate(),
        );
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        for (kind, key) in [
            (KeyKind::Operator, &operator),
            (KeyKind::Node, &node),
            (KeyKind::Consensus, &consensus),
        ] {
            keys::write(
                &directory.path().join(format!("keys/{kind}.json")),
                kind,
                key,
            )
            .unwrap();
        }
        let genesis = genesis(&operator, &node, &consensus);
        std::fs::write(directory.path().join("genesis.json"), &genesis).unwrap();
        let chain = dagger_ledger::chain_id(genesis.as_bytes());
        let mut config = NodeConfig::new(directory.path());
        let api = free_address();
        config.api = Some(api);
        config.listen = free_address();
        config.durability = Durability::Os;
        config.machine = false;
        let node = Node::start(config).await.unwrap();
        let client = Client::new(&format!("http://{api}")).unwrap();
        Self {
            client,
            chain,
            operator,
            customer: SecretKey::generate(),
            node,
            directory,
        }
    }

    fn sign(&self, key: &SecretKey, action: Action) -> SignedTransaction {
        transaction::sign(
            key,
            self.chain,
            action,
            now_ms() + transaction::VALID_FOR_MS,
        )
    }

    fn account(&self, name: &str) -> Action {
        Action::AccountCreate(AccountCreate {
            account: name.into(),
            key: Key(self.customer.public()),
        })
    }

    /// The code that the node or the ledger answers with.
    async fn code(&self, signed: &SignedTransaction) -> String {
        let submitted = match self.client.submit(signed).await {
            Ok(submitted) => submitted,
            Err(error) => {
                assert_eq!(error.fault, Fault::Refused, "{error}");
                assert!(
                    error.text.len() > 20,
                    "a text that says what to do: {error}"
                );
                return error.code;
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let status = self
            .client
            .wait_transaction(&submitted.digest, Stage::Executed, deadline)
            .await
            .unwrap();
        status.outcome.unwrap().code
    }

    async fn execute(&self, key: &SecretKey, action: Action) -> String {
        self.code(&self.sign(key, action)).await
    }

    async fn with_account() -> Self {
        let world = Self::start().await;
        assert_eq!(
            world.execute(&world.operator, world.account("demo")).await,
            "ok"
        );
        world
    }

    /// Uploads a blob and publishes it as the kernel of `demo/micro`; the manifest's digest.
    async fn publish(&self) -> Digest {
        let kernel = b"not much of a kernel".to_vec();
        let size_bytes = kernel.len() as u64;
        let digest = blake3::hash(&kernel).to_hex().to_string();
        assert!(!self.client.has_blob(&digest).await.unwrap());
        let body = futures_util::stream::iter([Ok(bytes::Bytes::from(kernel))]);
        let expires_at_ms = now_ms() + 60_000;
        let token = token::issue_upload(&self.customer, self.chain.0, expires_at_ms).unwrap();
        let stored = self.client.upload(("demo", &token), size_bytes, body);
        let stored = stored.await.unwrap();
        assert_eq!(
            (stored.digest.as_str(), stored.size_bytes),
            (digest.as_str(), size_bytes)
        );
        assert!(self.client.has_blob(&digest).await.unwrap());
        let kernel = Blob {
            digest: digest.parse().unwrap(),
            size_bytes,
        };
        let boot = Boot::Direct(DirectBoot {
            kernel,
            initrd: None,
            cmdline: "quiet".into(),
        });
        let manifest = ImageManifest {
            arch: Arch::X86_64,
            boot,
        };
        let digest = manifest.digest();
        let action = Action::ImagePublish(ImagePublish {
            image: "micro".into(),
            manifest,
            private: false,
        });
        assert_eq!(self.execute(&self.customer, action).await, "ok");
        digest
    }

    async fn stop(self) {
        self.node.stop().await;
        drop(self.directory);
    }
}

fn vm(name: &str, image: &str, image_digest: Digest, vcpus: u32) -> Action {
    Action::VmCreate(VmCreate {
        name: name.into(),
        image: image.into(),
        image_digest,
        vcpus,
        memory_mib: 128,
        disk_mib: 64,
        ssh_keys: Vec::new(),
        user_data: None,
        failover: Default::default(),
        on_isolation: Default::default(),
        restart: Default::default(),
        spread: None,
        placement: Default::default(),
        labels: Default::default(),
        publish: Default::default(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactions_way_is_told_stage_by_stage() {
    let world = World::start().await;
    let signed = world.sign(&world.operator, world.account("demo"));
    let submitted = world.client.submit(&signed).await.unwrap();
    assert_eq!(submitted.digest, signed.digest().to_hex());
    let deadline = Instant::now() + PATIENCE;
    let status = world
        .client
        .wait_transaction(&submitted.digest, Stage::Executed, deadline)
        .await
        .unwrap();
    let (event, commit) = (
        status.event.clone().unwrap(),
        status.commit.clone().unwrap(),
    );
    assert_eq!(event.event.creator_name, "alpha");
    assert!(commit.index > 0 && commit.leader.round >= event.event.round);
    assert_eq!(status.refusal(), None);
    // The same one again is answered with the first outcome.
    let again = world.client.submit(&signed).await.unwrap();
    assert_eq!(again.digest, submitted.digest);
    assert_eq!(
        world.client.transaction(&again.digest).await.unwrap(),
        Some(status)
    );
    assert_eq!(
        world.client.transaction(&"00".repeat(32)).await.unwrap(),
        None
    );
    let accounts = world.client.accounts().await.unwrap();
    assert_eq!(
        (accounts[0].name.as_str(), accounts[0].sponsor.as_str()),
        ("demo", "alpha")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_transaction_has_its_code() {
    let world = World::with_account().await;
    let good = world.sign(&world.operator, world.account("other"));
    let text = String::from_utf8(good.body.to_vec()).unwrap();
    let resign =
        |body: String| SignedTransaction::sign(body.into_bytes(), world.operator.signing());
    let unknown_field = resign(text.replacen('{', r#"{"colour":"red","#, 1));
    assert_eq!(world.code(&unknown_field).await, "unknown_field");
    let duplicate = resign(text.replacen('{', r#"{"salt":"x","#, 1));
    assert_eq!(world.code(&duplicate).await, "duplicate_field");
    let wrong_signature = SignedTransaction {
        signature: [7; 64],
        body: good.body.clone(),
    };
    assert_eq!(world.code(&wrong_signature).await, "bad_signature");
    let valid_until_ms = now_ms() + 60_000;
    let elsewhere = transaction::sign(
        &world.operator,
        Digest([9; 32]),
        world.account("other"),
        valid_until_ms,
    );
    assert_eq!(world.code(&elsewhere).await, "wrong_chain");
    let late = transaction::sign(&world.operator, world.chain, world.account("other"), 1_000);
    assert_eq!(world.code(&late).await, "expired");
    let far = transaction::sign(
        &world.operator,
        world.chain,
        world.account("other"),
        now_ms() * 2,
    );
    assert_eq!(world.code(&far).await, "too_far_ahead");
    let stranger = SecretKey::generate();
    assert_eq!(
        world.execute(&stranger, world.account("other")).await,
        "unknown_signer"
    );
    assert_eq!(
        world.execute(&world.operator, world.account("demo")).await,
        "name_taken"
    );
    assert_eq!(
        world.client.accounts().await.unwrap().len(),
        1,
        "nothing of it took effect"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_vm_has_its_code() {
    let world = World::with_account().await;
    let nothing = Digest::default();
    assert_eq!(
        world
            .execute(&world.customer, vm("web", "micro", nothing, 1))
            .await,
        "unknown_image"
    );
    let digest = world.publish().await;
    assert_eq!(
        world
            .execute(&world.customer, vm("web", "micro", nothing, 1))
            .await,
        "image_digest_mismatch"
    );
    let machine = Action::MachineAdd(MachineAdd {
        machine: "small".into(),
        node_key: Key(SecretKey::generate().public()),
        arch: Arch::X86_64,
        vcpus: 1,
        memory_mib: 256,
        disk_mib: 1024,
        cpu_permille: dagger_ledger::NO_OVERCOMMIT,
        labels: Default::default(),
    });
    assert_eq!(world.execute(&world.operator, machine).await, "ok");
    assert_eq!(
        world
            .execute(&world.customer, vm("web", "micro", digest, 2))
            .await,
        "no_machine_fits"
    );
    let error = world.client.vm("demo", "web").await.unwrap_err();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Refused, "unknown_vm")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_resumes_without_gap_or_repetition() {
    let world = World::with_account().await;
    let seen = async |client: &Client, after| {
        let mut stream = client.follow(after, false).await.unwrap();
        let commit = stream.next().await.unwrap().unwrap();
        assert_eq!(stream.cursor(), commit.index);
        commit
    };
    let first = seen(&world.client, 0).await;
    assert_eq!(first.outcomes[0].action.as_deref(), Some("account_create"));
    assert_eq!(first.outcomes[0].subject.as_deref(), Some("account demo"));
    assert_eq!(first.changes[0].text, "account demo opened");
    world.publish().await;
    let second = seen(&world.client, first.index).await;
    assert!(second.index > first.index);
    assert_eq!(second.outcomes[0].action.as_deref(), Some("image_publish"));
    let page = world.client.commits(first.index, 1).await.unwrap();
    assert_eq!((page.commits.len(), page.next), (1, first.index + 1));
    assert_eq!(page.commits[0], first);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_needs_a_vm_and_a_token() {
    let world = World::with_account().await;
    let scope = VmScope {
        chain: world.chain.0,
        vm: 0,
    };
    let token = token::issue(&world.customer, scope, &[Right::Tunnel], now_ms() + 60_000).unwrap();
    let error = world
        .client
        .tunnel("demo", "none", 22, &token)
        .await
        .err()
        .unwrap();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Refused, "refused")
    );
    let error = world
        .client
        .tunnel("demo", "none", 22, "no\ntoken")
        .await
        .err()
        .unwrap();
    assert_eq!(error.code, "E_TOKEN_MALFORMED");
    for refused in [
        world.client.console("demo", "none", &token).await.err(),
        world
            .client
            .logs("demo", "none", true, Some(1), &token)
            .await
            .err(),
    ] {
        assert_eq!(refused.unwrap().code, "refused");
    }
    let error = world
        .client
        .logs("demo", "none", false, None, "")
        .await
        .err();
    assert!(error.is_some_and(|error| error.fault == Fault::Refused));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_needs_a_token_of_an_account() {
    let world = World::with_account().await;
    let (chain, until_ms) = (world.chain.0, now_ms() + 60_000);
    let token =
        |key: &SecretKey, chain, until_ms| token::issue_upload(key, chain, until_ms).unwrap();
    let bytes = bytes::Bytes::from_static(b"worth storing");
    let digest = blake3::hash(&bytes).to_hex().to_string();
    for (account, token, code) in [
        ("demo", String::new(), "E_TOKEN_MISSING"),
        ("demo", "none".to_owned(), "E_TOKEN_MALFORMED"),
        (
            "nobody",
            token(&world.customer, chain, until_ms),
            "unknown_account",
        ),
        (
            "demo",
            token(&world.operator, chain, until_ms),
            "E_TOKEN_SIGNATURE",
        ),
        (
            "demo",
            token(&world.customer, [1; 32], until_ms),
            "E_TOKEN_DENIED",
        ),
        (
            "demo",
            token(&world.customer, chain, now_ms() - 1000),
            "E_TOKEN_DENIED",
        ),
    ] {
        let body = futures_util::stream::iter([Ok(bytes.clone())]);
        let stored = world
            .client
            .upload((account, &token), bytes.len() as u64, body);
        let error = stored.await.expect_err("a stranger stores nothing");
        assert_eq!(error.code, code, "{error}");
        assert!(!world.client.has_blob(&digest).await.unwrap());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_find_nothing_say_so() {
    let world = World::start().await;
    let code = |error: ClientError| error.code;
    assert_eq!(
        world.client.vm("nobody", "web").await.map_err(code),
        Err("unknown_account".into())
    );
    assert_eq!(
        world.client.image("nobody", "x").await.map_err(code),
        Err("unknown_image".into())
    );
    assert_eq!(
        world.client.vms(Some("nobody")).await.map_err(code),
        Err("unknown_account".into())
    );
    assert_eq!(world.client.vms(None).await.unwrap(), []);
    assert_eq!(
        world.client.transaction("beef").await.map_err(code),
        Err("E_BAD_DIGEST".into())
    );
    let status = world.client.status().await.unwrap();
    assert_eq!(status.chain_id, world.chain.to_hex());
    assert_eq!((status.name.as_str(), status.seat), ("alpha", Some(0)));
    let operators = world.client.operators().await.unwrap();
    assert_eq!(
        (operators[0].name.as_str(), operators[0].weight),
        ("alpha", 1)
    );
    world.stop().await;
}
