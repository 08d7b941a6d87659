//! What one core does with payload: every byte decoded, hashed, verified, put into the graph, written to a log in memory
//! and ordered.

use bytes::Bytes;

use super::cpu::Rounds;
use super::{Choice, Figure, thread_cpu};

/// Transactions in an event, and rounds of four members: 64 KiB and 1 MiB.
const ROWS: [(usize, u64, &str); 2] = [(128, 400, "64 KiB"), (2_047, 100, "1 MiB")];
const TRANSACTION_BYTES: usize = 512;

pub(super) fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    let figure = |name: String, value: f64, unit| Figure::plain("payload", name, value, unit);
    for (transactions, rounds, size) in ROWS {
        let name = |what: &str| format!("events of {size}, transactions of 512 bytes: {what}");
        if !choice.has(&name("")) {
            continue;
        }
        let rounds = if choice.quick { rounds / 4 } else { rounds };
        let payload = vec![Bytes::from(vec![42; TRANSACTION_BYTES]); transactions];
        let made = Rounds::make(4, rounds, &payload);
        let transactions = made.events() * transactions;
        let bytes = (transactions * TRANSACTION_BYTES) as f64;
        // Touched beforehand: a page's first use is the system's work, and a real log has none of it.
        let mut log = vec![1; (bytes * 1.2) as usize];
        log.clear();
        let (verifying, inserting) = made.take(Some(&mut log));
        assert!(log.len() as f64 > bytes, "every event was logged");
        let seconds = (verifying + inserting).as_secs_f64();
        let rate = figure(name("in all"), bytes / seconds / 1e9, "GB/s");
        show(if size == "1 MiB" {
            rate.at_least(2.0)
        } else {
            rate
        });
        let each = seconds * 1e9 / transactions as f64;
        show(figure(name("in all, a transaction"), each, "ns"));
    }
    let name = "BLAKE3 alone, 1 MiB at once".to_string();
    if choice.has(&name) {
        let block = vec![42; 1 << 20];
        let start = thread_cpu();
        for _ in 0..400 {
            std::hint::black_box(blake3::hash(std::hint::black_box(&block)));
        }
        let seconds = (thread_cpu() - start).as_secs_f64();
        show(figure(name, 400.0 * 1.048_576e6 / seconds / 1e9, "GB/s"));
    }
}
