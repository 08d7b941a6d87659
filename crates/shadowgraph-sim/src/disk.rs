//! The disk of a node: one append-only log with a synced part and a suffix that a crash may lose or tear. Knows bytes and
//! frames, not events.

use crate::rng::SimRng;

/// Bytes before each record: its length, and a checksum that shows a torn one.
const HEADER: usize = 4 + 8;
/// What a disk writes at once; a torn write leaves some sectors of the suffix unwritten.
const SECTOR: usize = 512;

/// What a crash does to the writes that were never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKind {
    /// The process died, the machine lives: everything written survives.
    Process,
    /// The machine lost power: unsynced writes are gone.
    PowerLosingAll,
    /// The machine lost power: some sectors of the unsynced writes reached the disk, in no particular order.
    PowerTearing,
}

/// A log file.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    bytes: Vec<u8>,
    synced: usize,
    records: usize,
    /// Something synced was damaged.
    rotten: bool,
}

/// What was synced is no longer what was written. A torn write is not that: it ends the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record at the end. It survives a loss of power only after `sync`.
    pub fn append(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).expect("a record is shorter than 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&checksum(record));
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }

    /// Whether everything written is also synced.
    pub fn is_synced(&self) -> bool {
        self.synced == self.bytes.len()
    }

    /// The length of the log now: what a sync that starts now will cover.
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// Everything up to `position` is on the platter.
    pub fn synced_to(&mut self, position: usize) {
        assert!(
            position <= self.bytes.len(),
            "a sync covers no more than was written"
        );
        self.synced = self.synced.max(position);
    }

    /// Number of whole records.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The node goes down. What was synced stays exactly as it is.
    pub fn crash(&mut self, kind: CrashKind, rng: &mut SimRng) {
        match kind {
            CrashKind::Process => {}
            CrashKind::PowerLosingAll => self.bytes.truncate(self.synced),
            CrashKind::PowerTearing => {
                let keep = rng.between(self.synced as u64, self.bytes.len() as u64) as usize;
                self.bytes.truncate(keep);
                let mut sector = self.synced;
                while sector < self.bytes.len() {
                    let end = (sector / SECTOR + 1) * SECTOR;
                    let end = end.min(self.bytes.len());
                    if rng.chance(200) {
                        self.bytes[sector..end].fill(0);
                    }
                    sector = end;
                }
            }
        }
    }

    /// Someone restores an old copy: only the first `records` records are there, as if nothing had come after.
    pub fn roll_back(&mut self, records: usize) {
        let mut position = 0;
        for _ in 0..records {
            match self.record_at(position) {
                Some((_, next)) => position = next,
                None => break,
            }
        }
        self.bytes.truncate(position);
        self.synced = position;
    }

    /// A bit of a synced record flips. Nobody notices before the log is read.
    pub fn rot(&mut self, permille: u32) {
        let target = self.synced * permille as usize / 1000;
        let mut position = 0;
        while let Some((_, next)) = self.record_at(position) {
            if next > target && next <= self.synced {
                self.bytes[next - 1] ^= 1;
                self.rotten = true;
                return;
            }
            position = next;
        }
    }

    /// Reads the log back after a crash: every whole record up to the first torn one. The rest is cut off, and what
    /// remains counts as synced.
    ///
    /// # Errors
    /// What was synced is damaged: what it said, others may have seen. Nothing is cut off then.
    pub fn recover(&mut self) -> Result<Vec<Vec<u8>>, Damaged> {
        let mut records = Vec::new();
        let mut position = 0;
        while let Some((record, next)) = self.record_at(position) {
            records.push(record.to_vec());
            position = next;
        }
        if position < self.synced {
            assert!(
                self.rotten,
                "a crash damaged synced records: the disk model is broken"
            );
            return Err(Damaged);
        }
        self.bytes.truncate(position);
        self.synced = position;
        self.records = records.len();
        Ok(records)
    }

    /// Every record, whether synced or not.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut position = 0;
        std::iter::from_fn(move || {
            let (record, next) = self.record_at(position)?;
            position = next;
            Some(record)
        })
    }

    fn record_at(&self, position: usize) -> Option<(&[u8], usize)> {
        let header = self.bytes.get(position..position + HEADER)?;
        let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let end = (position + HEADER).checked_add(length)?;
        let record = self.bytes.get(position + HEADER..end)?;
        (checksum(record) == header[4..]).then_some((record, end))
    }
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_derive_key("dagger simulator disk v1");
    hasher.update(record);
    hasher.finalize().as_bytes()[..8]
        .try_into()
        .expect("a hash has at least eight bytes")
}
