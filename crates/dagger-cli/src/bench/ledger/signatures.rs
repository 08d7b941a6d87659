//! Signature checks in batches of 128, beside the library's own batch on the same bytes.

use super::stopwatch::Stopwatch;
use super::world::World;
use super::{Figures, Target};
use dagger_ledger::*;
use ed25519_zebra::SigningKey;
use std::time::Duration;

const COUNT: u64 = 2_560;
/// Times that everything is measured; an odd number.
const ROUNDS: usize = 15;

pub fn measure(world: &mut World, figures: &mut Figures) {
    let seed = |i: u64| -> [u8; 32] {
        [i as u8, (i >> 8) as u8]
            .repeat(16)
            .try_into()
            .expect("32 bytes")
    };
    let keys: Vec<SigningKey> = (0..COUNT).map(|i| SigningKey::from(seed(i))).collect();
    let wires: Vec<Vec<u8>> = (0..COUNT)
        .map(|i| {
            let key = &keys[i as usize];
            let signer = Key(key.verification_key().into());
            let action = Action::VmStop(VmName {
                vm: format!("vm-{i}"),
            });
            SignedTransaction::sign(world.body(signer, action), key).to_wire()
        })
        .collect();
    // Turn by turn, and the medians: whoever went first would pay for cold caches and for what else the machine does.
    let (mut ours, mut parsing, mut library) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Stopwatch::start();
        for batch in wires.chunks(128) {
            let checked = CheckedTransaction::check_batch(&world.chain, batch);
            assert!(checked.iter().all(|one| one.code().is_ok()));
        }
        ours.push(start.elapsed());
        let start = Stopwatch::start();
        for wire in &wires {
            CheckedTransaction::from_verified_body(&world.chain, &wire[64..]);
        }
        parsing.push(start.elapsed());
        let start = Stopwatch::start();
        for batch in wires.chunks(128) {
            let mut verifier = ed25519_zebra::batch::Verifier::new();
            for wire in batch {
                let transaction = Transaction::parse(&wire[64..]).expect("good");
                let signature: [u8; 64] = wire[..64].try_into().expect("64 bytes");
                let message = [b"dagger transaction v1\0", &wire[64..]].concat();
                let key = ed25519_zebra::VerificationKeyBytes::from(transaction.signer.0);
                verifier.queue((key, ed25519_zebra::Signature::from(signature), &message[..]));
            }
            assert!(verifier.verify(Counter(0)).is_ok());
        }
        library.push(start.elapsed());
    }
    let [ours, parsing, library] = [ours, parsing, library].map(median);
    let us = |t: Duration| t.as_secs_f64() * 1e6 / COUNT as f64;
    figures.say("signature", us(ours), "us", None);
    figures.say("signature_by_library", us(library), "us", None);
    figures.say("signature_parsing", us(parsing), "us", None);
    let ratio = ours.as_secs_f64() / library.as_secs_f64();
    let most = Some(Target::AtMost(1.1));
    figures.say("signature_ratio", ratio, "x", most);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Weights for the library's own batch: any numbers do for a measurement.
struct Counter(u64);

impl rand_core::TryRng for Counter {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.try_next_u64()? as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counter {}
