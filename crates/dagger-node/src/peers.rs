//! How a node without a seat learns of others that it could follow when those it follows are gone: it asks the peers that it is
//! connected to whom they know. Whether those admit it is for them to say.

use std::{sync::Arc, time::Duration};

use dagger_ledger::Key;

use crate::{
    catchup::{self, Answer, Peer as _, Request},
    handle::Shared,
};

/// Connections with fewer of which a node looks for more.
const CONNECTED_WANTED: usize = 3;
/// How often it asks while it wants more, and when it does not.
const EAGER_INTERVAL: Duration = Duration::from_secs(2);
const CALM_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses of one node that are tried.
const ADDRESSES_MAX: usize = 4;

/// Asks for as long as the node runs.
pub(crate) async fn learn(shared: Arc<Shared>) {
    loop {
        let mut wait = CALM_INTERVAL;
        let connected = shared.links.views();
        let connected = connected.iter().filter(|peer| peer.connected).count();
        if shared.seat().is_none() && connected > 0 {
            ask(&shared).await;
        }
        if shared.seat().is_none() && connected < CONNECTED_WANTED {
            wait = EAGER_INTERVAL;
        }
        tokio::time::sleep(wait).await;
    }
}

async fn ask(shared: &Arc<Shared>) {
    let own_key = shared.own_key();
    for source in catchup::connect_to(shared, |peer| peer.connected).await {
        let Ok(Answer::Peers(peers)) = source.ask(&Request::Peers).await else {
            continue;
        };
        for (key, mut addresses) in peers {
            addresses.truncate(ADDRESSES_MAX);
            if Key(key) != own_key {
                shared.links.learn(Key(key), addresses);
            }
        }
    }
}
