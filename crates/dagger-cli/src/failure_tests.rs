use super::*;

#[test]
fn says_what_happened_with_its_code_and_what_to_do() {
    let failure = Failure::new(
        Exit::Refused,
        "name_taken",
        "That name is in use; choose another.",
    );
    assert_eq!(
        failure.to_string(),
        "error: That name is in use; choose another. [name_taken]"
    );
    let failure = failure.hint("first").hint("second");
    assert_eq!(failure.to_string().lines().last(), Some("  next: first"));
    assert_eq!(failure.to_json()["error"]["hint"], "first");
}

#[test]
fn exit_status_follows_the_fault() {
    let exit = |fault| Failure::from(ClientError::new("http://x", fault, "E", "t")).exit as u8;
    assert_eq!(exit(Fault::Node), 1);
    assert_eq!(exit(Fault::Usage), 2);
    assert_eq!(exit(Fault::Refused), 3);
    assert_eq!(exit(Fault::Unreachable), 4);
    assert_eq!(exit(Fault::TimedOut), 5);
}
