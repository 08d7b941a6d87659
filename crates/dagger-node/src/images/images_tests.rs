//! Tests of the image store with real endpoints on loopback.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream;
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};

use super::{part::PIECE_BYTES, *};

async fn endpoint() -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    builder
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

fn addr(endpoint: &Endpoint) -> EndpointAddr {
    let socket = endpoint.bound_sockets()[0];
    EndpointAddr::new(endpoint.id()).with_ip_addr(socket)
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut reader = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    let mut out = vec![0; bytes];
    reader.fill(&mut out);
    out
}

/// One node: a store, its endpoint, and the router that serves it.
struct Peer {
    images: Images,
    addr: EndpointAddr,
    _router: Router,
    dir: tempfile::TempDir,
}

async fn peer_with(limits: ImagesLimits, admission: Admission) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = endpoint().await;
    let images = Images::open_with(dir.path(), endpoint.clone(), limits)
        .await
        .unwrap();
    let addr = addr(&endpoint);
    let router = Router::builder(endpoint)
        .accept(iroh_blobs::ALPN, images.protocol(admission))
        .spawn();
    Peer {
        images,
        addr,
        _router: router,
        dir,
    }
}

async fn peer() -> Peer {
    peer_with(ImagesLimits::default(), Arc::new(|_| true)).await
}

async fn add(peer: &Peer, data: &[u8]) -> ([u8; 32], u64) {
    let chunks: Vec<_> = data
        .chunks(70_000)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    peer.images.add_stream(stream::iter(chunks)).await.unwrap()
}

/// Serves the ALPN but counts connections and answers nothing sensible.
#[derive(Debug)]
struct Garbage(Arc<AtomicUsize>);

impl ProtocolHandler for Garbage {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        while let Ok((mut send, _recv)) = connection.accept_bi().await {
            // The right size, then bytes that hash to something else.
            let mut answer = (3 * PIECE_BYTES + 5).to_le_bytes().to_vec();
            answer.extend(std::iter::repeat_n(7u8, 1 << 20));
            let _ = send.write_all(&answer).await;
            let _ = send.finish();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_travels_and_is_read_only_at_its_digest() {
    let (a, b) = (peer().await, peer().await);
    for size in [
        0usize,
        1,
        1024,
        16 * 1024,
        16 * 1024 + 1,
        PIECE_BYTES as usize,
        3 * PIECE_BYTES as usize + 5,
    ] {
        let data = noise(size, size as u64);
        let (digest, added) = add(&a, &data).await;
        assert_eq!(
            (digest, added),
            (*blake3::hash(&data).as_bytes(), size as u64)
        );
        let (path, source) = b
            .images
            .ensure(digest, added, vec![b.addr.clone(), a.addr.clone()])
            .await
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), data);
        assert_eq!(
            path.file_name().unwrap().to_str().unwrap(),
            hex::encode(digest)
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o444
        );
        let expected = if size == 0 { vec![] } else { vec![a.addr.id] };
        assert_eq!(source, ImageSource::Peers(expected));
        let again = b.images.ensure(digest, added, vec![]).await.unwrap();
        assert_eq!(again, (path, ImageSource::Cache));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_stay_holes() {
    let (a, b) = (peer().await, peer().await);
    let mut data = vec![0; 8 << 20];
    data[5 << 20] = 1;
    let (digest, size) = add(&a, &data).await;
    let (path, _) = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), data);
    for path in [a.images.path(digest), path] {
        let allocated = std::fs::metadata(path).unwrap().blocks() * 512;
        assert!(
            allocated < 1 << 20,
            "{allocated} bytes allocated for one byte of data"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_serve_one_blob_and_a_liar_does_not_spoil_it() {
    let (a, b, c) = (peer().await, peer().await, peer().await);
    let data = noise(3 * PIECE_BYTES as usize + 5, 1);
    let (digest, size) = add(&a, &data).await;
    add(&b, &data).await;
    let liar = endpoint().await;
    let liar_addr = addr(&liar);
    let seen = Arc::new(AtomicUsize::new(0));
    let _liar = Router::builder(liar)
        .accept(iroh_blobs::ALPN, Garbage(seen.clone()))
        .spawn();
    let providers = vec![liar_addr.clone(), a.addr.clone(), b.addr.clone()];
    let (path, source) = c.images.ensure(digest, size, providers).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), data);
    let ImageSource::Peers(peers) = source else {
        panic!("fetched")
    };
    assert!(!peers.contains(&liar_addr.id));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_data_has_a_stable_code_and_leaves_nothing() {
    let (a, b) = (peer().await, peer().await);
    let data = noise(3 * PIECE_BYTES as usize + 5, 2);
    let digest = *blake3::hash(&data).as_bytes();
    let liar = endpoint().await;
    let liar_addr = addr(&liar);
    let _liar = Router::builder(liar)
        .accept(iroh_blobs::ALPN, Garbage(Arc::default()))
        .spawn();
    let size = data.len() as u64;
    let error = b
        .images
        .ensure(digest, size, vec![liar_addr, a.addr.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image_digest_mismatch");
    assert!(!b.images.has(digest));
    let error = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image_unavailable");
    let error = b.images.ensure(digest, size, vec![]).await.unwrap_err();
    assert_eq!(error.code(), "image_unavailable");
    add(&a, &data).await;
    let error = b
        .images
        .ensure(digest, size - 1, vec![a.addr.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image_size_mismatch");
    assert!(
        b.images
            .ensure(digest, size, vec![a.addr.clone()])
            .await
            .is_ok()
    );
    assert_eq!(
        b.images
            .ensure(digest, size - 1, vec![])
            .await
            .unwrap_err()
            .code(),
        "image_size_mismatch"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_are_one_transfer() {
    let (a, b) = (peer().await, peer().await);
    let data = noise(PIECE_BYTES as usize * 2, 3);
    let (digest, size) = add(&a, &data).await;
    let calls = (0..8).map(|_| b.images.ensure(digest, size, vec![a.addr.clone()]));
    let sources: Vec<_> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(|result| result.unwrap().1)
        .collect();
    assert_eq!(
        sources
            .iter()
            .filter(|source| **source != ImageSource::Cache)
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_transfer_resumes_and_rotten_pieces_are_caught() {
    let (a, b) = (peer().await, peer().await);
    let data = noise(PIECE_BYTES as usize * 4, 4);
    let (digest, size) = add(&a, &data).await;
    let part_path = b
        .dir
        .path()
        .join(format!("parts/{}.part", hex::encode(digest)));
    // Three pieces arrived earlier; without a peer the transfer cannot end but keeps them.
    let (part, _) = PartFile::open(part_path.clone(), size).unwrap();
    for piece in 0..3 {
        let (start, end) = part::piece_range(piece, size);
        part.write_piece(piece, &data[start as usize..end as usize])
            .unwrap();
    }
    assert_eq!(
        b.images
            .ensure(digest, size, vec![])
            .await
            .unwrap_err()
            .code(),
        "image_unavailable"
    );
    let (_, present) = PartFile::open(part_path.clone(), size).unwrap();
    assert_eq!(present, [true, true, true, false]);
    // One of them rots: the whole is refused and dropped, the next attempt starts clean.
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options()
            .write(true)
            .open(&part_path)
            .unwrap(),
        b"rot",
        9,
    )
    .unwrap();
    let error = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image_digest_mismatch");
    let (path, _) = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap();
    assert_eq!(std::fs::read(path).unwrap(), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_file_is_found_and_fetched_again() {
    let (a, b) = (peer().await, peer().await);
    let data = noise(100_000, 5);
    let (digest, size) = add(&a, &data).await;
    let (path, _) = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut rotten = data.clone();
    rotten[77] ^= 1;
    std::fs::write(&path, &rotten).unwrap();
    let (path, source) = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap();
    assert_eq!(
        (std::fs::read(&path).unwrap(), source),
        (data.clone(), ImageSource::Peers(vec![a.addr.id]))
    );
    assert!(b.images.scrub().await.unwrap().is_empty());
    // Rot that leaves the file's times alone is what the scrub is for.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &rotten, 0).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(b.images.scrub().await.unwrap(), vec![digest]);
    assert!(!b.images.has(digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_served_nothing() {
    let a = peer_with(ImagesLimits::default(), Arc::new(|_| false)).await;
    let b = peer().await;
    let data = noise(50_000, 6);
    let (digest, size) = add(&a, &data).await;
    let error = b
        .images
        .ensure(digest, size, vec![a.addr.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image_transfer_interrupted");
    assert!(!b.images.has(digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_bounded_and_evicts_what_was_used_least() {
    let a = peer().await;
    let limits = ImagesLimits {
        cache_bytes_max: 250_000,
        upload_bytes_max: 120_000,
        ..ImagesLimits::default()
    };
    let b = peer_with(limits, Arc::new(|_| true)).await;
    let mut blobs = Vec::new();
    for seed in 10..14 {
        blobs.push(add(&a, &noise(100_000, seed)).await);
    }
    let ensure = async |index: usize| {
        b.images
            .ensure(blobs[index].0, blobs[index].1, vec![a.addr.clone()])
            .await
    };
    ensure(0).await.unwrap();
    ensure(1).await.unwrap();
    ensure(0).await.unwrap();
    ensure(2).await.unwrap();
    let held = |index: usize| b.images.has(blobs[index].0);
    assert_eq!([held(0), held(1), held(2)], [true, false, true]);
    // What runs or was uploaded here stays.
    b.images.set_in_use(HashSet::from([blobs[0].0]));
    ensure(3).await.unwrap();
    assert_eq!([held(0), held(2), held(3)], [true, false, true]);
    let (uploaded, _) = add(&b, &noise(100_000, 20)).await;
    assert_eq!(
        [held(0), held(3), b.images.has(uploaded)],
        [true, false, true]
    );
    assert_eq!(ensure(1).await.unwrap_err().code(), "image_store_full");
    let too_big = b
        .images
        .add_stream(stream::iter([Ok(Bytes::from(noise(130_000, 21)))]))
        .await;
    assert_eq!(too_big.unwrap_err().code(), "image_store_full");
    assert_eq!(
        std::fs::read_dir(b.dir.path().join("parts"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_store_hashes_again_and_serves_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint_a = endpoint().await;
    let images = Images::open(dir.path(), endpoint_a.clone()).await.unwrap();
    let data = noise(100_000, 7);
    let (digest, size) = images
        .add_stream(stream::iter([Ok(Bytes::from(data.clone()))]))
        .await
        .unwrap();
    images.shutdown().await;
    drop(images);
    // A file that a crash kept from the index.
    let other = noise(70_000, 8);
    let other_digest = *blake3::hash(&other).as_bytes();
    std::fs::write(
        dir.path().join("files").join(hex::encode(other_digest)),
        &other,
    )
    .unwrap();
    let images = Images::open(dir.path(), endpoint_a.clone()).await.unwrap();
    let _router = Router::builder(endpoint_a.clone())
        .accept(iroh_blobs::ALPN, images.protocol(Arc::new(|_| true)))
        .spawn();
    let b = peer().await;
    for (digest, size, data) in [
        (digest, size, data),
        (other_digest, other.len() as u64, other),
    ] {
        let (path, _) = b
            .images
            .ensure(digest, size, vec![addr(&endpoint_a)])
            .await
            .unwrap();
        assert_eq!(std::fs::read(path).unwrap(), data);
    }
    assert!(images.ensure(digest, size, vec![]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_frees_what_nobody_published_and_heals_what_rotted() {
    let (a, b) = (peer().await, peer().await);
    let data = noise(100_000, 30);
    let (digest, size) = add(&a, &data).await;
    add(&b, &data).await;
    let (forgotten, _) = add(&a, &noise(1_000, 31)).await;
    let named = HashMap::from([(digest, size)]);
    a.images
        .unprotect_uploads(&named, Duration::from_secs(3600))
        .unwrap();
    assert_eq!(a.images.pinned_bytes().unwrap(), 101_000);
    a.images.unprotect_uploads(&named, Duration::ZERO).unwrap();
    assert_eq!(a.images.pinned_bytes().unwrap(), 100_000);
    assert!(a.images.has(forgotten), "it goes only when room is needed");
    let path = a.images.path(digest);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 5).unwrap();
    let mut rotten = Vec::new();
    for turn in 0..2 {
        rotten.extend(
            a.images
                .scrub_one(turn, &named, vec![b.addr.clone()])
                .await
                .unwrap(),
        );
    }
    assert_eq!(rotten, [digest]);
    assert_eq!(std::fs::read(&path).unwrap(), data);
    assert_eq!(
        a.images.pinned_bytes().unwrap(),
        100_000,
        "it is still protected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_sends_no_faster_than_it_may_to_all_who_ask_together() {
    let limits = ImagesLimits {
        serve_bytes_per_s: 8 * PIECE_BYTES,
        ..ImagesLimits::default()
    };
    let source = peer_with(limits, Arc::new(|_| true)).await;
    let data = noise(4 * PIECE_BYTES as usize, 77);
    let (digest, size) = add(&source, &data).await;
    let (a, b) = (peer().await, peer().await);
    let began = std::time::Instant::now();
    let fetch = |peer: &Peer| {
        let (images, from) = (peer.images.clone(), vec![source.addr.clone()]);
        async move { images.ensure(digest, size, from).await.unwrap() }
    };
    let ((path, _), _) = tokio::join!(fetch(&a), fetch(&b));
    // A second for both. What comes before the pace holds is a moment's worth and what is under way in each of six requests.
    let least = std::time::Duration::from_millis(900);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    assert_eq!(std::fs::read(path).unwrap(), data);
}
