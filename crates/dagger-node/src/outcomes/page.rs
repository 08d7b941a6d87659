//! Where transactions are, by digest: gathered in a page until it is full, then written in buckets. A tree that took each
//! transaction by itself would cost a node at full load a tenth of its time; one that takes sixteen together, next to nothing.

use dagger_ledger::{Digest, Outcome};

/// How pages are cut. Part of the form on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Transactions of a page.
    pub page: usize,
    /// Bits of a digest that choose a bucket.
    pub bucket_bits: u32,
}

/// Sixteen transactions in each bucket, so that a search reads sixteen of every 65,536.
pub(super) const CUT: Cut = Cut {
    page: 1 << 16,
    bucket_bits: 12,
};

/// Bytes of a bucket's number.
pub(super) const BUCKET_BYTES: usize = 2;
/// Bytes of a place in a written page: the tag, and how many commits before the page's last one.
const PLACE_BYTES: usize = 8 + 4;

/// The beginning of a digest. The commit has the whole of it, so that equal beginnings cost a look and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    pub fn of(digest: &Digest) -> Self {
        let start = digest.0[..8].try_into().expect("eight bytes");
        Self(u64::from_be_bytes(start))
    }

    /// The number of its bucket, as keys begin.
    pub fn bucket(self, cut: Cut) -> [u8; BUCKET_BYTES] {
        let bucket = u16::try_from(self.0 >> (64 - cut.bucket_bits)).expect("fewer bits");
        bucket.to_be_bytes()
    }

    /// The commits, in order, in which a bucket of a page that ends with `last` has it.
    pub fn find_written(self, last: u64, bucket: &[u8]) -> impl Iterator<Item = u64> {
        let places = bucket.chunks_exact(PLACE_BYTES).map(move |place| {
            let (tag, back) = place.split_at(8);
            let tag = u64::from_be_bytes(tag.try_into().expect("eight bytes"));
            let back = u32::from_be_bytes(back.try_into().expect("four bytes"));
            (tag, last.saturating_sub(u64::from(back)))
        });
        let same = places.filter(move |(tag, _)| *tag == self.0);
        same.map(|(_, commit)| commit)
    }
}

/// The transactions since the last page that was written, in order.
pub(super) struct Page {
    cut: Cut,
    places: Vec<(u64, u64)>,
}

impl Page {
    pub fn new(cut: Cut) -> Self {
        Self {
            cut,
            places: Vec::new(),
        }
    }

    pub fn extend(&mut self, commit: u64, outcomes: &[Outcome]) {
        let tags = outcomes.iter().map(|o| (Tag::of(&o.digest).0, commit));
        self.places.extend(tags);
    }

    /// The commits in which it has a tag, in order.
    pub fn find(&self, tag: Tag) -> Vec<u64> {
        let same = self.places.iter().filter(|(own, _)| *own == tag.0);
        same.map(|(_, commit)| *commit).collect()
    }

    /// Transactions in it.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it is to be written: enough is in it, or its ends lie too far apart.
    pub fn is_full(&self) -> bool {
        let span = match (self.places.first(), self.places.last()) {
            (Some((_, first)), Some((_, last))) => last - first,
            _ => 0,
        };
        self.places.len() >= self.cut.page || span >= u64::from(u32::MAX)
    }

    /// Its buckets, as they are written; it is empty then.
    pub fn take_written(&mut self) -> Vec<([u8; BUCKET_BYTES + 8], Vec<u8>)> {
        let cut = self.cut;
        let bucket = |place: &(u64, u64)| Tag(place.0).bucket(cut);
        let last = self.places.last().map_or(0, |(_, commit)| *commit);
        // Stable: of the same tag the first commit stays the first.
        self.places.sort_by_key(bucket);
        let buckets = self.places.chunk_by(|a, b| bucket(a) == bucket(b));
        let write = |places: &[(u64, u64)]| {
            let mut key = [0; BUCKET_BYTES + 8];
            key[..BUCKET_BYTES].copy_from_slice(&bucket(&places[0]));
            key[BUCKET_BYTES..].copy_from_slice(&last.to_be_bytes());
            let mut value = Vec::with_capacity(places.len() * PLACE_BYTES);
            for (tag, commit) in places {
                let back = u32::try_from(last - commit).unwrap_or(u32::MAX);
                value.extend_from_slice(&tag.to_be_bytes());
                value.extend_from_slice(&back.to_be_bytes());
            }
            (key, value)
        };
        let written = buckets.map(write).collect();
        self.places.clear();
        written
    }
}
