//! Waiting on the runtime's channels by threads that live outside it. Such a thread sleeps and is woken by itself: a timer of
//! the runtime would have to wake one of the runtime's threads first.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

/// Puts the thread that made it to sleep until something is ready.
pub(crate) struct Parking(Waker);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl Parking {
    /// Of the present thread.
    pub fn new() -> Self {
        Self(Arc::new(Unpark(thread::current())).into())
    }

    /// Waits until `poll` is ready, or `until` has come: then nothing is returned.
    pub fn wait<T>(
        &self,
        until: Instant,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let mut context = Context::from_waker(&self.0);
        loop {
            if let Poll::Ready(value) = poll(&mut context) {
                return Some(value);
            }
            let now = Instant::now();
            if now >= until {
                return None;
            }
            thread::park_timeout(until - now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use tokio::sync::mpsc;

    use super::Parking;

    #[test]
    fn a_message_from_another_thread_ends_the_wait() {
        let (sender, mut receiver) = mpsc::channel(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..100 {
                    sender.blocking_send(number).unwrap();
                }
            });
            let parking = Parking::new();
            let until = Instant::now() + Duration::from_secs(600);
            for number in 0..100 {
                let got = parking.wait(until, |context| receiver.poll_recv(context));
                assert_eq!(got, Some(Some(number)));
            }
        });
    }

    #[test]
    fn the_deadline_ends_it_too() {
        let (_sender, mut receiver) = mpsc::channel::<()>(1);
        let until = Instant::now() + Duration::from_millis(20);
        let got = Parking::new().wait(until, |context| receiver.poll_recv(context));
        assert_eq!(got, None);
        assert!(Instant::now() >= until);
    }
}
