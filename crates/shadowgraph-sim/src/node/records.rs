//! What the records on a node's disk say.

use std::collections::HashMap;

use borsh::BorshSerialize;
use bytes::Bytes;
use shadowgraph::{EpochEnd, VerifiedEvent};

use crate::disk::{Disk, Record};

/// What a record of the disk is.
const EVENT: u8 = 0;
const END: u8 = 1;

/// What a disk holds.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) events: Vec<VerifiedEvent>,
    pub(super) ends: Vec<EpochEnd>,
}

impl Records {
    pub(super) fn read<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        Self::read_with(records, from_log)
    }

    fn read_with<'a>(
        records: impl Iterator<Item = &'a Record>,
        mut event: impl FnMut(Bytes) -> VerifiedEvent,
    ) -> Self {
        let mut all = Self::default();
        for record in records {
            match record.kind {
                EVENT => all.events.push(event(record.body.clone())),
                _ => all.ends.push(end(record)),
            }
        }
        all
    }
}

/// The ends of epochs alone.
pub(super) fn ends(disk: &Disk) -> Vec<EpochEnd> {
    disk.iter()
        .filter(|record| record.kind == END)
        .map(end)
        .collect()
}

pub(super) fn append_event(disk: &mut Disk, event: &VerifiedEvent) {
    disk.append(EVENT, event.bytes().clone());
}

pub(super) fn append_end(disk: &mut Disk, end: &EpochEnd) {
    let mut body = Vec::new();
    end.serialize(&mut body).expect("an end encodes");
    disk.append(END, body.into());
}

fn end(record: &Record) -> EpochEnd {
    borsh::from_slice(&record.body).expect("the log holds what was written")
}

pub(super) fn from_log(record: Bytes) -> VerifiedEvent {
    VerifiedEvent::from_own_log(record).expect("the log holds what was written")
}

/// Reads the logs of many nodes. What several hold in the same memory is decoded once.
#[derive(Default)]
pub struct LogReader {
    /// By where the bytes begin. The events keep them where they are.
    read: HashMap<*const u8, VerifiedEvent>,
}

impl LogReader {
    /// The events of a disk, in the order in which they were written.
    pub(super) fn read(&mut self, disk: &Disk) -> Vec<VerifiedEvent> {
        let decode = |bytes: Bytes| {
            let event = self.read.entry(bytes.as_ptr());
            let event = event.or_insert_with(|| from_log(bytes.clone()));
            assert_eq!(event.bytes().len(), bytes.len(), "one event at one place");
            event.clone()
        };
        Records::read_with(disk.iter(), decode).events
    }

    /// Everything that was read, in no order; events that lie in several places as often.
    pub fn events(&self) -> impl Iterator<Item = &VerifiedEvent> {
        self.read.values()
    }
}
