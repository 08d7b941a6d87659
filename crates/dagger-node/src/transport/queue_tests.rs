use bytes::Bytes;

use super::{AWAY_FRAMES_MAX, BYTES_MAX, Lane, Queue};
use crate::transport::frame::Encoded;

fn frame(kind: u8, bytes: usize) -> Encoded {
    Encoded {
        head: Bytes::from(vec![kind]),
        body: Bytes::from(vec![0; bytes - 1]),
    }
}

fn kinds(frames: &[Encoded]) -> Vec<u8> {
    frames.iter().map(|frame| frame.head[0]).collect()
}

#[tokio::test]
async fn answers_go_before_news_and_signs_of_life_before_both() {
    let queue = Queue::default();
    queue.push(frame(1, 10), Lane::News, true);
    queue.push(frame(2, 10), Lane::News, true);
    queue.push(frame(3, 10), Lane::Answers, true);
    queue.push(frame(4, 10), Lane::Urgent, true);
    assert_eq!(kinds(&queue.pop(20).await), [4, 3, 1]);
    assert_eq!(kinds(&queue.pop(20).await), [2]);
    assert_eq!(queue.bytes(), 0);
}

#[tokio::test]
async fn news_that_pile_up_leave_room_for_answers() {
    let queue = Queue::default();
    queue.push(frame(1, BYTES_MAX), Lane::News, true);
    queue.push(frame(2, 1), Lane::News, true);
    assert_eq!(queue.dropped(), 1);
    queue.push(frame(3, BYTES_MAX), Lane::Answers, true);
    queue.push(frame(4, 1), Lane::Answers, true);
    assert_eq!(queue.dropped(), 2);
    assert_eq!(kinds(&queue.pop(usize::MAX).await), [3, 1]);
}

#[tokio::test]
async fn of_what_waits_for_a_peer_that_is_away_the_newest_stays() {
    let queue = Queue::default();
    for number in 0..AWAY_FRAMES_MAX as u8 + 2 {
        queue.push(frame(number, 10), Lane::News, false);
    }
    let kept = kinds(&queue.pop(usize::MAX).await);
    assert_eq!(kept.len(), AWAY_FRAMES_MAX);
    assert_eq!(kept[0], 2);
}
