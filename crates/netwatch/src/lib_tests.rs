use std::future::poll_fn;

use tokio::sync::mpsc;

use super::*;

/// As a connection's task does: reads until it is told that there is nothing more, then sends.
#[tokio::test]
async fn a_task_that_has_read_much_can_send() {
    let listener = UdpSocket::bind_full(([127, 0, 0, 1], 0)).expect("binds");
    let to = listener.local_addr().expect("bound");
    let socket = Arc::new(UdpSocket::bind_full(([127, 0, 0, 1], 0)).expect("binds"));
    let mut sender = Arc::clone(&socket).create_sender();
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: b"a datagram",
        segment_size: None,
        src_ip: None,
    };
    // Once it was ready.
    let first = poll_fn(|cx| Pin::new(&mut sender).poll_send(&transmit, cx)).await;
    first.expect("sends");

    let (events, mut waiting) = mpsc::channel(1_000);
    (0..1_000).for_each(|event| events.try_send(event).expect("there is room"));
    let sent = poll_fn(|cx| {
        let mut read = 0;
        while waiting.poll_recv(cx).is_ready() {
            read += 1;
        }
        assert!(read < 1_000, "tokio bounds what is read at once");
        Poll::Ready(Pin::new(&mut sender).poll_send(&transmit, cx))
    });
    assert!(matches!(sent.await, Poll::Ready(Ok(()))));
}
