//! Faults that a test brings about in a running node, where no signal or file system can: a clock that is off, peers whose
//! frames are lost. The node looks at a file that `faults` in `node.toml` names; without that setting none of this runs.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use dagger_ledger::Key;
use serde::Deserialize;

use crate::handle::Shared;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Faults {
    /// How far this node's clock is off.
    clock_ms: i64,
    /// Node keys of the peers to and from which every frame is lost.
    deaf_to: BTreeSet<Key>,
}

/// Brings about what the file says, and takes it back, for as long as the node runs.
pub(crate) async fn run(shared: Arc<Shared>, file: impl AsRef<Path>) {
    let path = shared.config.data_dir.join(file);
    tracing::warn!(file = %path.display(), "this node looks for faults to have: it is under test");
    let mut present = Faults::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Ok(bytes) = tokio::fs::read(&path).await else {
            continue;
        };
        match serde_json::from_slice::<Faults>(&bytes) {
            Ok(wanted) if wanted != present => {
                tracing::warn!(?wanted, "faults");
                shared.clock.shift(wanted.clock_ms - present.clock_ms);
                shared.links.set_deaf(wanted.deaf_to.clone());
                present = wanted;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the faults file cannot be read"),
        }
    }
}
