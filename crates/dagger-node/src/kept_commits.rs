//! The newest executed commits, for streams that resume: bounded in number and in what they hold.

use std::{collections::VecDeque, sync::Arc};

use crate::handle::CommitRecord;

/// Commits kept, and outcomes in them.
const COMMITS_MAX: usize = 4096;
const OUTCOMES_MAX: usize = 1 << 16;

/// The newest executed commits, in order.
#[derive(Default)]
pub(crate) struct KeptCommits {
    records: VecDeque<Arc<CommitRecord>>,
    outcomes: usize,
}

impl KeptCommits {
    /// The next commit; the newest is always kept.
    pub fn push(&mut self, record: Arc<CommitRecord>) {
        self.outcomes += record.outcomes.len();
        self.records.push_back(record);
        while self.records.len() > COMMITS_MAX
            || (self.outcomes > OUTCOMES_MAX && self.records.len() > 1)
        {
            let oldest = self.records.pop_front().expect("more than one");
            self.outcomes -= oldest.outcomes.len();
        }
    }

    /// Those with index >= `from`, ascending, at most `limit`.
    pub fn from(&self, from: u64, limit: usize) -> Vec<Arc<CommitRecord>> {
        let start = self.records.partition_point(|c| c.index < from);
        self.records.range(start..).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use dagger_client::api::EventName;
    use dagger_ledger::{Code, Digest, Outcome};

    use super::*;

    fn record(index: u64, outcomes: usize) -> Arc<CommitRecord> {
        let outcome = Outcome {
            digest: Digest::default(),
            code: Code::Ok,
            subject: None,
            detail: String::new(),
        };
        Arc::new(CommitRecord {
            index,
            time_ms: index,
            digest: Digest::default(),
            leader: EventName {
                round: index,
                creator: 0,
                creator_name: String::new(),
                digest: String::new(),
            },
            outcomes: vec![outcome; outcomes],
            actions: Vec::new(),
            changes: Vec::new(),
        })
    }

    fn indices(kept: &KeptCommits, from: u64, limit: usize) -> Vec<u64> {
        kept.from(from, limit).iter().map(|r| r.index).collect()
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much_in_them() {
        let mut kept = KeptCommits::default();
        for index in 0..COMMITS_MAX as u64 + 5 {
            kept.push(record(index, 1));
        }
        assert_eq!(indices(&kept, 0, 2), [5, 6]);
        assert_eq!(indices(&kept, 4_099, 9), [4_099, 4_100]);
        kept.push(record(5_000, OUTCOMES_MAX));
        assert_eq!(indices(&kept, 0, usize::MAX), [5_000]);
        kept.push(record(5_001, 1));
        assert_eq!(indices(&kept, 0, usize::MAX), [5_001]);
    }
}
