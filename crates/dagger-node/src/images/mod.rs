//! The node's image store: blobs by BLAKE3 digest, one read-only file each, fetched from other nodes
//! and served to them. What a blob means (kernel, disk, manifest) is not known here.
//!
//! Layout of the directory: `files/<digest>` complete blobs, `files/<digest>.kept` marks of blobs that
//! were uploaded here and are never evicted, `parts/` transfers in progress, `index/` the iroh-blobs
//! store, which refers to the files and holds their hash trees.
//!
//! Architecture invariant: a path leaves this module only after the whole file was hashed in the life
//! of this process and has not changed since.

mod cache;
mod error;
mod fetch;
mod lone;
mod pace;
mod part;
mod serve;
mod upkeep;

#[cfg(test)]
mod images_tests;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use iroh::{Endpoint, EndpointAddr, EndpointId};
use iroh_blobs::{
    BlobFormat, BlobsProtocol, Hash,
    api::blobs::{AddPathOptions, ImportMode},
    store::{
        GcConfig,
        fs::{FsStore, options::Options},
    },
};

use cache::Stamp;
use pace::Pace;
use part::PartFile;

pub use error::ImageError;
pub use lone::LoneStore;
pub use serve::{Admission, ImagesProtocol};

/// Entries of evicted files leave the index at this interval.
const INDEX_SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct ImagesLimits {
    /// Bytes of complete blobs kept before the least recently used are evicted.
    pub cache_bytes_max: u64,
    /// Bytes of one uploaded blob.
    pub upload_bytes_max: u64,
    /// Bytes a second that other nodes are sent, all together; 0 for no bound.
    pub serve_bytes_per_s: u64,
}

impl Default for ImagesLimits {
    fn default() -> Self {
        ImagesLimits {
            cache_bytes_max: 64 << 30,
            upload_bytes_max: 16 << 30,
            serve_bytes_per_s: 0,
        }
    }
}

/// Where an ensured blob came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// It was here already.
    Cache,
    /// These nodes served it, each at least one piece.
    Peers(Vec<EndpointId>),
}

impl std::fmt::Display for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImageSource::Cache => f.write_str("cache"),
            ImageSource::Peers(peers) => {
                let peers: Vec<_> = peers
                    .iter()
                    .map(|peer| peer.fmt_short().to_string())
                    .collect();
                write!(f, "{}", peers.join("+"))
            }
        }
    }
}

/// The image store of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    endpoint: Endpoint,
    index: FsStore,
    limits: ImagesLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files hashed in this process's life, with what they looked like then.
    verified: HashMap<[u8; 32], Stamp>,
    /// One lock per digest that is being worked on.
    busy: HashMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>,
    /// Digests that running VMs boot from.
    in_use: HashSet<[u8; 32]>,
    /// Digests that this node's operator has attested a copy of.
    attested: HashSet<[u8; 32]>,
    uploads: u64,
}

impl State {
    /// Whether the blob may not be evicted, uploads apart.
    fn is_pinned(&self, digest: &[u8; 32]) -> bool {
        self.in_use.contains(digest) || self.attested.contains(digest)
    }
}

impl Images {
    /// Opens the store in `dir` with default limits. `endpoint` is used to fetch from other nodes.
    pub async fn open(dir: &Path, endpoint: Endpoint) -> Result<Images, ImageError> {
        Images::open_with(dir, endpoint, ImagesLimits::default()).await
    }

    /// Opens the store in `dir`. Left-overs of interrupted uploads are removed, interrupted transfers
    /// kept for resumption.
    pub async fn open_with(
        dir: &Path,
        endpoint: Endpoint,
        limits: ImagesLimits,
    ) -> Result<Images, ImageError> {
        let dir = std::path::absolute(dir)?;
        for sub in ["files", "parts", "index"] {
            tokio::fs::create_dir_all(dir.join(sub)).await?;
        }
        cache::remove_stale_parts(&dir.join("parts"))?;
        let mut options = Options::new(&dir.join("index"));
        options.gc = Some(GcConfig {
            interval: INDEX_SWEEP_INTERVAL,
            add_protected: None,
        });
        let index = FsStore::load_with_opts(dir.join("index/blobs.db"), options)
            .await
            .map_err(|error| ImageError::Io(format!("cannot open the blob index: {error:#}")))?;
        let state = Mutex::new(State::default());
        let images = Images {
            inner: Arc::new(Inner {
                dir,
                endpoint,
                index,
                limits,
                state,
            }),
        };
        images.index_missing().await?;
        Ok(images)
    }

    /// The protocol handler that serves this store's blobs to nodes that `admission` accepts.
    pub fn protocol(&self, admission: Admission) -> ImagesProtocol {
        let rate = self.inner.limits.serve_bytes_per_s;
        let paced = (rate > 0).then(|| serve::paced(Pace::new(rate)));
        ImagesProtocol::new(BlobsProtocol::new(&self.inner.index, paced), admission)
    }

    /// Adds a local file. Returns its digest and size in bytes.
    pub async fn add_file(&self, path: &Path) -> Result<([u8; 32], u64), ImageError> {
        let file = tokio::fs::File::open(path).await?;
        self.add_stream(tokio_util::io::ReaderStream::with_capacity(file, 1 << 20))
            .await
    }

    /// Adds a blob from a stream, e.g. an upload. Returns its digest and size in bytes. Blobs added
    /// here are never evicted: this node may hold the only copy.
    pub async fn add_stream(
        &self,
        stream: impl Stream<Item = std::io::Result<Bytes>>,
    ) -> Result<([u8; 32], u64), ImageError> {
        let used = self.used_bytes()?;
        let room = self
            .inner
            .limits
            .cache_bytes_max
            .saturating_sub(self.pinned_bytes()?);
        let bytes_max = self.inner.limits.upload_bytes_max.min(room);
        let number = {
            let mut state = self.state();
            state.uploads += 1;
            state.uploads
        };
        let temporary = self.inner.dir.join(format!("parts/upload-{number}.tmp"));
        let cleanup = cache::RemoveOnDrop(temporary.clone());
        let mut upload = cache::Upload::create(temporary).await?;
        let mut stream = std::pin::pin!(stream);
        while let Some(bytes) = stream.next().await {
            upload.write(bytes?).await?;
            if upload.size() > bytes_max {
                return Err(ImageError::StoreFull {
                    used,
                    max: self.inner.limits.cache_bytes_max,
                });
            }
        }
        let size = upload.size();
        let digest = upload.digest();
        let _guard = self.lock(digest).await;
        if self.verified_path(digest).is_none() {
            upload.finish(self.path(digest)).await?;
            self.index_file(digest).await?;
        }
        tokio::fs::write(self.kept_mark(digest), b"").await?;
        drop(cleanup);
        self.evict(digest)?;
        Ok((digest, size))
    }

    /// Whether the complete blob is in the store.
    pub fn has(&self, digest: [u8; 32]) -> bool {
        self.path(digest).exists()
    }

    /// Makes sure the blob is here, complete and verified, fetching it from `providers` if need be.
    /// Calls for one digest are one transfer. Cancelling keeps what arrived.
    ///
    /// # Errors
    /// See [`ImageError`]; `size` bounds what a peer may send.
    pub async fn ensure(
        &self,
        digest: [u8; 32],
        size: u64,
        providers: Vec<EndpointAddr>,
    ) -> Result<(PathBuf, ImageSource), ImageError> {
        let _guard = self.lock(digest).await;
        if let Some(path) = self.verified_or_dropped(digest).await? {
            let found = std::fs::metadata(&path)?.len();
            if found != size {
                return Err(ImageError::SizeMismatch(format!(
                    "the blob has {found} bytes, the manifest says {size}"
                )));
            }
            cache::touch(&path);
            return Ok((path, ImageSource::Cache));
        }
        self.make_room(size, digest)?;
        let own = self.inner.endpoint.id();
        let providers: Vec<_> = providers
            .into_iter()
            .filter(|provider| provider.id != own)
            .collect();
        let peers = self.receive(digest, size, providers).await?;
        Ok((self.path(digest), ImageSource::Peers(peers)))
    }

    /// Declares which digests VMs of this node boot from: they are never evicted.
    pub fn set_in_use(&self, digests: HashSet<[u8; 32]>) {
        self.state().in_use = digests;
    }

    /// Declares which digests this node's operator has attested a copy of: they are never evicted.
    pub fn set_attested(&self, digests: HashSet<[u8; 32]>) {
        self.state().attested = digests;
    }

    /// Bytes of complete blobs that this store may keep.
    pub fn cache_bytes_max(&self) -> u64 {
        self.inner.limits.cache_bytes_max
    }

    /// Closes the index. Call once, when the node stops.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.index.shutdown().await {
            tracing::debug!(%error, "the blob index did not close cleanly");
        }
    }

    /// Fetches into a part file and moves it into place once its hash was checked as a whole.
    async fn receive(
        &self,
        digest: [u8; 32],
        size: u64,
        providers: Vec<EndpointAddr>,
    ) -> Result<Vec<EndpointId>, ImageError> {
        let part_path = self
            .inner
            .dir
            .join(format!("parts/{}.part", hex::encode(digest)));
        let (part, present) = PartFile::open(part_path.clone(), size)?;
        let resumed = present.contains(&true);
        let part = Arc::new(part);
        let peers = fetch::fetch(
            &self.inner.endpoint,
            digest,
            size,
            part.clone(),
            present,
            providers,
        )
        .await?;
        // The pieces were verified on arrival, and the index hashes the whole file before anybody gets its path. This catches a
        // disk that changed some since an attempt before, e.g. in a crash, while they can be told from a finished blob.
        let found = match resumed {
            true => cache::hash_file(part_path.clone()).await?,
            false => digest,
        };
        if found != digest {
            part::discard(&part_path)?;
            let found = hex::encode(found);
            return Err(ImageError::DigestMismatch(format!(
                "the stored pieces hash to {found}; they were dropped"
            )));
        }
        let target = self.path(digest);
        tokio::task::spawn_blocking(move || part.finish(&target))
            .await
            .map_err(std::io::Error::other)??;
        self.index_file(digest).await?;
        Ok(peers)
    }

    /// The path of a blob whose hash stands; a file that rotted is dropped.
    async fn verified_or_dropped(&self, digest: [u8; 32]) -> Result<Option<PathBuf>, ImageError> {
        if let Some(path) = self.verified_path(digest) {
            return Ok(Some(path));
        }
        let path = self.path(digest);
        if !path.exists() {
            return Ok(None);
        }
        if cache::hash_file(path.clone()).await? == digest {
            self.state().verified.insert(digest, Stamp::of(&path)?);
            return Ok(Some(path));
        }
        tracing::error!(digest = %hex::encode(digest), "a stored blob no longer matches its digest; dropping it");
        self.forget(digest)?;
        Ok(None)
    }

    fn verified_path(&self, digest: [u8; 32]) -> Option<PathBuf> {
        let path = self.path(digest);
        let stamp = Stamp::of(&path).ok()?;
        (self.state().verified.get(&digest) == Some(&stamp)).then_some(path)
    }

    /// Lets iroh-blobs refer to a complete file. It hashes the file to build the tree, so the digest is
    /// checked once more.
    async fn index_file(&self, digest: [u8; 32]) -> Result<(), ImageError> {
        let path = self.path(digest);
        let stamp = Stamp::of(&path)?;
        let options = AddPathOptions {
            path,
            format: BlobFormat::Raw,
            mode: ImportMode::TryReference,
        };
        let added = self
            .inner
            .index
            .blobs()
            .add_path_with_opts(options)
            .with_named_tag(hex::encode(digest))
            .await;
        let added =
            added.map_err(|error| ImageError::Io(format!("cannot index the blob: {error:#}")))?;
        if added.hash != Hash::from(digest) {
            self.forget(digest)?;
            return Err(ImageError::DigestMismatch(
                "the file changed while it was stored".into(),
            ));
        }
        self.state().verified.insert(digest, stamp);
        Ok(())
    }

    /// Indexes complete files that a crash kept from the index.
    async fn index_missing(&self) -> Result<(), ImageError> {
        for (digest, _) in cache::list(&self.files())? {
            let known = self.inner.index.blobs().has(digest).await;
            if !known.map_err(|error| ImageError::Io(format!("{error:#}")))? {
                match self.index_file(digest).await {
                    Ok(()) | Err(ImageError::DigestMismatch(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn lock(&self, digest: [u8; 32]) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut state = self.state();
            state.busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            state.busy.entry(digest).or_default().clone()
        };
        lock.lock_owned().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .expect("no panic holds the image state")
    }

    fn files(&self) -> PathBuf {
        self.inner.dir.join("files")
    }

    fn path(&self, digest: [u8; 32]) -> PathBuf {
        self.files().join(hex::encode(digest))
    }

    fn kept_mark(&self, digest: [u8; 32]) -> PathBuf {
        self.files().join(format!("{}.kept", hex::encode(digest)))
    }
}
