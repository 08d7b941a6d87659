//! What the whole network must hear of from a node: a clock that is off, members that disagree about the state, rules that
//! this program will not know. Looked at now and then, said in `status` for as long as it lasts, and in the log when it begins
//! and ends.

use std::{sync::Arc, time::Duration};

use shadowgraph::{Parameters, ReplicaStatus};

use crate::{handle::Shared, rules::about_to_end};

/// How often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Sets and clears the problems for as long as the node runs.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut announced = [false; 3];
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let status = shared.replica.status();
        let problems = [
            ("E_CLOCK_SKEW", clock(&status)),
            ("E_NO_AGREEMENT", agreement(&status)),
            ("E_NEWER_PROTOCOL", about_to_end(&shared)),
        ];
        for ((code, problem), announced) in problems.into_iter().zip(&mut announced) {
            if problem.is_some() != *announced {
                *announced = problem.is_some();
                match &problem {
                    Some(text) => tracing::error!(code, %text, "alarm"),
                    None => tracing::info!(code, "the alarm is over"),
                }
            }
            shared.set_problem(code, problem);
        }
    }
}

/// docs/protocol.md 9: without a quorum for any roots nothing is certified any more, and the epoch cannot end.
fn agreement(status: &ReplicaStatus) -> Option<String> {
    let commit = status.split_checkpoint?;
    Some(format!(
        "after commit {commit} the members compute different states, so that none can be certified: receipts, proofs and changes of the committee stand still; compare `state root` of `dagger node status` on all nodes, stop those that differ, keep their data directories, and report it"
    ))
}

/// What to say of the clock, if it is far enough off that the replica does not go by it alone.
fn clock(status: &ReplicaStatus) -> Option<String> {
    let median_ms = status.clock_median_ms?;
    if status.clock_correction_ms == 0 {
        return None;
    }
    let (far, way) = (
        median_ms.unsigned_abs(),
        if median_ms < 0 { "ahead of" } else { "behind" },
    );
    let tolerance_ms = Parameters::default().future_tolerance_ms;
    Some(format!(
        "this machine's clock is {}.{:03} s {way} the members' (allowed are {}.{:03} s); the node goes by theirs meanwhile: set the clock, and keep it set by NTP",
        far / 1000,
        far % 1000,
        tolerance_ms / 4 / 1000,
        tolerance_ms / 4 % 1000,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(median_ms: Option<i64>, correction_ms: i64) -> ReplicaStatus {
        ReplicaStatus {
            clock_median_ms: median_ms,
            clock_correction_ms: correction_ms,
            ..ReplicaStatus::default()
        }
    }

    #[test]
    fn a_split_is_told_with_its_commit() {
        assert_eq!(agreement(&ReplicaStatus::default()), None);
        let split = ReplicaStatus {
            split_checkpoint: Some(shadowgraph::CommitIndex(7)),
            ..ReplicaStatus::default()
        };
        assert!(agreement(&split).unwrap().contains("after commit 7 "));
    }

    #[test]
    fn a_clock_that_is_corrected_is_a_problem_and_says_which_way_it_is_off() {
        assert_eq!(clock(&status(None, 0)), None);
        assert_eq!(clock(&status(Some(-400), 0)), None);
        let ahead = clock(&status(Some(-61_005), -60_505)).unwrap();
        assert!(ahead.contains("is 61.005 s ahead of"), "{ahead}");
        let behind = clock(&status(Some(1_500), 1_000)).unwrap();
        assert!(behind.contains("is 1.500 s behind"), "{behind}");
    }
}
