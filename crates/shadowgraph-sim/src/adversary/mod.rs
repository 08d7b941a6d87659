//! Byzantine members. Each holds the real key of its seat and signs real events; what it does with them is a stack of
//! behaviours, each a named type, so that they combine. The puppet underneath keeps just enough of the graph to stay
//! plausible. It shares no code with the replica.

mod behaviours;
mod puppet;

use bytes::Bytes;
use shadowgraph::{EventDraft, VerifiedEvent};

use crate::rng::SimRng;
pub use puppet::{Heard, Puppet, Seat};

/// A way to break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Signs two events for a round and sends both to everybody.
    Equivocator,
    /// Hides its event from one member, and sends that one so many twins of it, each cited by a next event, that the true one may
    /// find no room any more.
    TwinStuffer,
    /// Signs two events for a round and shows each to one half of the committee.
    SplitBrain,
    /// Sends its events to some members only.
    Withholder,
    /// Sends many twins with large payloads, and many hints and requests.
    Flooder,
    /// Sends its events long after their time.
    Laggard,
    /// Cites parents of long ago, some of which never existed.
    AncientParent,
    /// Cites an own parent from about where events are collected, with a timestamp just below that parent's: whoever has
    /// collected the parent cannot see that the time went back.
    StaleOwnParent {
        /// How many rounds back.
        rounds: u64,
    },
    /// Claims rounds that nobody has reached.
    FutureRound,
    /// Writes false timestamps: far ahead, or before its own last one.
    TimestampLiar,
    /// Claims to hold everything there could ever be, and asks for it: every number in its messages is extreme.
    Boaster,
    /// Sends random bytes and damaged messages.
    GarbageBytes,
    /// Sends again what it has heard before.
    Replayer,
    /// Signs events in the name of others, with its own key.
    Impersonator,
    /// Never cites the events of one member.
    VoteCensor {
        /// Whom it censors.
        victim: u16,
    },
    /// Keeps to the rules except where it leads: there it tells nobody, or too few.
    SilentLeader,
    /// Signs votes for checkpoints that never were.
    FalseVoter,
    /// Runs the honest code and crashes all the time. The world does it; no puppet is needed.
    CrashLooper,
}

/// What an adversary sees when it decides.
pub struct View<'a> {
    /// Its own seat.
    pub seat: &'a Seat,
    /// Its clock, Unix ms.
    pub now_ms: u64,
    /// Everything it heard lately.
    pub heard: &'a Heard,
    /// Whether it leads the round it is about to sign for.
    pub leads: bool,
}

/// An event about to be signed and sent.
#[derive(Clone, Debug)]
pub struct Publication {
    /// What to sign.
    pub draft: EventDraft,
    /// To whom to send it.
    pub to: Vec<usize>,
    /// How long after now, in microseconds.
    pub delay_us: u64,
}

/// A message about to be sent, as bytes.
#[derive(Clone, Debug)]
pub struct Raw {
    /// To whom.
    pub to: usize,
    /// What.
    pub bytes: Bytes,
    /// How long after now, in microseconds.
    pub delay_us: u64,
}

/// One behaviour. Every method may be left as it is.
pub trait Adversary: Send {
    /// Changes the event before it is signed.
    fn draft(&mut self, _view: &View<'_>, _draft: &mut EventDraft, _rng: &mut SimRng) {}
    /// Changes what is sent to whom; may add twins.
    fn publish(
        &mut self,
        _view: &View<'_>,
        _publications: &mut Vec<Publication>,
        _rng: &mut SimRng,
    ) {
    }
    /// Sends other things, a few times a second.
    fn disturb(&mut self, _view: &View<'_>, _rng: &mut SimRng) -> Vec<Raw> {
        Vec::new()
    }
    /// Sees a message that reached the member.
    fn overhear(&mut self, _bytes: &Bytes, _events: &[VerifiedEvent]) {}
}

impl Behaviour {
    /// The adversary of this name.
    pub fn adversary(self) -> Box<dyn Adversary> {
        match self {
            Self::Equivocator => Box::new(behaviours::Equivocator),
            Self::TwinStuffer => Box::new(behaviours::TwinStuffer::default()),
            Self::SplitBrain => Box::new(behaviours::SplitBrain),
            Self::Withholder => Box::new(behaviours::Withholder),
            Self::Flooder => Box::new(behaviours::Flooder),
            Self::Laggard => Box::new(behaviours::Laggard),
            Self::AncientParent => Box::new(behaviours::AncientParent),
            Self::StaleOwnParent { rounds } => Box::new(behaviours::StaleOwnParent { rounds }),
            Self::FutureRound => Box::new(behaviours::FutureRound),
            Self::TimestampLiar => Box::new(behaviours::TimestampLiar),
            Self::Boaster => Box::new(behaviours::Boaster),
            Self::GarbageBytes => Box::new(behaviours::GarbageBytes::default()),
            Self::Impersonator => Box::new(behaviours::Impersonator),
            Self::Replayer => Box::new(behaviours::Replayer::default()),
            Self::VoteCensor { victim } => Box::new(behaviours::VoteCensor { victim }),
            Self::SilentLeader => Box::new(behaviours::SilentLeader),
            Self::FalseVoter => Box::new(behaviours::FalseVoter),
            Self::CrashLooper => unreachable!("the world itself crashes a crash-looper"),
        }
    }
}
