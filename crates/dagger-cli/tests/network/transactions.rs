//! Transactions that a network of four must refuse, each by its code, and what must be as if they had
//! never been sent. The documents are written here by hand, as a stranger's client would.

use super::support::{Home, found, json, refused, wait};
use dagger_client::http::Client;
use dagger_client::keys::{self, KeyKind, SecretKey};
use dagger_ledger::SignedTransaction;
use serde_json::{Value, json as document};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A network of four with one machine, one account and one image, and who may sign there.
struct Network {
    homes: Vec<Home>,
    _nodes: Vec<super::support::Node>,
    chain: String,
    operator: SecretKey,
    account: SecretKey,
    image_digest: String,
    runtime: tokio::runtime::Runtime,
}

/// What a client does with one transaction: hands it in and waits for its outcome.
enum Fate {
    Executed,
    Refused(String),
}

impl Network {
    fn new(root: &Path) -> Self {
        let homes = found(root, &["alpha", "bravo", "charlie", "delta"]);
        let nodes = homes.iter().map(Home::start).collect();
        let mut ready: Vec<_> = homes.iter().map(Home::ready).collect();
        let status = ready.pop().unwrap();
        let operator = keys::read(&homes[0].data.join("keys/operator.json"), KeyKind::Operator);
        let mut network = Self {
            chain: status["chain_id"].as_str().unwrap().to_owned(),
            operator: operator.unwrap(),
            account: SecretKey::generate(),
            image_digest: String::new(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            homes,
            _nodes: nodes,
        };
        network.fill();
        network
    }

    fn fill(&mut self) {
        let node_key = self.homes[0].status().unwrap()["node_key"].clone();
        let account = hex::encode(self.account.public());
        let machine = document!({"machine": "big", "node_key": node_key, "arch": "x86_64",
            "vcpus": 4, "memory_mib": 4096, "disk_mib": 10240, "labels": {}});
        let blob = document!({"digest": "00".repeat(32), "size_bytes": 1});
        let manifest = document!({"arch": "x86_64", "boot": {"direct":
            {"kernel": blob, "initrd": blob, "cmdline": "quiet"}}});
        self.must("machine_add", machine, true);
        self.must(
            "account_create",
            document!({"account": "shop", "key": account}),
            true,
        );
        self.must(
            "image_publish",
            document!({"image": "web", "manifest": manifest}),
            false,
        );
        let images = json(&["--api", &self.homes[0].api(), "image", "list"]);
        self.image_digest = images[0]["digest"].as_str().unwrap().to_owned();
        wait("the machine to be heard", || {
            let machines = json(&["--api", &self.homes[0].api(), "machine", "list"]);
            (machines[0]["state"] == "ready").then_some(())
        });
    }

    fn must(&self, action: &str, fields: Value, by_operator: bool) {
        let key = if by_operator {
            &self.operator
        } else {
            &self.account
        };
        let sent = self.send(&signed(&self.body(key, action, fields), key), 0);
        if let Fate::Refused(code) = sent {
            panic!("{action} was refused: {code}");
        }
    }

    /// A right document with that action, signed by nobody yet.
    fn body(&self, key: &SecretKey, action: &str, fields: Value) -> Value {
        let mut actions = serde_json::Map::new();
        actions.insert(action.to_owned(), fields);
        document!({"chain": self.chain, "signer": hex::encode(key.public()), "salt": salt(),
            "valid_until_ms": now_ms() + 60_000, "action": actions})
    }

    fn create(&self, name: &str, memory_mib: u64, image: &str) -> Value {
        self.body(
            &self.account,
            "vm_create",
            document!({"name": name, "image": image, "image_digest": self.image_digest, "vcpus": 1,
                "memory_mib": memory_mib, "disk_mib": 1024, "ssh_keys": [SSH_KEY],
                "failover": "none", "on_isolation": "stop", "placement": {}, "labels": {}}),
        )
    }

    fn send(&self, transaction: &SignedTransaction, node: usize) -> Fate {
        let client = Client::new(&self.homes[node].api()).unwrap();
        let within = Instant::now() + super::support::PATIENCE;
        let executed = self.runtime.block_on(async {
            let submitted = client.submit(transaction).await?;
            let stage = dagger_client::http::Stage::Executed;
            client
                .wait_transaction(&submitted.digest, stage, within)
                .await
        });
        match executed {
            Ok(status) => match status.refusal() {
                Some(reason) => Fate::Refused(reason.code),
                None => Fate::Executed,
            },
            Err(error) => Fate::Refused(error.code),
        }
    }

    fn code(&self, transaction: &SignedTransaction) -> String {
        match self.send(transaction, 1) {
            Fate::Refused(code) => code,
            Fate::Executed => "ok".to_owned(),
        }
    }

    fn vms(&self) -> Vec<String> {
        let vms = json(&["--api", &self.homes[2].api(), "vm", "list", "--all"]);
        let names = vms
            .as_array()
            .unwrap()
            .iter()
            .map(|vm| vm["name"].as_str().unwrap().into());
        names.collect()
    }
}

const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test";

fn signed(body: &Value, key: &SecretKey) -> SignedTransaction {
    SignedTransaction::sign(body.to_string().into_bytes(), key.signing())
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap()
}

fn salt() -> String {
    hex::encode(&SecretKey::generate().public()[..8])
}

#[test]
fn a_network_refuses_by_code_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let network = Network::new(root.path());
    let key = &network.account;
    let small = |name: &str| network.create(name, 256, "shop/web");

    // The first one is right, and sending it again, also through another node, changes nothing.
    let first = signed(&small("first"), key);
    assert_eq!(network.code(&first), "ok");
    assert!(matches!(
        network.send(&first, 3),
        Fate::Executed | Fate::Refused(_)
    ));
    assert_eq!(network.vms(), ["first"]);

    let mut unknown_field = small("a");
    unknown_field["action"]["vm_create"]["colour"] = "red".into();
    let mut wrong_chain = small("b");
    wrong_chain["chain"] = "11".repeat(32).into();
    let mut expired = small("c");
    expired["valid_until_ms"] = (now_ms() - 60_000).into();
    let mut digest_mismatch = small("d");
    digest_mismatch["action"]["vm_create"]["image_digest"] = "22".repeat(32).into();
    let mut wrong_signature = signed(&small("e"), key);
    wrong_signature.signature[0] ^= 1;
    let twice = small("f")
        .to_string()
        .replacen("\"salt\"", "\"salt\":\"x\",\"salt\"", 1);
    let stranger = SecretKey::generate();
    let mut by_stranger = small("g");
    by_stranger["signer"] = hex::encode(stranger.public()).into();
    for (expected, transaction) in [
        ("unknown_field", signed(&unknown_field, key)),
        ("wrong_chain", signed(&wrong_chain, key)),
        ("expired", signed(&expired, key)),
        ("image_digest_mismatch", signed(&digest_mismatch, key)),
        ("bad_signature", wrong_signature),
        (
            "duplicate_field",
            SignedTransaction::sign(twice.into_bytes(), key.signing()),
        ),
        ("unknown_signer", signed(&by_stranger, &stranger)),
        ("name_taken", signed(&small("first"), key)),
        (
            "unknown_image",
            signed(&network.create("h", 256, "shop/none"), key),
        ),
        (
            "no_machine_fits",
            signed(&network.create("i", 1 << 20, "shop/web"), key),
        ),
        ("malformed", SignedTransaction::sign(*b"{", key.signing())),
    ] {
        assert_eq!(network.code(&transaction), expected);
    }
    assert_eq!(
        network.vms(),
        ["first"],
        "a refused transaction left something"
    );
    network.command_line_says_the_same(root.path());
}

impl Network {
    /// The codes reach a user of the command line, with an exit status of their own.
    fn command_line_says_the_same(&self, root: &Path) {
        let key_file = root.join("shop.json");
        keys::write(&key_file, KeyKind::Account, &self.account).unwrap();
        let ssh_key = root.join("key.pub");
        std::fs::write(&ssh_key, SSH_KEY).unwrap();
        let api = self.homes[3].api();
        let common = [
            "--api",
            &api,
            "--key",
            key_file.to_str().unwrap(),
            "vm",
            "create",
        ];
        let with_key = ["--image", "web", "--ssh-key", ssh_key.to_str().unwrap()];
        for (expected, words) in [
            ("name_taken", ["first", "--memory", "256M"]),
            ("no_machine_fits", ["other", "--memory", "1T"]),
        ] {
            let arguments = [&common[..], &words[..], &with_key[..]].concat();
            assert_eq!(refused(&arguments), expected);
        }
    }
}
