//! A node without a seat, fed and not fed. docs/protocol.md 7.11

mod cluster;

use std::collections::BTreeSet;

use cluster::*;
use shadowgraph::*;

const FOLLOWER: usize = 4;

/// Four members at work, and a node without a seat.
fn network() -> Cluster {
    Cluster::followed(FOLLOWER, FOLLOWER + 1, 1, Parameters::default())
}

/// How often it asks for a frontier in ten seconds.
fn asked(cluster: &mut Cluster) -> usize {
    let end_ms = cluster.now_ms + 10_000;
    let mut numbers = BTreeSet::new();
    while cluster.now_ms < end_ms {
        cluster.step();
        for (_, message) in cluster.under_way(FOLLOWER) {
            if let Message::Frontier(Frontier {
                exchange: Exchange::Ask(number),
                ..
            }) = message
            {
                numbers.insert(number);
            }
        }
    }
    numbers.len()
}

#[test]
fn it_asks_rarely_while_it_is_fed_and_often_when_it_is_not() {
    let mut cluster = network();
    cluster.run_for(3_000);
    let fed = asked(&mut cluster);
    assert!((4..=6).contains(&fed), "{fed}");
    // Nothing reaches it any more, which it learns from nobody.
    cluster
        .cut
        .extend((0..FOLLOWER).map(|member| (member, FOLLOWER)));
    let alone = asked(&mut cluster);
    assert!((14..=21).contains(&alone), "{alone}");
    let behind = cluster.nodes[FOLLOWER].status().last_commit;
    cluster.heal();
    cluster.run_until("it follows again", |cluster| {
        cluster.nodes[FOLLOWER].status().last_commit > behind
    });
}
