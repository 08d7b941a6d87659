//! How commands are shown, and what is read out of ssh's log.

use super::*;

#[test]
fn commands_are_shown_as_one_would_type_them() {
    let kernel = format!("{}/target/guest/vmlinuz", shell::root().display());
    let shown = as_typed(&[
        "image",
        "add",
        "micro",
        "--kernel",
        &kernel,
        "--cmdline",
        "a b",
    ]);
    assert_eq!(
        shown,
        "dagger image add micro --kernel target/guest/vmlinuz --cmdline 'a b'"
    );
}

#[test]
fn the_host_key_is_the_one_that_the_server_showed() {
    let log = "debug1: kex: x\ndebug1: Server host key: ssh-ed25519 SHA256:abc/+1\ndebug1: y";
    assert_eq!(shown_host_key(log).as_deref(), Some("SHA256:abc/+1"));
    assert_eq!(shown_host_key("debug1: nothing"), None);
}
