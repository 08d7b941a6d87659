//! Who fetches a copy of an image: a function of the ledger alone.

use std::collections::BTreeSet;

use dagger_ledger::{Digest, Key, OperatorId};

use crate::copies::{COPIES, Holders};

/// `operators` operators with two machines each, all up.
fn holders(operators: u32) -> Holders {
    let up: Vec<_> = (0..2 * operators)
        .map(|n| (OperatorId(n / 2), machine(n)))
        .collect();
    let present = up.iter().map(|(operator, _)| *operator).collect();
    Holders { up, present }
}

fn machine(n: u32) -> Key {
    Key(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn image(n: u32) -> Digest {
    Digest(*blake3::hash(format!("image {n}").as_bytes()).as_bytes())
}

/// The machines that fetch an image of which these operators have a copy.
fn fetchers(holders: &Holders, image: &Digest, have: &[OperatorId]) -> Vec<(OperatorId, Key)> {
    let missing = holders.missing(have, COPIES);
    let may = |id| !have.contains(&id);
    let machines = holders.up.iter();
    machines
        .filter(|(_, key)| holders.chosen(key, image, may, missing))
        .copied()
        .collect()
}

#[test]
fn as_many_machines_of_different_operators_fetch_as_copies_are_missing() {
    let holders = holders(8);
    let mut busy = BTreeSet::new();
    for n in 0..200 {
        let image = image(n);
        let uploader = OperatorId(n % 8);
        let fetchers = fetchers(&holders, &image, &[uploader]);
        let operators: BTreeSet<_> = fetchers.iter().map(|(operator, _)| *operator).collect();
        assert_eq!((fetchers.len(), operators.len()), (COPIES - 1, COPIES - 1));
        assert!(!operators.contains(&uploader));
        busy.extend(fetchers.iter().map(|(_, key)| key.0));
    }
    assert_eq!(busy.len(), 16, "every machine has its share");
}

#[test]
fn enough_copies_are_enough_until_a_holder_is_lost() {
    let mut holders = holders(6);
    let image = image(1);
    let mut have = vec![OperatorId(0)];
    have.extend(fetchers(&holders, &image, &have).iter().map(|(id, _)| *id));
    assert_eq!(fetchers(&holders, &image, &have), []);
    holders.up.retain(|(operator, _)| *operator != have[0]);
    holders.present.remove(&have[0]);
    let next = fetchers(&holders, &image, &have);
    assert_eq!(next.len(), 1);
    assert!(!have.contains(&next[0].0), "the others have theirs");
}

#[test]
fn an_operator_replaces_its_own_lost_copy_on_one_machine() {
    let holders = holders(4);
    let own = OperatorId(2);
    let chosen = |key: &Key| holders.chosen(key, &image(3), |id| id == own, 1);
    let machines: Vec<_> = holders.up.iter().filter(|(_, key)| chosen(key)).collect();
    assert_eq!(machines.len(), 1);
    assert_eq!(machines[0].0, own);
}
