//! How far the members' clocks are from ours, and the time that follows from all of them. docs/protocol.md 2.11
//! Decides nothing about validity or order: only what an honest member writes into its events, and when it cites others'.

use std::collections::VecDeque;

use crate::committee::Committee;
use crate::ids::MemberIndex;

/// Questions whose time is remembered; an answer to an older one measures nothing.
const QUESTIONS_MAX: usize = 256;
/// Offsets are kept within this, in milliseconds: far more than any clock is off, far less than overflows.
const OFFSET_MAX_MS: i64 = 1 << 48;

/// What is known of the members' clocks.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// Per seat, how far its clock is ahead of ours; none before it has answered.
    offsets_ms: Vec<Option<i64>>,
    /// Numbers of questions and when they were asked, oldest first.
    asked: VecDeque<(u64, u64)>,
    /// What is added to our clock.
    correction_ms: i64,
}

impl Clocks {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            offsets_ms: vec![None; members],
            asked: VecDeque::new(),
            correction_ms: 0,
        }
    }

    /// The same clocks under the seats of the next committee.
    pub(crate) fn renumbered(&self, old: &Committee, new: &Committee) -> Self {
        let offset_of = |(_, member): (_, &crate::committee::Member)| {
            old.seat(&member.key)
                .and_then(|seat| self.offsets_ms[seat.index()])
        };
        Self {
            offsets_ms: new.members().map(offset_of).collect(),
            asked: VecDeque::new(),
            correction_ms: self.correction_ms,
        }
    }

    /// A question goes out.
    pub(crate) fn ask(&mut self, number: u64, now_ms: u64) {
        if self.asked.len() == QUESTIONS_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((number, now_ms));
    }

    /// Whether the question was asked by this run of the member. Numbers grow with the clock: if that was set back between two
    /// runs, those of the run before are higher.
    pub(crate) fn has_asked(&self, number: u64) -> bool {
        self.asked.iter().any(|(asked, _)| *asked == number)
    }

    /// A member has answered a question with its time: it read its clock between then and now. An answer that took longer than
    /// `patience_ms` moves what was believed of that clock (that it shows what ours does, at first) no further than it must.
    pub(crate) fn answered(
        &mut self,
        seat: MemberIndex,
        number: u64,
        theirs_ms: u64,
        now_ms: u64,
        patience_ms: u64,
    ) {
        let Some((_, asked_ms)) = self.asked.iter().find(|(asked, _)| *asked == number) else {
            return;
        };
        let took_ms = now_ms.saturating_sub(*asked_ms);
        let least = i128::from(theirs_ms) - i128::from(now_ms);
        let known = &mut self.offsets_ms[seat.index()];
        let offset = if took_ms <= patience_ms {
            least + i128::from(took_ms.div_ceil(2))
        } else {
            let believed = i128::from(known.unwrap_or(0));
            believed.clamp(least, least + i128::from(took_ms))
        };
        let bound = i128::from(OFFSET_MAX_MS);
        *known = i64::try_from(offset.clamp(-bound, bound)).ok();
    }

    /// Reckons again what our clock lacks: members of quorum weight, ourselves included, are known, and more than
    /// `slack_ms` lie between ours and the weighted median of them.
    pub(crate) fn reckon(&mut self, committee: &Committee, me: Option<MemberIndex>, slack_ms: i64) {
        self.correction_ms = match self.median_ms(committee, me) {
            Some(median_ms) if median_ms > slack_ms => median_ms - slack_ms,
            Some(median_ms) if median_ms < -slack_ms => median_ms + slack_ms,
            _ => 0,
        };
    }

    /// The least offset such that clocks of half the known weight or more are not ahead of it; with liars of weight at most
    /// f among a quorum it lies between the offsets of honest members.
    pub(crate) fn median_ms(&self, committee: &Committee, me: Option<MemberIndex>) -> Option<i64> {
        let known = committee.members().filter_map(|(seat, member)| {
            let own = (Some(seat) == me).then_some(0);
            Some((own.or(self.offsets_ms[seat.index()])?, member.weight))
        });
        let mut known: Vec<(i64, u64)> = known.collect();
        let weight: u64 = known.iter().map(|(_, weight)| weight).sum();
        if weight < committee.quorum_weight() {
            return None;
        }
        known.sort_unstable();
        let mut below = 0;
        let median = known.iter().find(|(_, share)| {
            below += share;
            2 * below >= weight
        });
        median.map(|(offset_ms, _)| *offset_ms)
    }

    /// The time at our clock's `now_ms`.
    pub(crate) fn time_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.correction_ms)
    }

    /// What our clock shows at that time.
    pub(crate) fn shown_ms(&self, time_ms: u64) -> u64 {
        time_ms.saturating_add_signed(-self.correction_ms)
    }

    pub(crate) fn offsets_ms(&self) -> &[Option<i64>] {
        &self.offsets_ms
    }

    pub(crate) fn correction_ms(&self) -> i64 {
        self.correction_ms
    }
}

#[cfg(test)]
#[path = "clocks_tests.rs"]
mod tests;
