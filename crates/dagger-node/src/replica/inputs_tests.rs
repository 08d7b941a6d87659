use std::{
    task::{Context, Poll, Waker},
    thread,
};

use bytes::Bytes;

use super::{BYTES_MAX, Gone, Inputs};
use crate::replica::{Batch, ReplicaInput};

fn of_bytes(bytes: usize) -> ReplicaInput {
    ReplicaInput::SubmitMany {
        transactions: vec![Bytes::from(vec![0; bytes])],
        batch: Batch::default(),
    }
}

fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn what_exceeds_the_bytes_waits_until_something_is_taken() {
    let (inputs, mut end) = Inputs::new();
    inputs.blocking_send(of_bytes(BYTES_MAX / 2)).unwrap();
    inputs.blocking_send(of_bytes(BYTES_MAX / 2)).unwrap();
    let mut third = std::pin::pin!(inputs.send(of_bytes(1)));
    assert!(poll_once(third.as_mut()).is_pending());
    assert_eq!(inputs.waiting(), 2);
    drop(end.try_recv().unwrap().into_input());
    assert!(matches!(poll_once(third.as_mut()), Poll::Ready(Ok(()))));
    assert_eq!(inputs.waiting(), 2);
}

#[test]
fn one_larger_than_the_bound_gets_in_alone() {
    let (inputs, mut end) = Inputs::new();
    inputs.blocking_send(of_bytes(BYTES_MAX * 2)).unwrap();
    let mut next = std::pin::pin!(inputs.send(of_bytes(1)));
    assert!(poll_once(next.as_mut()).is_pending());
    drop(end.try_recv());
    assert!(poll_once(next.as_mut()).is_ready());
}

#[test]
fn nobody_waits_for_a_replica_that_has_gone() {
    let (inputs, end) = Inputs::new();
    inputs.blocking_send(of_bytes(BYTES_MAX)).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| inputs.blocking_send(of_bytes(1)));
        drop(end);
        assert!(matches!(waits.join().unwrap(), Err(Gone)));
    });
}
