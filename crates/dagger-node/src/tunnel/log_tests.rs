//! A guest's log as it is read back: order of its parts, its tail, growth, rotation, and a reader who goes away.

use std::{io::Write as _, path::PathBuf, time::Duration};

use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::log::{log, start_of_tail};

struct Ring {
    dir: tempfile::TempDir,
}

impl Ring {
    fn new(older: &str, newest: &str) -> Ring {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("console.log.1"), older).unwrap();
        std::fs::write(dir.path().join("console.log"), newest).unwrap();
        Ring { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("console.log")
    }

    fn append(&self, text: &str) {
        let mut file = std::fs::File::options()
            .append(true)
            .open(self.path())
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

async fn next(stream: &mut DuplexStream, wanted: &str) {
    let mut bytes = vec![0; wanted.len()];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut bytes));
    read.await.expect("it comes").expect("the stream goes on");
    assert_eq!(String::from_utf8_lossy(&bytes), wanted);
}

#[test]
fn a_tail_is_counted_in_lines() {
    let text = b"one\ntwo\nthree\n";
    let tail = |lines| std::str::from_utf8(&text[start_of_tail(text, lines)..]).unwrap();
    assert_eq!(
        [tail(0), tail(1), tail(2), tail(3), tail(4)],
        [
            "",
            "three\n",
            "two\nthree\n",
            "one\ntwo\nthree\n",
            "one\ntwo\nthree\n"
        ]
    );
    assert_eq!(
        start_of_tail(b"one\nlogin: ", 1),
        4,
        "an unfinished line counts"
    );
    assert_eq!(start_of_tail(b"", 3), 0);
}

#[tokio::test]
async fn the_older_part_comes_first_and_the_end_is_an_end() {
    let ring = Ring::new("a\nb", "c\nd\n");
    let mut all = String::new();
    log(ring.path(), false, None)
        .read_to_string(&mut all)
        .await
        .unwrap();
    assert_eq!(all, "a\nbc\nd\n");
    let mut tail = String::new();
    log(ring.path(), false, Some(2))
        .read_to_string(&mut tail)
        .await
        .unwrap();
    assert_eq!(tail, "bc\nd\n", "a line may stand in both parts");
}

#[tokio::test]
async fn a_log_is_followed_across_rotation() {
    let ring = Ring::new("", "first\n");
    let mut stream = log(ring.path(), true, Some(1));
    next(&mut stream, "first\n").await;
    ring.append("second\n");
    next(&mut stream, "second\n").await;
    ring.append("third\n");
    let mut older = ring.path().into_os_string();
    older.push(".1");
    std::fs::rename(ring.path(), older).unwrap();
    std::fs::write(ring.path(), "4\n").unwrap();
    next(&mut stream, "third\n4\n").await;
}
