//! How commits that are older than all that the index holds get into it. What an earlier run has written of them is written again, the
//! same; they count once the writer has joined them to the rest ([`Mark::join`]).
//!
//! What must not live here: where they come from (`rebuild`).

use fjall::OwnedWriteBatch;

use super::{
    index::{Index, IndexError, Mark, certificate_key, commit_value},
    page::Page,
    queue::Note,
};

/// What was written so far.
pub(super) struct Older {
    page: Page,
    /// The last commit with transactions.
    last: u64,
    certified: u64,
    transactions: u64,
}

/// The older part of an index, whole.
pub(crate) struct Joined {
    /// The index that it was written into.
    pub identity: u64,
    /// Its first commit.
    pub from: u64,
    /// Its last one.
    pub until: u64,
    pub transactions: u64,
}

impl Older {
    pub fn new(index: &Index) -> Self {
        Self {
            page: Page::new(index.cut),
            last: 0,
            certified: 0,
            transactions: 0,
        }
    }

    /// Whether a certificate covers all of it.
    pub fn is_certified(&self) -> bool {
        self.certified >= self.last
    }
}

impl Index {
    /// Writes the next commits and certificates of the older part in one batch.
    pub fn write_older(&self, older: &mut Older, notes: &[Note]) -> Result<(), IndexError> {
        let mut batch = self.db.batch();
        for note in notes {
            match note {
                Note::Executed(executed) => {
                    let commit = executed.link.commit;
                    let outcomes = &executed.record.outcomes;
                    batch.insert(&self.commits, commit.to_be_bytes(), commit_value(executed));
                    older.page.extend(commit, outcomes);
                    older.transactions += outcomes.len() as u64;
                    older.last = commit;
                    if older.page.is_full() {
                        self.write_page(&mut batch, &mut older.page);
                    }
                }
                Note::Certificate(certificate) => {
                    let commit = certificate.checkpoint.commit.0;
                    if !older.is_certified() && commit > older.certified {
                        let bytes = borsh::to_vec(&**certificate).expect("writes to memory");
                        batch.insert(&self.marks, certificate_key(commit), bytes);
                        older.certified = commit;
                    }
                }
                Note::From(_) | Note::Empty(_) | Note::Older(_) => {}
            }
        }
        Ok(batch.commit()?)
    }

    /// Writes what is left of the older part, which then is `from..=until`.
    pub fn finish_older(
        &self,
        mut older: Older,
        from: u64,
        until: u64,
    ) -> Result<Joined, IndexError> {
        let mut batch = self.db.batch();
        self.write_page(&mut batch, &mut older.page);
        batch.commit()?;
        Ok(Joined {
            identity: self.identity,
            from,
            until,
            transactions: older.transactions,
        })
    }

    pub(super) fn write_page(&self, batch: &mut OwnedWriteBatch, page: &mut Page) {
        for (key, value) in page.take_written() {
            batch.insert(&self.places, key, value);
        }
    }
}

impl Mark {
    /// The last commit that is missing before those held, if there are any and they were not taken out.
    pub fn lacks(&self) -> Option<u64> {
        (self.whole_from > 1 && self.kept_from < self.whole_from).then(|| self.whole_from - 1)
    }

    /// Takes in what ends where this begins.
    pub(super) fn join(&mut self, older: &Joined) {
        if self.lacks() == Some(older.until) {
            self.whole_from = older.from;
            self.transactions += older.transactions;
            self.paged_to = self.paged_to.max(older.until);
        }
    }
}
