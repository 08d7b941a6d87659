//! An image store with a socket of its own and no node around it: what benchmarks measure.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use iroh::{EndpointAddr, protocol::Router};

use super::{ImageError, Images, ImagesLimits};
use crate::transport;

/// A store on loopback that serves whoever asks, over the transport that nodes use.
#[derive(Debug)]
pub struct LoneStore {
    images: Images,
    address: EndpointAddr,
    router: Router,
}

impl LoneStore {
    /// Opens the store in `dir`; its key is made anew.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub async fn open(dir: &Path, limits: ImagesLimits) -> Result<Self, ImageError> {
        let key = ed25519_zebra::SigningKey::from(rand::random::<[u8; 32]>());
        let endpoint = transport::bind(&key, (Ipv4Addr::LOCALHOST, 0).into())
            .await
            .map_err(|error| ImageError::Io(error.to_string()))?;
        let images = Images::open_with(dir, endpoint.clone(), limits).await?;
        let sockets = endpoint.bound_sockets();
        let address = EndpointAddr::new(endpoint.id()).with_ip_addr(sockets[0]);
        let router = Router::builder(endpoint)
            .accept(iroh_blobs::ALPN, images.protocol(Arc::new(|_| true)))
            .spawn();
        Ok(Self {
            images,
            address,
            router,
        })
    }

    /// The store.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Where others fetch from it.
    pub fn address(&self) -> EndpointAddr {
        self.address.clone()
    }

    /// Ends serving and closes the store.
    pub async fn close(self) {
        let _ = self.router.shutdown().await;
        self.images.shutdown().await;
    }
}
