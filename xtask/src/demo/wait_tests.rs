//! Waits end by their condition or say what they last saw.

use super::*;
use anyhow::bail;

#[test]
fn a_wait_ends_when_the_condition_holds() {
    let mut polls = 0;
    let value = Deadline::after(Duration::from_secs(600)).wait("three polls", || {
        polls += 1;
        if polls < 3 {
            bail!("only {polls}")
        } else {
            Ok(polls)
        }
    });
    assert_eq!(value.unwrap(), 3);
}

#[test]
fn a_wait_in_vain_says_what_it_last_saw() {
    let deadline = Deadline::after(Duration::ZERO);
    let error = deadline
        .wait::<()>("the VM", || bail!("phase starting"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "waited in vain for the VM; last seen: phase starting"
    );
}
