//! The Merkle tree over the state: 2^20 buckets by the first bits of the key's hash, at a fixed depth.
//!
//! A record is a pair of hashes, of its key and of itself. A bucket's hash covers its sorted pairs; an empty bucket's is zero, and so
//! is a node over two zeros. The upper 16 levels are dense; the buckets lie in pages of 16 that exist once something is in them. Changes are
//! collected and every touched node is hashed once per [`StateTree::commit`], page by page in order of keys: a tree larger than the caches is read from
//! memory once for each page, not once for each change and once for its hash.

use crate::hash;

/// Levels above the pages.
const UPPER_LEVELS: u32 = 16;
/// Levels within a page.
const PAGE_LEVELS: u32 = 4;
/// Depth of the tree: a path has this many siblings.
pub(crate) const DEPTH: u32 = UPPER_LEVELS + PAGE_LEVELS;
const PAGES: usize = 1 << UPPER_LEVELS;
const PAGE_BUCKETS: usize = 1 << PAGE_LEVELS;

type Hash = [u8; 32];
const ZERO: Hash = [0; 32];

/// (hash of the key, hash of the record), sorted.
pub(crate) type Bucket = Vec<(Hash, Hash)>;

#[derive(Clone, Default)]
struct Page {
    buckets: [Bucket; PAGE_BUCKETS],
    /// Heap order: 1 is the page's root, the buckets' hashes are the last 16.
    nodes: [Hash; 2 * PAGE_BUCKETS],
}

#[derive(Clone, Default)]
pub(crate) struct StateTree {
    /// Heap order over the pages; made with the first record.
    upper: Vec<Hash>,
    pages: Vec<Option<Box<Page>>>,
    /// Changes since the last commit, in the order in which they were made.
    pending: Vec<(Hash, Option<Hash>)>,
}

/// Which bucket a key hash belongs to.
pub(crate) fn bucket_of(key: &Hash) -> u32 {
    u32::from_be_bytes([key[0], key[1], key[2], key[3]]) >> (32 - DEPTH)
}

/// Position of the page that a key hash belongs to.
fn page_of(key: &Hash) -> usize {
    (bucket_of(key) >> PAGE_LEVELS) as usize
}

/// Hash of a bucket.
pub(crate) fn bucket_hash(bucket: &[(Hash, Hash)]) -> Hash {
    if bucket.is_empty() {
        return ZERO;
    }
    let mut bytes = Vec::with_capacity(64 * bucket.len());
    for (key, record) in bucket {
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(record);
    }
    hash::keyed(hash::STATE_BUCKET, &bytes)
}

/// Hash of an inner node.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    if *left == ZERO && *right == ZERO {
        ZERO
    } else {
        hash::pair(hash::STATE_NODE, left, right)
    }
}

impl StateTree {
    /// Sets or removes the record of a key. Takes effect with the next commit.
    pub(crate) fn set(&mut self, key: Hash, record: Option<Hash>) {
        self.pending.push((key, record));
    }

    /// Applies the changes and returns the root.
    pub(crate) fn commit(&mut self) -> Hash {
        let mut pending = std::mem::take(&mut self.pending);
        if self.upper.is_empty() && !pending.is_empty() {
            self.upper = vec![ZERO; 2 * PAGES];
            self.pages = vec![None; PAGES];
        }
        // Stable: of two changes of one key the later one stands.
        pending.sort_by_key(|(key, _)| bucket_of(key));
        let mut dirty: Vec<u32> = Vec::with_capacity(pending.len());
        for changes in pending.chunk_by(|(a, _), (b, _)| page_of(a) == page_of(b)) {
            let index = page_of(&changes[0].0);
            let page = self.pages[index].get_or_insert_with(Box::default);
            page.apply(changes);
            self.upper[PAGES + index] = page.nodes[1];
            dirty.push((PAGES + index) as u32 / 2);
        }
        pending.clear();
        self.pending = pending;
        while !dirty.is_empty() {
            dirty.dedup();
            for index in &mut dirty {
                let i = *index as usize;
                self.upper[i] = node_hash(&self.upper[2 * i], &self.upper[2 * i + 1]);
                *index /= 2;
            }
            dirty.retain(|index| *index > 0);
        }
        self.root()
    }

    /// Root as of the last commit.
    pub(crate) fn root(&self) -> Hash {
        self.upper.get(1).copied().unwrap_or(ZERO)
    }

    /// The bucket of a key and the siblings on the way to the root, lowest first. As of the last commit.
    pub(crate) fn path(&self, key: &Hash) -> (Bucket, Vec<Hash>) {
        let bucket = bucket_of(key);
        let mut siblings = Vec::with_capacity(DEPTH as usize);
        let page_index = (bucket >> PAGE_LEVELS) as usize;
        let page = self.pages.get(page_index).and_then(Option::as_ref);
        let mut node = PAGE_BUCKETS + bucket as usize % PAGE_BUCKETS;
        while node > 1 {
            siblings.push(page.map_or(ZERO, |page| page.nodes[node ^ 1]));
            node /= 2;
        }
        let mut node = PAGES + page_index;
        while node > 1 {
            siblings.push(self.upper.get(node ^ 1).copied().unwrap_or(ZERO));
            node /= 2;
        }
        let entries = page.map(|page| page.buckets[bucket as usize % PAGE_BUCKETS].clone());
        (entries.unwrap_or_default(), siblings)
    }
}

impl Page {
    /// Makes the changes, which lie in this page and in order of their buckets, and hashes what they touch.
    fn apply(&mut self, changes: &[(Hash, Option<Hash>)]) {
        let mut stale = [false; 2 * PAGE_BUCKETS];
        for changes in changes.chunk_by(|(a, _), (b, _)| bucket_of(a) == bucket_of(b)) {
            let within = bucket_of(&changes[0].0) as usize % PAGE_BUCKETS;
            let bucket = &mut self.buckets[within];
            for (key, record) in changes {
                set(bucket, key, *record);
            }
            self.nodes[PAGE_BUCKETS + within] = bucket_hash(bucket);
            stale[(PAGE_BUCKETS + within) / 2] = true;
        }
        for node in (1..PAGE_BUCKETS).rev() {
            if stale[node] {
                self.nodes[node] = node_hash(&self.nodes[2 * node], &self.nodes[2 * node + 1]);
                stale[node / 2] = true;
            }
        }
    }
}

fn set(bucket: &mut Bucket, key: &Hash, record: Option<Hash>) {
    match (bucket.binary_search_by(|(k, _)| k.cmp(key)), record) {
        (Ok(at), Some(record)) => bucket[at].1 = record,
        (Ok(at), None) => {
            bucket.remove(at);
        }
        (Err(at), Some(record)) => {
            bucket.reserve_exact(1);
            bucket.insert(at, (*key, record));
        }
        (Err(_), None) => {}
    }
}
