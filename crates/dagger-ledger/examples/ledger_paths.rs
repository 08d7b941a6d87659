//! The hot paths of the ledger, for counting their instructions: `ledger_paths PATH COUNT` prepares the same things
//! whatever COUNT is, and takes the path COUNT times. `cargo xtask instructions` runs it twice and subtracts.

#[path = "../tests/cloud/mod.rs"]
mod cloud;

use cloud::{Cloud, operator_key, public};
use dagger_ledger::*;

/// Accounts that are made, in commits of `COMMIT`.
const ACCOUNTS: u64 = 800;
const COMMIT: usize = 100;

fn accounts(cloud: &mut Cloud) -> Vec<Vec<u8>> {
    (0..ACCOUNTS)
        .map(|number| {
            let create = AccountCreate {
                account: format!("account-{number}"),
                key: public(&cloud::key(6, number)),
            };
            cloud.wire(&operator_key(number % 4), Action::AccountCreate(create))
        })
        .collect()
}

fn check(cloud: &Cloud, wires: &[Vec<u8>]) -> Vec<CheckedTransaction> {
    CheckedTransaction::check_batch(&cloud.genesis.chain_id, wires)
}

/// Executes commits, with a state root after each of the first `roots`.
fn execute(cloud: &mut Cloud, transactions: &[CheckedTransaction], roots: usize) {
    for (number, commit) in transactions.chunks(COMMIT).enumerate() {
        let index = cloud.next_commit;
        cloud.next_commit += 1;
        cloud.time_ms += 10;
        let active: Vec<(u16, u64)> = (0..4).map(|member| (member, index)).collect();
        let output = cloud.ledger.execute(&CommitInput {
            index,
            digest: [index as u8; 32],
            time_ms: cloud.time_ms,
            active_members: &active,
            transactions: commit,
            epoch: cloud.ledger.epoch().number,
            is_checkpoint: false,
        });
        assert!(output.outcomes.iter().all(|o| o.code == Code::Ok));
        if number < roots {
            cloud.ledger.state_root();
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a path");
    let count: usize = arguments
        .next()
        .and_then(|c| c.parse().ok())
        .expect("COUNT");
    let mut cloud = Cloud::new(4);
    let wires = accounts(&mut cloud);
    assert!(count <= wires.len(), "there are {} accounts", wires.len());
    match path.as_str() {
        "check" => {
            for batch in wires[..count].chunks(COMMIT) {
                assert!(check(&cloud, batch).iter().all(|one| one.code().is_ok()));
            }
        }
        "execute" => {
            let checked = check(&cloud, &wires);
            execute(&mut cloud, &checked[..count], 0);
        }
        "root" => {
            let checked = check(&cloud, &wires);
            execute(&mut cloud, &checked, count / COMMIT);
        }
        "proof" => {
            let checked = check(&cloud, &wires);
            execute(&mut cloud, &checked, 0);
            let root = Digest(cloud.ledger.state_root());
            for number in 0..count {
                let key = StateKey::Account(format!("account-{number}"));
                let proof = cloud.ledger.prove(&key).expect("unchanged since the root");
                assert_eq!(proof.verify(&root), Ok(()));
            }
        }
        other => panic!("no path {other}"),
    }
}
