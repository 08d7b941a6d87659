//! What peers say they hold, and fetching what lies between them and us, one bounded request at a time.
//! docs/protocol.md 7.6 to 7.8.

use crate::committee::{Committee, seat_of};
use crate::event::VerifiedEvent;
use crate::ids::{MemberIndex, Round};
use crate::message::{After, Peer};

/// Rounds that one request spans.
const WINDOW_ROUNDS: u64 = 64;
/// Further behind than this, own events wait until the gap is fetched.
const BEHIND_ROUNDS: u64 = 6;
/// No further behind than this, fetching is over.
const CAUGHT_UP_ROUNDS: u64 = 2;
/// After this many retry times without progress a gap no longer holds own events back.
const STALLED_RETRIES: u64 = 10;

#[derive(Debug)]
struct Claim {
    /// What the peer says it holds of each creator.
    highest: Vec<Round>,
    noted_ms: u64,
}

#[derive(Debug)]
struct Session {
    seat: MemberIndex,
    request: After,
    expires_ms: u64,
}

/// What an incoming message of events was to the running fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Not an answer.
    Unrelated,
    /// An answer: go on.
    Answered,
    /// The peer has no more.
    Exhausted,
}

#[derive(Debug)]
pub(crate) struct Fetch {
    committee: Committee,
    retry_ms: u64,
    /// Per seat, the highest round it said it holds anything of. Never shrinks.
    reach: Vec<Round>,
    claims: Vec<Option<Claim>>,
    /// Per seat, until when it is not asked, because it had nothing or did not answer.
    paused_until_ms: Vec<u64>,
    session: Option<Session>,
    /// Where the search for the next peer begins, so that all get their turn.
    turn: usize,
    /// Before this no claim is old enough, as far as was heard when all were last looked at.
    ripe_at_ms: u64,
    behind: bool,
    progress_ms: u64,
}

impl Fetch {
    pub(crate) fn new(committee: Committee, retry_ms: u64, now_ms: u64) -> Self {
        let members = committee.len();
        Self {
            committee,
            retry_ms: retry_ms.max(1),
            reach: vec![Round(0); members],
            claims: (0..members).map(|_| None).collect(),
            paused_until_ms: vec![0; members],
            session: None,
            turn: 0,
            ripe_at_ms: 0,
            behind: false,
            progress_ms: now_ms,
        }
    }

    /// An event of `creator` exists: it holds that event and its ancestors.
    pub(crate) fn saw(&mut self, creator: MemberIndex, round: Round) {
        let reach = &mut self.reach[creator.index()];
        *reach = round.max(*reach);
    }

    /// A member said what it holds; `highest` is as long as the committee.
    pub(crate) fn heard(&mut self, now_ms: u64, peer: MemberIndex, highest: Vec<Round>) {
        let top = highest.iter().max().copied().unwrap_or_default();
        let reach = &mut self.reach[peer.index()];
        *reach = top.max(*reach);
        self.ripe_at_ms = 0;
        self.claims[peer.index()] = Some(Claim {
            highest,
            noted_ms: now_ms,
        });
    }

    /// A member has left the epoch that we are still in: it held whatever we lack. It is asked at once, until it has no more.
    pub(crate) fn is_past_end(&mut self, now_ms: u64, peer: MemberIndex) {
        self.ripe_at_ms = 0;
        self.claims[peer.index()] = Some(Claim {
            highest: vec![Round(u64::MAX); self.committee.len()],
            noted_ms: now_ms.saturating_sub(self.retry_ms),
        });
    }

    /// Whether an honest member is sure to be beyond a round: f + 1 claim to be.
    fn some_are_beyond(&self, round: Round) -> bool {
        let ahead = self
            .reach
            .iter()
            .zip(0..)
            .filter(|(reach, _)| **reach > round);
        let weight: u64 = ahead
            .map(|(_, seat)| self.committee.weight(MemberIndex(seat)))
            .sum();
        weight >= self.committee.validity_weight()
    }

    /// Weighs how far we are behind; `complete` is the highest round of which we hold a quorum.
    pub(crate) fn look_up(&mut self, now_ms: u64, complete: Round) {
        let limit = if self.behind {
            CAUGHT_UP_ROUNDS
        } else {
            BEHIND_ROUNDS
        };
        let behind = self.some_are_beyond(complete.ahead(limit));
        if behind && !self.behind {
            self.progress_ms = now_ms;
        }
        self.behind = behind;
    }

    /// Whether we are far behind.
    pub(crate) fn behind(&self) -> bool {
        self.behind
    }

    /// Whether own events are to wait until we are less far behind. Only while fetching works: who creates too early
    /// wastes events, who waits for ever stops the others.
    pub(crate) fn holds_back(&self, now_ms: u64) -> bool {
        self.behind && now_ms < self.progress_ms + STALLED_RETRIES * self.retry_ms
    }

    /// When `holds_back` or a session runs out, or a claim has waited long enough.
    pub(crate) fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        if let Some(session) = &self.session {
            return Some(session.expires_ms);
        }
        if !self.behind && now_ms < self.ripe_at_ms {
            return (self.ripe_at_ms != u64::MAX).then_some(self.ripe_at_ms);
        }
        let mut due_ms: Option<u64> = None;
        let mut sooner = |at_ms: u64| {
            if at_ms > now_ms && due_ms.is_none_or(|due_ms| at_ms < due_ms) {
                due_ms = Some(at_ms);
            }
        };
        if self.behind {
            sooner(self.progress_ms + STALLED_RETRIES * self.retry_ms);
        }
        for (claim, paused_until_ms) in self.claims.iter().zip(&self.paused_until_ms) {
            if let Some(claim) = claim {
                sooner((claim.noted_ms + self.retry_ms).max(*paused_until_ms));
            }
            if self.behind {
                sooner(*paused_until_ms);
            }
        }
        due_ms
    }

    /// Takes note of events from a peer; `stood_for` if others may answer for the member that is asked.
    pub(crate) fn answer(
        &mut self,
        now_ms: u64,
        from: Peer,
        stood_for: bool,
        events: &[VerifiedEvent],
    ) -> Step {
        let answers = |session: &&mut Session| match from {
            Peer::Member(seat) => seat == session.seat,
            Peer::Follower(_) => stood_for,
        };
        let Some(session) = self.session.as_mut().filter(answers) else {
            return Step::Unrelated;
        };
        if events.is_empty() {
            let seat = session.seat;
            self.session = None;
            self.pause(now_ms, seat);
            return Step::Exhausted;
        }
        let mut wanted = false;
        for event in events {
            if session.request.wants(event.round(), event.creator()) {
                wanted = true;
                session.request.after[event.creator().index()] = event.round();
            }
        }
        if !wanted {
            return Step::Unrelated;
        }
        session.expires_ms = now_ms;
        self.progress_ms = now_ms;
        Step::Answered
    }

    /// The next request, if one is due: the running session's next window, or a new session with the next peer that
    /// claims what we lack.
    pub(crate) fn next(
        &mut self,
        now_ms: u64,
        floor: Round,
        complete: Round,
        mine: &[Round],
    ) -> Option<(MemberIndex, After)> {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.expires_ms > now_ms)
        {
            return None;
        }
        let base = floor.max(complete);
        if let Some(session) = self.session.take() {
            // An answer expires its session at once: ask on where it ended. Else the peer did not answer.
            let answered = session.expires_ms == now_ms && self.progress_ms == now_ms;
            let have: Vec<Round> = session
                .request
                .after
                .iter()
                .zip(mine)
                .map(|(a, b)| *a.max(b))
                .collect();
            if answered && self.offers(session.seat, &have) {
                return Some(self.ask(now_ms, session.seat, floor, base, have));
            }
            self.pause(now_ms, session.seat);
        }
        if !self.behind && now_ms < self.ripe_at_ms {
            return None;
        }
        let members = self.committee.len();
        for step in 0..members {
            let seat = seat_of((self.turn + step) % members);
            let ripe = |claim: &Claim| claim.noted_ms + self.retry_ms <= now_ms;
            let ripe = self.behind || self.claims[seat.index()].as_ref().is_some_and(ripe);
            if !ripe || self.paused_until_ms[seat.index()] > now_ms {
                continue;
            }
            if self.offers(seat, mine) {
                self.turn = seat.index() + 1;
                return Some(self.ask(now_ms, seat, floor, base, mine.to_vec()));
            }
            self.claims[seat.index()] = None;
        }
        let claims = self.claims.iter().zip(&self.paused_until_ms);
        let ripe = claims.filter_map(|(claim, paused_until_ms)| {
            let ripe_ms = claim.as_ref()?.noted_ms + self.retry_ms;
            Some(ripe_ms.max(*paused_until_ms))
        });
        self.ripe_at_ms = ripe.min().unwrap_or(u64::MAX);
        None
    }

    /// Leaves a peer alone for a while, until it says anew what it holds.
    fn pause(&mut self, now_ms: u64, seat: MemberIndex) {
        self.claims[seat.index()] = None;
        self.paused_until_ms[seat.index()] = now_ms + 2 * self.retry_ms;
    }

    /// Whether a peer is known to hold more than `have`.
    fn offers(&self, seat: MemberIndex, have: &[Round]) -> bool {
        let claimed = self.claims[seat.index()].as_ref();
        claimed.is_some_and(|claim| exceeds(&claim.highest, have))
            || (self.behind && self.reach[seat.index()] > have[seat.index()])
    }

    fn ask(
        &mut self,
        now_ms: u64,
        seat: MemberIndex,
        floor: Round,
        base: Round,
        after: Vec<Round>,
    ) -> (MemberIndex, After) {
        let request = After {
            from: floor.next(),
            to: base.ahead(WINDOW_ROUNDS),
            after,
        };
        let expires_ms = now_ms + self.retry_ms * 4;
        self.session = Some(Session {
            seat,
            request: request.clone(),
            expires_ms,
        });
        (seat, request)
    }
}

fn exceeds(claimed: &[Round], mine: &[Round]) -> bool {
    claimed
        .iter()
        .zip(mine)
        .any(|(claimed, mine)| claimed > mine)
}
