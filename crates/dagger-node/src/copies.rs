//! Keeps enough verified copies of each image, by different operators, so that an image outlives the node it was uploaded to.
//!
//! A node that holds an image of which the ledger counts too few copies attests its own. While still too few are attested, the
//! machines that a hash of image and machine names fetch one: the hash spreads images over machines, needs no agreement, and who
//! cannot is passed over after a while.
//!
//! Must not live here: what copies mean for placement (the ledger), and how blobs are fetched and kept (`images`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use dagger_ledger::{
    Action, Blob, Digest, ImageAttest, ImageId, ImageRecord, Key, Ledger, MachineState, OperatorId,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    handle::NodeHandle,
    host::blob_providers,
    images::{ImageError, Images},
    statement,
};

/// Operators that are to hold a copy, where the ledger does not ask for more. Two survive a loss; the third may have lied.
pub(crate) const COPIES: usize = 3;
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// One more machine fetches for every such time for which an image has had too few copies.
const PASS_OVER: Duration = Duration::from_secs(60);
/// Images with too few copies that are looked at in one look, the oldest first.
const IMAGES_AT_ONCE: usize = 64;
/// Before a fetch that failed is tried again; doubled with each failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The most doublings of it.
const RETRY_DOUBLINGS_MAX: u32 = 6;

/// What the ledger says of who could hold copies, as of one look.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    /// Machines that are up, and who owns them.
    pub up: Vec<(OperatorId, Key)>,
    /// Operators whose attested copies count: one with machines has one that is up.
    pub present: BTreeSet<OperatorId>,
}

/// What this node may have to do about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub image: ImageId,
    pub name: String,
    pub digest: Digest,
    pub blobs: Vec<Blob>,
    /// Its operator has attested a copy: what is here of it stays.
    pub attested: bool,
    /// It fetches the image if it has not got it.
    pub fetches: bool,
}

impl Holders {
    fn of(ledger: &Ledger) -> Self {
        let up = |state| state == MachineState::Up;
        let mut with_machines = BTreeSet::new();
        let mut holders = Holders::default();
        for machine in ledger.machines() {
            with_machines.insert(machine.operator);
            if up(machine.state) {
                holders.up.push((machine.operator, machine.node_key));
                holders.present.insert(machine.operator);
            }
        }
        let seated = ledger.operators().filter(|operator| operator.is_seated());
        let seated = seated.map(|operator| operator.id);
        // Nobody attests a member's node, so its word is taken.
        holders
            .present
            .extend(seated.filter(|id| !with_machines.contains(id)));
        holders
    }

    /// Whether a machine is the first choice of its operator for an image, and that operator among the first `places` of those
    /// that `may`.
    pub fn chosen(
        &self,
        own: &Key,
        image: &Digest,
        may: impl Fn(OperatorId) -> bool,
        places: usize,
    ) -> bool {
        let mut first: BTreeMap<OperatorId, ([u8; 32], Key)> = BTreeMap::new();
        for (operator, key) in self.up.iter().filter(|(operator, _)| may(*operator)) {
            let choice = (*blake3::keyed_hash(&image.0, &key.0).as_bytes(), *key);
            let best = first.entry(*operator).or_insert(choice);
            *best = choice.min(*best);
        }
        let Some((mine, _)) = first.values().find(|(_, key)| key == own) else {
            return false;
        };
        first.values().filter(|(rank, _)| rank < mine).count() < places
    }

    /// Copies that an image lacks.
    pub fn missing(&self, attested_by: &[OperatorId], wanted: usize) -> usize {
        let count = attested_by.iter().filter(|id| self.present.contains(id));
        wanted.saturating_sub(count.count())
    }
}

/// The operator that a node speaks for about copies.
fn operator_of(ledger: &Ledger, own: &Key) -> Option<OperatorId> {
    let machine = ledger.machine_by_node_key(own);
    machine.map(|machine| machine.operator).or_else(|| {
        let mut operators = ledger.operators();
        let operator = operators.find(|operator| operator.node_key == *own && operator.is_seated());
        operator.map(|operator| operator.id)
    })
}

/// What a node has to see to. `passed_over` says of how many machines more than are missing have had their time to fetch an image.
pub(crate) fn tasks(
    ledger: &Ledger,
    own: &Key,
    passed_over: impl Fn(ImageId) -> usize,
) -> Vec<Task> {
    let Some(operator) = operator_of(ledger, own) else {
        return Vec::new();
    };
    let holders = Holders::of(ledger);
    let wanted = COPIES.max(ledger.parameters().image_replicas_min as usize);
    let mut short = 0;
    let task = |image: &ImageRecord| {
        let attested = image.replicas.binary_search(&operator).is_ok();
        let fetches = if attested {
            // Its operator's copy may have been lost.
            holders.chosen(own, &image.digest, |id| id == operator, 1)
        } else {
            let missing = holders.missing(&image.replicas, wanted);
            if missing == 0 || short == IMAGES_AT_ONCE {
                return None;
            }
            short += 1;
            let may = |id| image.replicas.binary_search(&id).is_err();
            holders.chosen(own, &image.digest, may, missing + passed_over(image.id))
        };
        Some(Task {
            image: image.id,
            name: image.name.clone(),
            digest: image.digest,
            blobs: image.manifest.blobs(),
            attested,
            fetches,
        })
    };
    let images = ledger.images().filter(|image| !image.retired);
    images.filter_map(task).collect()
}

/// Keeps copies for as long as the node runs.
pub(crate) async fn keep(node: NodeHandle, images: Images) {
    let mut keeper = Keeper {
        node,
        images,
        short_since: HashMap::new(),
        failures: HashMap::new(),
        fetching: None,
    };
    loop {
        keeper.look().await;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

struct Keeper {
    node: NodeHandle,
    images: Images,
    /// Since when this node has seen an image with too few copies.
    short_since: HashMap<ImageId, Instant>,
    /// Fetches that failed in a row, and when the next may begin.
    failures: HashMap<ImageId, (u32, Instant)>,
    fetching: Option<(Task, JoinHandle<Result<(), ImageError>>)>,
}

impl Keeper {
    async fn look(&mut self) {
        let own = Key(self.node.node_key().verification_key().into());
        let now = Instant::now();
        let passed_over = |image| {
            let since = self.short_since.get(&image);
            since.map_or(0, |since| {
                (now.duration_since(*since).as_secs() / PASS_OVER.as_secs()) as usize
            })
        };
        let tasks = self.node.read(|ledger| tasks(ledger, &own, passed_over));
        let short = tasks.iter().filter(|task| !task.attested);
        let short: HashSet<ImageId> = short.map(|task| task.image).collect();
        self.short_since.retain(|image, _| short.contains(image));
        for image in short {
            self.short_since.entry(image).or_insert(now);
        }
        let attested = tasks.iter().filter(|task| task.attested);
        let attested = attested.flat_map(|task| &task.blobs);
        self.images
            .set_attested(attested.map(|blob| blob.digest.0).collect());
        self.fetched().await;
        for task in &tasks {
            let held = self.holds(task);
            if !task.attested && held {
                self.attest(task).await;
            } else if task.fetches && !held && self.may_fetch(task, &tasks) {
                self.fetch(task.clone());
            }
        }
    }

    fn holds(&self, task: &Task) -> bool {
        let mut blobs = task.blobs.iter();
        blobs.all(|blob| self.images.has(blob.digest.0))
    }

    /// Says that a verified copy is here, once it was verified.
    async fn attest(&self, task: &Task) {
        // From nobody: it is here already, and what rotted is not a copy.
        if let Err(error) = ensure(&self.images, &task.blobs, Vec::new).await {
            tracing::warn!(image = task.name, code = error.code(), %error, "a copy of an image is not whole");
            return;
        }
        let attest = ImageAttest {
            image: task.name.clone(),
            digest: task.digest,
        };
        match statement::state(&self.node, Action::ImageAttest(attest)).await {
            Ok(code) if code == "ok" => {
                tracing::info!(image = task.name, "attested a copy of an image")
            }
            Ok(code) => {
                tracing::warn!(
                    image = task.name,
                    code,
                    "the ledger refused to count a copy"
                )
            }
            // Said again at the next look.
            Err(error) => {
                tracing::debug!(image = task.name, %error, "a copy is not attested yet")
            }
        }
    }

    /// One fetch at a time, none too soon after it failed, and copies for others take half of the store at most.
    fn may_fetch(&self, task: &Task, tasks: &[Task]) -> bool {
        let due = self.failures.get(&task.image);
        let due = due.is_none_or(|(_, next)| *next <= Instant::now());
        let bytes = |task: &Task| task.blobs.iter().map(|blob| blob.size_bytes).sum::<u64>();
        let copies = tasks.iter().filter(|other| other.attested);
        let copies: u64 = copies.filter(|other| self.holds(other)).map(bytes).sum();
        let room = copies.saturating_add(bytes(task)) <= self.images.cache_bytes_max() / 2;
        self.fetching.is_none() && due && room
    }

    fn fetch(&mut self, task: Task) {
        tracing::info!(
            image = task.name,
            "fetching an image: it has too few copies"
        );
        let (node, images, blobs) = (self.node.clone(), self.images.clone(), task.blobs.clone());
        let fetch = async move { ensure(&images, &blobs, || blob_providers(&node)).await };
        self.fetching = Some((task, tokio::spawn(fetch)));
    }

    /// Sees to a fetch that has ended.
    async fn fetched(&mut self) {
        let ended = |(_, fetch): &mut (Task, JoinHandle<_>)| fetch.is_finished();
        let Some((task, fetch)) = self.fetching.take_if(ended) else {
            return;
        };
        let text = match fetch.await {
            Ok(Ok(())) => {
                self.failures.remove(&task.image);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let (before, _) = self
            .failures
            .get(&task.image)
            .unwrap_or(&(0, Instant::now()))
            .to_owned();
        let wait = RETRY_AFTER * (1 << before.min(RETRY_DOUBLINGS_MAX));
        tracing::warn!(
            image = task.name,
            text,
            ?wait,
            "an image could not be fetched"
        );
        let next = Instant::now() + wait;
        self.failures.insert(task.image, (before + 1, next));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((_, fetch)) = &self.fetching {
            fetch.abort();
        }
    }
}

async fn ensure(
    images: &Images,
    blobs: &[Blob],
    providers: impl Fn() -> Vec<iroh::EndpointAddr>,
) -> Result<(), ImageError> {
    for blob in blobs {
        let (digest, size) = (blob.digest.0, blob.size_bytes);
        images.ensure(digest, size, providers()).await?;
    }
    Ok(())
}
