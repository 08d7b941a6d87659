//! The index in fjall: what is under which key, one atomic batch for a group of commits, and what is taken out again.
//!
//! ```text
//! commits   commit u64 BE                   Head | outcomes | Way (borsh)
//! places    bucket u16 BE | commit u64 BE   of a page that ends with that commit, the transactions in that bucket: see `page`
//! marks     0 | commit u64 BE               the certificate of the checkpoint after that commit (borsh)
//!           1                               Mark (borsh)
//!           2                               a random number, as long as this index is this one
//! ```
//! Pages that end below the first commit that is kept go when fjall rewrites their tables: they are spread over all of them, and
//! to delete each part would cost as much as to write it did.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use borsh::{BorshDeserialize, BorshSerialize};
use dagger_ledger::{CommitLink, Digest, Outcome};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    compaction::filter::{
        CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
    },
    config::{FilterPolicy, FilterPolicyEntry},
};
use shadowgraph::CheckpointCertificate;

use super::{
    page::{BUCKET_BYTES, CUT, Cut, Page, Tag},
    queue::Note,
    record::{Executed, Head, Way},
};

/// The form of what is stored.
const FORMAT: u32 = 1;
/// Commits that are taken out at once.
const PRUNED_MAX: usize = 1024;
/// More than what is to be kept is there before anything is taken out: this part of it.
const SLACK_PART: u64 = 16;
const MEMTABLE_BYTES: u64 = 16 << 20;
const CACHE_BYTES: u64 = 8 << 20;
const JOURNAL_BYTES: u64 = 128 << 20;
const OPEN_FILES: usize = 256;
const CERTIFICATE: u8 = 0;
const MARK: [u8; 1] = [1];
const IDENTITY: [u8; 1] = [2];

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error(transparent)]
    Fjall(#[from] fjall::Error),
    #[error("{0} does not decode")]
    Undecodable(&'static str),
    #[error("it is of format {found}, and this program knows {FORMAT}")]
    Format { found: u32 },
    #[error("a panic while it was used")]
    Panic,
}

impl IndexError {
    /// Whether space is what it lacks.
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let mut error: Option<&(dyn std::error::Error + 'static)> = match self {
            Self::Fjall(error) => Some(error),
            _ => None,
        };
        while let Some(this) = error {
            if let Some(io) = this.downcast_ref::<std::io::Error>() {
                return matches!(io.kind(), StorageFull | QuotaExceeded);
            }
            error = this.source();
        }
        false
    }

    /// Whether fjall wants to be opened anew, because a write in the background failed.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Fjall(fjall::Error::Poisoned))
    }

    /// Whether another one has it open still.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Fjall(fjall::Error::Locked))
    }
}

/// How far the index goes; in the same batch as what it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct Mark {
    format: u32,
    /// The last commit applied. Those in between have no transactions.
    pub applied: u64,
    /// Every commit from here to the last applied one was applied, none left out.
    pub whole_from: u64,
    /// The first commit that was not taken out.
    pub kept_from: u64,
    /// Transactions held.
    pub transactions: u64,
    /// The last certificate.
    certified: u64,
    /// The last commit with transactions.
    last_with_transactions: u64,
    /// The last commit whose transactions are in a page that is written.
    pub(super) paged_to: u64,
}

impl Mark {
    /// The first commit from which on all outcomes are here.
    pub fn known_from(&self) -> u64 {
        self.whole_from.max(self.kept_from)
    }

    /// An index that was set aside goes on in the middle.
    fn begin_at(&mut self, commit: u64) {
        if self.whole_from == 0 {
            self.whole_from = commit;
        }
    }
}

/// A transaction that was found.
pub(super) struct Found {
    pub head: Head,
    pub outcomes: Vec<Outcome>,
    pub position: usize,
    pub way: Way,
}

/// An open index. Any thread may read; one writes.
pub(super) struct Index {
    pub(super) db: Database,
    pub(super) commits: Keyspace,
    pub(super) places: Keyspace,
    pub(super) marks: Keyspace,
    /// Another one in the same directory has another.
    pub(super) identity: u64,
    kept_from: Arc<AtomicU64>,
    /// The newest places: their page is written once it is full, and begun again from the commits at the next start.
    page: Mutex<Page>,
    pub(super) cut: Cut,
}

impl Index {
    /// Opens the index in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<(Self, Mark), IndexError> {
        Self::open_with(dir, CUT)
    }

    fn open_with(dir: &Path, cut: Cut) -> Result<(Self, Mark), IndexError> {
        let kept_from = Arc::<AtomicU64>::default();
        let filter = Arc::new(OldPlaces(Arc::clone(&kept_from)));
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(1)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                (keyspace == "places").then(|| Arc::clone(&filter) as Arc<dyn Factory>)
            }))
            .open()?;
        // Places are only searched by the beginning of a key, for which a Bloom filter is of no use.
        let unfiltered = FilterPolicy::new([FilterPolicyEntry::None]);
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let marks = db.keyspace("marks", options)?;
        let index = Self {
            commits: db.keyspace("commits", options)?,
            places: db.keyspace("places", || options().filter_policy(unfiltered))?,
            identity: identity(&marks)?,
            marks,
            kept_from,
            page: Mutex::new(Page::new(cut)),
            cut,
            db,
        };
        let mark = match index.marks.get(MARK)? {
            Some(bytes) => {
                let format = u32::deserialize(&mut &bytes[..]);
                match format.map_err(|_| IndexError::Undecodable("the mark"))? {
                    FORMAT => decode(&bytes, "the mark")?,
                    found => return Err(IndexError::Format { found }),
                }
            }
            None => Mark {
                format: FORMAT,
                ..Mark::default()
            },
        };
        index.kept_from.store(mark.kept_from, Ordering::Release);
        *index.page.lock().expect("no holder panics") = index.unwritten_page(&mark)?;
        Ok((index, mark))
    }

    fn unwritten_page(&self, mark: &Mark) -> Result<Page, IndexError> {
        let mut page = Page::new(self.cut);
        // Older ones are on their way in, and written by pages of their own.
        let from = mark.whole_from.max(mark.paged_to + 1).to_be_bytes();
        for guard in self.commits.range(from..) {
            let value = guard.value()?;
            let mut bytes: &[u8] = &value;
            let decoded = <(Head, Vec<Outcome>)>::deserialize(&mut bytes);
            let (head, outcomes) = decoded.map_err(|_| IndexError::Undecodable("a commit"))?;
            page.extend(head.link.commit, &outcomes);
        }
        Ok(page)
    }

    /// Applies a group of notes in one batch; returns how far the index goes then.
    pub fn apply(&self, mut mark: Mark, notes: &[Note]) -> Result<Mark, IndexError> {
        let mut batch = self.db.batch();
        // Held until all is written: who searches meanwhile must not miss a page that is being written. After an error the index
        // is opened anew.
        let mut page = self.page.lock().expect("no holder panics");
        for note in notes {
            match note {
                Note::From(commit) => {
                    // Nothing of what lies between will ever come.
                    if *commit > mark.applied || mark.whole_from == 0 {
                        mark.whole_from = commit + 1;
                        mark.applied = *commit;
                    }
                }
                Note::Empty(commit) => {
                    mark.begin_at(*commit);
                    mark.applied = mark.applied.max(*commit);
                }
                Note::Executed(executed) => {
                    self.insert(&mut batch, &mut mark, &mut page, executed);
                }
                Note::Older(older) if older.identity == self.identity => mark.join(older),
                Note::Older(_) => {}
                Note::Certificate(certificate) => {
                    let commit = certificate.checkpoint.commit.0;
                    // One that covers no further transaction proves nothing that another does not; but the members may
                    // have certified what this node has yet to execute.
                    let covers =
                        commit > mark.applied || mark.last_with_transactions > mark.certified;
                    if covers && commit > mark.certified && commit >= mark.kept_from {
                        let bytes = borsh::to_vec(&**certificate).expect("writes to memory");
                        batch.insert(&self.marks, certificate_key(commit), bytes);
                        mark.certified = commit;
                    }
                }
            }
        }
        batch.insert(&self.marks, MARK, encode(&mark));
        batch.commit()?;
        drop(page);
        Ok(mark)
    }

    fn insert(
        &self,
        batch: &mut fjall::OwnedWriteBatch,
        mark: &mut Mark,
        page: &mut Page,
        executed: &Executed,
    ) {
        let commit = executed.link.commit;
        mark.begin_at(commit);
        let outcomes = &executed.record.outcomes;
        batch.insert(&self.commits, commit.to_be_bytes(), commit_value(executed));
        // What a restart executes again is there already.
        if commit > mark.applied {
            mark.applied = commit;
            mark.transactions += outcomes.len() as u64;
            page.extend(commit, outcomes);
            if page.is_full() {
                self.write_page(batch, page);
                mark.paged_to = commit;
            }
        }
        mark.last_with_transactions = mark.last_with_transactions.max(commit);
    }

    /// Takes out the oldest commits while more than `keep` transactions are held, a bounded number of them in one batch.
    pub fn prune(&self, mut mark: Mark, keep: u64) -> Result<Mark, IndexError> {
        if mark.transactions <= keep.saturating_add(keep / SLACK_PART) {
            return Ok(mark);
        }
        let mut batch = self.db.batch();
        let before = mark.kept_from;
        for guard in self.commits.range(before.to_be_bytes()..).take(PRUNED_MAX) {
            if mark.transactions <= keep {
                break;
            }
            let (key, value) = guard.into_inner()?;
            let link = decode_head(&value)?.link;
            batch.remove(&self.commits, key);
            mark.transactions = mark.transactions.saturating_sub(link.count);
            mark.kept_from = link.commit + 1;
        }
        // Without a commit to take out the number is wrong, as after a fall back to an older state of the disk.
        if mark.kept_from == before {
            mark.transactions = 0;
        }
        let certificates = certificate_key(before)..certificate_key(mark.kept_from);
        for guard in self.marks.range(certificates) {
            batch.remove(&self.marks, guard.key()?);
        }
        batch.insert(&self.marks, MARK, encode(&mark));
        batch.commit()?;
        self.kept_from.store(mark.kept_from, Ordering::Release);
        Ok(mark)
    }

    /// Waits until everything applied is on the device.
    pub fn sync(&self) -> Result<(), IndexError> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    /// The first execution of a transaction that is held.
    pub fn find(&self, transaction: &Digest) -> Result<Option<Found>, IndexError> {
        let kept_from = self.kept_from.load(Ordering::Acquire);
        let tag = Tag::of(transaction);
        // Looked at first: it may be written, and be among the others, at any moment.
        let newest = self.page.lock().expect("no holder panics").find(tag);
        let mut commits = Vec::new();
        for guard in self.places.prefix(tag.bucket(self.cut)) {
            let (key, value) = guard.into_inner()?;
            let last = last_commit(&key).ok_or(IndexError::Undecodable("a place"))?;
            if last >= kept_from {
                commits.extend(tag.find_written(last, &value));
            }
        }
        commits.extend(newest);
        for commit in commits.into_iter().filter(|commit| *commit >= kept_from) {
            let Some(bytes) = self.commits.get(commit.to_be_bytes())? else {
                continue;
            };
            let (head, outcomes, way): (Head, Vec<Outcome>, Way) = decode(&bytes, "a commit")?;
            if let Some(position) = outcomes.iter().position(|o| o.digest == *transaction) {
                return Ok(Some(Found {
                    head,
                    outcomes,
                    position,
                    way,
                }));
            }
        }
        Ok(None)
    }

    /// The first certificate of a checkpoint at or after a commit.
    pub fn certificate(&self, commit: u64) -> Result<Option<CheckpointCertificate>, IndexError> {
        let range = certificate_key(commit)..=certificate_key(u64::MAX);
        let first = self.marks.range(range).next();
        let value = first.map(fjall::Guard::value).transpose()?;
        value
            .map(|bytes| decode(&bytes, "a certificate"))
            .transpose()
    }

    /// The links of the commits after `commit` up to `until`.
    pub fn links(&self, commit: u64, until: u64) -> Result<Vec<CommitLink>, IndexError> {
        let range = (commit + 1).to_be_bytes()..=until.to_be_bytes();
        let values = self.commits.range(range).map(fjall::Guard::value);
        values.map(|value| Ok(decode_head(&value?)?.link)).collect()
    }
}

/// What distinguishes an index from one that took its place.
fn identity(marks: &Keyspace) -> Result<u64, IndexError> {
    if let Some(bytes) = marks.get(IDENTITY)? {
        return decode(&bytes, "the identity");
    }
    let identity = rand::random::<u64>();
    marks.insert(IDENTITY, identity.to_le_bytes())?;
    Ok(identity)
}

/// A commit as it is kept.
pub(super) fn commit_value(executed: &Executed) -> Vec<u8> {
    let outcomes = &executed.record.outcomes;
    let mut value = Vec::with_capacity(256 + 64 * outcomes.len());
    let head = Head {
        link: executed.link,
        previous: executed.previous,
    };
    let written = (&head, outcomes, Way::of(executed)).serialize(&mut value);
    written.expect("borsh writes to memory");
    value
}

/// The last commit of the page that a place is of.
fn last_commit(key: &[u8]) -> Option<u64> {
    let commit = key.get(BUCKET_BYTES..)?.try_into().ok()?;
    Some(u64::from_be_bytes(commit))
}

pub(super) fn certificate_key(commit: u64) -> [u8; 9] {
    let mut key = [CERTIFICATE; 9];
    key[1..].copy_from_slice(&commit.to_be_bytes());
    key
}

fn encode(mark: &Mark) -> Vec<u8> {
    borsh::to_vec(mark).expect("borsh writes to memory")
}

fn decode<T: BorshDeserialize>(bytes: &[u8], what: &'static str) -> Result<T, IndexError> {
    borsh::from_slice(bytes).map_err(|_| IndexError::Undecodable(what))
}

fn decode_head(mut value: &[u8]) -> Result<Head, IndexError> {
    Head::deserialize(&mut value).map_err(|_| IndexError::Undecodable("a commit"))
}

/// Drops places of commits that are no longer kept.
struct OldPlaces(Arc<AtomicU64>);

impl Factory for OldPlaces {
    fn name(&self) -> &'static str {
        "old places"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(OlderThan(self.0.load(Ordering::Acquire)))
    }
}

struct OlderThan(u64);

impl CompactionFilter for OlderThan {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        Ok(match last_commit(item.key()) {
            Some(commit) if commit < self.0 => Verdict::Destroy,
            _ => Verdict::Keep,
        })
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
