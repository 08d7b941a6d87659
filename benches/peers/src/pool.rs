//! Transactions that wait for a payload.

use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::sync::Mutex;

/// Bytes at the start of a transaction that say which one of its member's it is.
pub const STAMP_BYTES: usize = 8;

/// One member's transactions, all of one size, laid end to end so that taking them copies nothing.
pub struct Pool {
    filler: Bytes,
    bytes_max: usize,
    waiting: Mutex<BytesMut>,
}

impl Pool {
    /// A member's, of transactions of `size` bytes, at most `bytes_max` bytes of them waiting.
    pub fn new(seat: u16, size: usize, bytes_max: usize) -> Self {
        assert!(size >= STAMP_BYTES);
        let mut filler = vec![0; size];
        // As incompressible as anybody's, and of each member another: payloads are known by their digests.
        let mut stream = blake3::Hasher::new();
        let mut stream = stream.update(&seat.to_le_bytes()).finalize_xof();
        stream.fill(&mut filler);
        Self {
            filler: filler.into(),
            bytes_max,
            waiting: Mutex::new(BytesMut::new()),
        }
    }

    /// Bytes of a transaction.
    pub fn size(&self) -> usize {
        self.filler.len()
    }

    /// Takes in transactions of these numbers; how many found no room.
    pub fn submit(&self, numbers: Range<u64>) -> u64 {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        for number in numbers.clone() {
            if waiting.len() + self.filler.len() > self.bytes_max {
                return numbers.end - number;
            }
            waiting.extend_from_slice(&number.to_le_bytes());
            waiting.extend_from_slice(&self.filler[STAMP_BYTES..]);
        }
        0
    }

    /// The next payload, of at most `bytes_max` bytes, if anything waits.
    pub fn take(&self, bytes_max: usize) -> Option<Bytes> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let whole = bytes_max / self.filler.len() * self.filler.len();
        let upto = waiting.len().min(whole);
        (upto > 0).then(|| waiting.split_to(upto).freeze())
    }
}

/// The numbers of the transactions in a payload.
pub fn numbers(payload: &[u8], size: usize) -> impl Iterator<Item = u64> {
    payload.chunks_exact(size).map(|transaction| {
        let stamp = transaction[..STAMP_BYTES].try_into().expect("that long");
        u64::from_le_bytes(stamp)
    })
}
