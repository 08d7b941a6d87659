//! The store's slow chores: uploads that nobody published lose their protection, and one blob at a time
//! is hashed again; what rotted is fetched anew. What a blob is for comes in as a list.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, SystemTime},
};

use iroh::EndpointAddr;

use super::{Images, cache, error::ImageError};

/// Between two rounds of chores.
const ROUND_INTERVAL: Duration = Duration::from_secs(600);
/// An upload is published within this time, or it may be evicted.
const PUBLISH_WITHIN: Duration = Duration::from_secs(3600);

impl Images {
    /// Does the chores for ever. `named` gives the blobs that the ledger's images name, with their sizes;
    /// `providers` the nodes that may hold them.
    pub async fn upkeep(
        self,
        named: impl Fn() -> HashMap<[u8; 32], u64>,
        providers: impl Fn() -> Vec<EndpointAddr>,
    ) {
        // Starts at a blob of its own choice, so that nodes restarted often still come round.
        let mut turn = rand::random::<u32>() as usize;
        loop {
            tokio::time::sleep(ROUND_INTERVAL).await;
            let named = named();
            if let Err(error) = self.unprotect_uploads(&named, PUBLISH_WITHIN) {
                tracing::warn!(%error, "old uploads could not be looked through");
            }
            turn = turn.wrapping_add(1);
            match self.scrub_one(turn, &named, providers()).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(code = error.code(), %error, "a rotten blob could not be fetched again")
                }
            }
        }
    }

    /// Lets uploads that no image names be evicted once they are `age` old: an upload costs nothing, so
    /// it may not hold space for ever.
    pub fn unprotect_uploads(
        &self,
        named: &HashMap<[u8; 32], u64>,
        age: Duration,
    ) -> Result<(), ImageError> {
        for (digest, held) in cache::list(&self.files())? {
            if !held.kept || named.contains_key(&digest) {
                continue;
            }
            let mark = self.kept_mark(digest);
            let since = fs::metadata(&mark).and_then(|metadata| metadata.modified());
            let old = |since: SystemTime| since.elapsed().is_ok_and(|elapsed| elapsed >= age);
            if since.is_ok_and(old) {
                fs::remove_file(&mark)?;
            }
        }
        Ok(())
    }

    /// Hashes the `turn`-th blob again. Returns its digest if it had rotted; then it was fetched anew, if
    /// an image still names it.
    pub async fn scrub_one(
        &self,
        turn: usize,
        named: &HashMap<[u8; 32], u64>,
        providers: Vec<EndpointAddr>,
    ) -> Result<Option<[u8; 32]>, ImageError> {
        let mut held = cache::list(&self.files())?;
        held.sort_by_key(|(digest, _)| *digest);
        let Some((digest, blob)) = held.get(turn % held.len().max(1)).copied() else {
            return Ok(None);
        };
        if self.rehash(digest).await? {
            return Ok(None);
        }
        if let Some(size) = named.get(&digest) {
            self.ensure(digest, *size, providers).await?;
            if blob.kept {
                fs::write(self.kept_mark(digest), b"")?;
            }
        }
        Ok(Some(digest))
    }

    /// Hashes every complete blob again and drops the ones that rotted; the next `ensure` fetches them
    /// anew. Returns the dropped digests.
    pub async fn scrub(&self) -> Result<Vec<[u8; 32]>, ImageError> {
        let mut dropped = Vec::new();
        for (digest, _) in cache::list(&self.files())? {
            if !self.rehash(digest).await? {
                dropped.push(digest);
            }
        }
        Ok(dropped)
    }

    /// Hashes a blob again; false if it had rotted and was dropped.
    async fn rehash(&self, digest: [u8; 32]) -> Result<bool, ImageError> {
        let _guard = self.lock(digest).await;
        self.state().verified.remove(&digest);
        Ok(!self.has(digest) || self.verified_or_dropped(digest).await?.is_some())
    }
}
