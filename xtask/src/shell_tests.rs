//! Tests of the small texts that `shell` makes.

use super::*;

#[test]
fn durations_read_as_people_say_them() {
    assert_eq!(seconds(Duration::from_millis(840)), "0.8 s");
    assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
    assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
}

#[test]
fn a_command_line_reads_as_typed() {
    let mut command = Command::new("/usr/bin/apt-get");
    command.args(["install", "-y", "cpio"]);
    assert_eq!(command_line(&command), "apt-get install -y cpio");
}

#[test]
fn a_failing_command_says_which_and_why() {
    let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("sh -c"), "{text}");
    assert!(text.contains("broken"), "{text}");
}
