//! What the library sends through: its channels on our wire.

use crate::wire::Wire;
use bytes::{Buf as _, Bytes};
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, CheckedSender, LimitedSender, Message, Receiver, Recipients,
};
use commonware_runtime::IoBufs;
use commonware_utils::NZUsize;
use commonware_utils::channel::ring;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the wire puts what comes on the three channels, and where the library takes it.
pub fn lanes() -> ([UnboundedSender<Message<PublicKey>>; 3], [Received; 3]) {
    let (pairs_in, pairs_out): (Vec<_>, Vec<_>) = (0..3).map(|_| unbounded()).unzip();
    let receivers: Vec<Received> = pairs_out.into_iter().map(Received).collect();
    let (Ok(senders), Ok(receivers)) = (pairs_in.try_into(), receivers.try_into()) else {
        unreachable!("three were made");
    };
    (senders, receivers)
}

/// One channel, for sending.
#[derive(Clone)]
pub struct Lane {
    channel: u8,
    wire: Arc<Wire>,
    keys: Arc<[PublicKey]>,
    own: u16,
}

impl Lane {
    /// This channel of a member's.
    pub fn new(channel: u8, wire: Arc<Wire>, keys: Arc<[PublicKey]>, own: u16) -> Self {
        Self {
            channel,
            wire,
            keys,
            own,
        }
    }

    fn seats(&self, recipients: &Recipients<PublicKey>) -> Vec<u16> {
        let wanted = |key: &PublicKey| match recipients {
            Recipients::All => true,
            Recipients::Some(some) => some.contains(key),
            Recipients::One(one) => one == key,
        };
        let seats = (0..).zip(self.keys.iter());
        let seats = seats.filter(|(seat, key)| *seat != self.own && wanted(key));
        seats.map(|(seat, _)| seat).collect()
    }
}

impl LimitedSender for Lane {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked, SystemTime> {
        Ok(Checked {
            seats: self.seats(&recipients),
            lane: self.clone(),
        })
    }
}

/// A message's recipients; nobody's rate is limited.
pub struct Checked {
    lane: Lane,
    seats: Vec<u16>,
}

impl CheckedSender for Checked {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        let keys = self.seats.iter();
        keys.map(|seat| self.lane.keys[usize::from(*seat)].clone())
            .collect()
    }

    fn send(self, message: impl Into<IoBufs> + Send, _: bool) -> Unreliable<Feedback> {
        let mut message: IoBufs = message.into();
        let bytes: Bytes = message.copy_to_bytes(message.remaining());
        for seat in self.seats {
            self.lane
                .wire
                .send(seat, (self.lane.channel, bytes.clone()));
        }
        Unreliable::new(Feedback::Ok)
    }
}

/// One channel, for receiving.
#[derive(Debug)]
pub struct Received(UnboundedReceiver<Message<PublicKey>>);

impl Receiver for Received {
    type Error = io::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> io::Result<Message<PublicKey>> {
        let message = self.0.next().await;
        message.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn capacity(&self) -> NonZeroUsize {
        NZUsize!(65_536)
    }
}

/// Members are honest here: nobody is blocked.
#[derive(Clone)]
pub struct Nobody;

impl Blocker for Nobody {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        panic!("{peer} was found to be at fault");
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        ring::channel(NZUsize!(1)).1
    }
}
