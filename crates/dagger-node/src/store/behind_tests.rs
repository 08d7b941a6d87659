//! What is said to the kernel about a log's parts, and in which order.

use super::{Behind, CHUNK_BYTES, WRITING_MAX, run};
use std::{
    fs::File,
    sync::{Arc, mpsc},
};

/// What a log that grows as `feed` says makes the thread say.
fn said(feed: impl FnOnce(&mut Behind, &Arc<File>)) -> Vec<(u64, u64)> {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let (sender, receiver) = mpsc::sync_channel(1024);
    let mut behind = Behind {
        done: 0,
        chunks: Some(sender),
    };
    feed(&mut behind, &file);
    drop(behind);
    let mut said = Vec::new();
    run(&receiver, |chunk| said.push((chunk.offset, chunk.bytes)));
    said
}

#[test]
fn every_chunk_is_begun_at_once_and_dropped_some_chunks_later() {
    let step = CHUNK_BYTES / 3;
    let said = said(|behind, file| {
        for count in 1..=30 {
            behind.written(file, count * step);
        }
    });
    let (mut begun, mut dropped) = (Vec::new(), Vec::new());
    for chunk in said {
        if begun.contains(&chunk) {
            assert_eq!(begun[dropped.len()], chunk, "dropped out of turn");
            dropped.push(chunk);
        } else {
            begun.push(chunk);
        }
        assert!(begun.len() - dropped.len() <= WRITING_MAX + 1);
    }
    assert!(begun.len() >= 7);
    assert_eq!(dropped.len(), begun.len() - WRITING_MAX);
    let mut end = 0;
    for (offset, bytes) in begun {
        assert_eq!(offset, end, "a gap or an overlap");
        assert!(bytes >= CHUNK_BYTES - 4096);
        end = offset + bytes;
        assert_eq!(end % 4096, 0, "the last page is still written to");
    }
}

#[test]
fn a_closed_segment_is_handed_over_to_its_last_byte() {
    let said = said(|behind, file| {
        behind.written(file, CHUNK_BYTES + 5000);
        behind.closed(file, CHUNK_BYTES + 5001);
        behind.written(file, CHUNK_BYTES - 1);
        behind.written(file, CHUNK_BYTES);
    });
    let first = CHUNK_BYTES + 4096;
    assert_eq!(said, [(0, first), (first, 905), (0, CHUNK_BYTES)]);
}
