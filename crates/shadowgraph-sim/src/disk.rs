//! The disk of a node: one append-only log with a synced part and a suffix that a crash may lose or tear. Knows kinds and
//! bytes of records and where they lie, not what they say.

use bytes::Bytes;

use crate::rng::SimRng;

/// Bytes that each record takes beside its own: length, checksum, kind.
const HEADER: usize = 4 + 8 + 1;
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

/// What was appended at once. The bytes are shared with whoever else has them: a run of two hundred nodes would spend its
/// time in copies of one another's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the bytes are: for the writer to say.
    pub kind: u8,
    /// The bytes.
    pub body: Bytes,
}

#[derive(Clone, Debug)]
struct Written {
    record: Record,
    /// The position after it.
    end: usize,
    /// Whether a bit of it has flipped: its checksum is wrong.
    rotten: bool,
}

/// A log file.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    log: Vec<Written>,
    synced: usize,
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
    pub fn append(&mut self, kind: u8, body: Bytes) {
        let end = self.written() + HEADER + body.len();
        self.log.push(Written {
            record: Record { kind, body },
            end,
            rotten: false,
        });
    }

    /// Whether everything written is also synced.
    pub fn is_synced(&self) -> bool {
        self.synced == self.written()
    }

    /// The length of the log now: what a sync that starts now will cover.
    pub fn written(&self) -> usize {
        self.log.last().map_or(0, |last| last.end)
    }

    /// Everything up to `position` is on the platter.
    pub fn synced_to(&mut self, position: usize) {
        assert!(
            position <= self.written(),
            "a sync covers no more than was written"
        );
        self.synced = self.synced.max(position);
    }

    /// Number of whole records.
    pub fn records(&self) -> usize {
        self.log.len()
    }

    /// The node goes down. What was synced stays exactly as it is; the first record that is not whole ends the log.
    pub fn crash(&mut self, kind: CrashKind, rng: &mut SimRng) {
        match kind {
            CrashKind::Process => {}
            CrashKind::PowerLosingAll => self.cut(self.synced),
            CrashKind::PowerTearing => {
                let keep = rng.between(self.synced as u64, self.written() as u64) as usize;
                let mut whole = keep;
                let mut sector = self.synced;
                while sector < keep {
                    if rng.chance(200) {
                        whole = whole.min(sector);
                    }
                    sector = (sector / SECTOR + 1) * SECTOR;
                }
                self.cut(whole);
            }
        }
    }

    /// Nothing behind `position` can be read.
    fn cut(&mut self, position: usize) {
        let whole = self.log.partition_point(|written| written.end <= position);
        self.log.truncate(whole);
        assert!(
            self.synced <= self.written(),
            "a crash damaged synced records: the disk model is broken"
        );
    }

    /// Someone restores an old copy: only the first `records` records are there, as if nothing had come after.
    pub fn roll_back(&mut self, records: usize) {
        let readable = self.iter().count();
        self.log.truncate(records.min(readable));
        self.synced = self.written();
    }

    /// A bit of a synced record flips. Nobody notices before the log is read.
    pub fn rot(&mut self, permille: u32) {
        let target = self.synced * permille as usize / 1000;
        let hit = self.log.partition_point(|written| written.end <= target);
        if let Some(written) = self.log.get_mut(hit)
            && written.end <= self.synced
        {
            written.rotten = true;
        }
    }

    /// Reads the log back after a crash: every record. What is there counts as synced.
    ///
    /// # Errors
    /// What was synced is damaged: what it said, others may have seen. Nothing is cut off then.
    pub fn recover(&mut self) -> Result<Vec<Record>, Damaged> {
        if self.log.iter().any(|written| written.rotten) {
            return Err(Damaged);
        }
        self.synced = self.written();
        Ok(self.iter().cloned().collect())
    }

    /// Every record that can be read, whether synced or not.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        let readable = self.log.iter().take_while(|written| !written.rotten);
        readable.map(|written| &written.record)
    }
}
