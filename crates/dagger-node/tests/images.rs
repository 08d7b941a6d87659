//! An image outlives the node that it was uploaded to: real nodes on loopback copy it by themselves.

mod support;

use bytes::Bytes;
use dagger_ledger::{
    AccountCreate, Action, Arch, Blob, Boot, Digest, DirectBoot, ImageManifest, ImagePublish,
    Key as PublicKey, MachineAdd, MachineState, NO_OVERCOMMIT, Parameters, SignedTransaction,
    Transaction,
};
use dagger_node::keys::{Key, KeyKind};
use support::{Network, now_ms, until};

/// Leases that lapse soon after a node has stopped.
fn impatient() -> Parameters {
    Parameters {
        lease_ms: 6_000,
        margin_ms: 1_000,
        heartbeat_ms: 500,
        hear_timeout_ms: 3_000,
        ..Parameters::default()
    }
}

/// Every node a machine, all of them heard.
async fn machines(network: &Network) {
    for i in 0..network.nodes.len() {
        let add = Action::MachineAdd(MachineAdd {
            machine: format!("m-{i}"),
            node_key: PublicKey(network.handle(i).node_key().verification_key().into()),
            arch: Arch::X86_64,
            vcpus: 1,
            memory_mib: 256,
            disk_mib: 1024,
            cpu_permille: NO_OVERCOMMIT,
            labels: Default::default(),
        });
        network.execute(0, network.sign(i, add)).await;
    }
    until("all machines to be up", || {
        up(network, 1) == network.nodes.len()
    })
    .await;
}

/// How many machines a node's ledger has as up.
fn up(network: &Network, at: usize) -> usize {
    network.handle(at).read(|ledger| {
        let up = |state| state == MachineState::Up;
        ledger
            .machines()
            .filter(|machine| up(machine.state))
            .count()
    })
}

fn sign(network: &Network, key: &Key, action: Action) -> SignedTransaction {
    let transaction = Transaction {
        chain: network.genesis.chain_id,
        signer: PublicKey(key.public()),
        salt: format!("{:x}", rand::random::<u64>()),
        valid_until_ms: now_ms() + 300_000,
        action,
    };
    transaction.sign(&key.signing)
}

/// Uploads a blob to node 0 and publishes it as an image.
async fn publish(network: &Network, bytes: Vec<u8>) -> Blob {
    let size_bytes = bytes.len() as u64;
    let body = futures_util::stream::iter([Ok(Bytes::from(bytes))]);
    let images = network.nodes[0].as_ref().unwrap().images();
    let (digest, _) = images.add_stream(body).await.unwrap();
    let kernel = Blob {
        digest: Digest(digest),
        size_bytes,
    };
    let account = Key::generate(KeyKind::Account);
    let create = Action::AccountCreate(AccountCreate {
        account: "demo".into(),
        key: PublicKey(account.public()),
    });
    network.execute(0, network.sign(0, create)).await;
    let boot = Boot::Direct(DirectBoot {
        kernel,
        initrd: None,
        cmdline: String::new(),
    });
    let publish = Action::ImagePublish(ImagePublish {
        image: "micro".into(),
        manifest: ImageManifest {
            arch: Arch::X86_64,
            boot,
        },
        private: false,
    });
    network.execute(0, sign(network, &account, publish)).await;
    kernel
}

/// Operators whose copies the ledger counts, and nodes that have one.
fn copies(network: &Network, at: usize, blob: Blob) -> (Vec<u32>, Vec<usize>) {
    let attested = network.handle(at).read(|ledger| {
        let image = ledger.images().next().expect("it is published");
        image.replicas.iter().map(|operator| operator.0).collect()
    });
    let nodes = network.nodes.iter().enumerate();
    let has = nodes.filter(|(_, node)| {
        let node = node.as_ref();
        node.is_some_and(|node| node.images().has(blob.digest.0))
    });
    (attested, has.map(|(i, _)| i).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_survives_the_loss_of_the_node_that_it_was_uploaded_to() {
    let mut network = Network::new(4, impatient());
    network.start_all().await;
    machines(&network).await;
    let blob = publish(&network, vec![7; 3_000_000]).await;
    until("three attested copies", || {
        let (attested, has) = copies(&network, 0, blob);
        let all_there = attested.iter().all(|id| has.contains(&(*id as usize)));
        assert!(all_there, "attested by {attested:?}, held by {has:?}");
        attested.contains(&0) && attested.len() >= 3
    })
    .await;
    network.stop(0).await;
    until("a copy on every node that is left", || {
        copies(&network, 1, blob) == (vec![0, 1, 2, 3], vec![1, 2, 3])
    })
    .await;
    // What was copied is whole: it is hashed here without anybody to fetch it from.
    for node in network.nodes.iter().flatten() {
        let here = node
            .images()
            .ensure(blob.digest.0, blob.size_bytes, Vec::new());
        here.await.unwrap();
    }
    network.stop_all().await;
}
