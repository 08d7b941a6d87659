//! Signed transactions, made before they are due: what their customers spend on them is not the nodes' cost. And what checking their
//! signatures costs by itself, which bounds what any network of so many nodes can do on these cores.

use super::fleet::{Fleet, Vm, reported, vm_name};
use crate::failure::Done;
use bytes::Bytes;
use dagger_ledger::{Action, Digest, Ended, Report, Running, VmName, VmRename};
use dagger_node::NodeHandle;
use dagger_node::replica::Batch;
use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Signatures of a batch: more cost no less for each.
const BATCH: usize = 128;
/// VMs of each member, and transactions on each where that allows it: a short run is made ready soon.
const VMS_MIN: u64 = 64;
const VMS_MAX: u64 = 512;
const TRANSACTIONS_A_VM: u64 = 24;
/// For how long the cost of signatures is measured.
const COST_SPAN: Duration = Duration::from_millis(1_000);
const CONTEXT: &[u8] = b"dagger transaction v1\0";

/// One member's transactions in the order they are due.
pub struct Signed {
    wires: Vec<Bytes>,
    /// Which one a digest is.
    pub numbers: HashMap<Digest, u64>,
    /// Microseconds of CPU time for one signature in a batch; `None` of too few transactions.
    pub signature_us: Option<f64>,
}

impl Signed {
    /// Makes the fleet, then `count` transactions on it.
    pub fn prepare(node: &NodeHandle, dir: &Path, seats: (u16, u16), count: u64) -> Done<Self> {
        let vms = (count / TRANSACTIONS_A_VM).clamp(VMS_MIN, VMS_MAX) as usize;
        let (mut fleet, vms) = Fleet::make(node, dir, seats, vms)?;
        let (mut wires, mut numbers) = (Vec::new(), HashMap::new());
        let mut claims = Vec::new();
        for number in 0..count {
            let (key, action) = step(&vms, number as usize);
            let (digest, wire) = fleet.sign(key, action);
            if claims.len() < BATCH * 16 {
                claims.push((VerificationKeyBytes::from(key.public()), wire.clone()));
            }
            wires.push(wire);
            numbers.insert(digest, number);
        }
        Ok(Self {
            wires,
            numbers,
            signature_us: cost_us(&claims),
        })
    }

    /// Hands in those of these numbers.
    pub fn submit(&self, node: &NodeHandle, numbers: Range<u64>) -> Batch {
        node.submit_many(self.wires[numbers.start as usize..numbers.end as usize].to_vec())
    }
}

/// The life of VMs, step by step, all VMs in turn: four of six transactions are customers', two are reports of machines.
fn step(vms: &[Vm], number: usize) -> (&dagger_client::keys::SecretKey, Action) {
    let (of, step) = (number % vms.len(), number / vms.len());
    let vm = &vms[of];
    let (cycle, phase) = (step / 6, step % 6);
    // The first step of a cycle gives it the other name.
    let renamed = cycle % 2 == 0;
    let named = || VmName {
        vm: vm_name(of, renamed),
    };
    match phase {
        0 => {
            let rename = VmRename {
                vm: vm_name(of, !renamed),
                name: vm_name(of, renamed),
            };
            (&vm.account, Action::VmRename(rename))
        }
        1 => (&vm.account, Action::VmReboot(named())),
        2 => (&vm.account, Action::VmStop(named())),
        3 => {
            let ended = Ended {
                code: "asked".into(),
                text: "Stopped as asked.".into(),
            };
            (&vm.machine, reported(vm, Report::Stopped(ended)))
        }
        4 => (&vm.account, Action::VmStart(named())),
        _ => (
            &vm.machine,
            reported(vm, Report::Running(Running::default())),
        ),
    }
}

/// CPU time of one signature in batches, by the library alone: nothing parsed, nothing else checked. `None` of too few.
fn cost_us(claims: &[(VerificationKeyBytes, Bytes)]) -> Option<f64> {
    let messages: Vec<(VerificationKeyBytes, Signature, Vec<u8>)> = claims
        .iter()
        .map(|(key, wire)| {
            let signature: [u8; 64] = wire[..64].try_into().expect("that long");
            let message = [CONTEXT, &wire[64..]].concat();
            (*key, Signature::from(signature), message)
        })
        .collect();
    if messages.len() < BATCH {
        return None;
    }
    let start = thread_time();
    let mut checked = 0;
    let mut batches = messages.chunks_exact(BATCH).cycle();
    while thread_time() - start < COST_SPAN {
        let mut verifier = batch::Verifier::new();
        for (key, signature, message) in batches.next().expect("there is one at least") {
            verifier.queue((*key, *signature, message));
        }
        verifier
            .verify(rand::rng())
            .expect("they were signed a moment ago");
        checked += BATCH;
    }
    Some((thread_time() - start).as_secs_f64() * 1e6 / checked as f64)
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it");
    Duration::from(time)
}
