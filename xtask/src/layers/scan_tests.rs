//! What the scan of pure sources finds, and what it must leave alone.

use super::*;

fn lines(source: &str) -> Vec<usize> {
    impurities(source).iter().map(|found| found.line).collect()
}

#[test]
fn a_clock_is_found_however_it_is_named() {
    for source in [
        "use std::time::Instant;",
        "use std::{fmt, time::{Duration, Instant}};",
        "use std::time as clock;",
        "use std::time::*;",
        "fn f() { let t = std::time::SystemTime::now(); }",
        "fn f() { ::std::time::Instant::now(); }",
    ] {
        assert!(!lines(source).is_empty(), "{source}");
    }
}

#[test]
fn other_ways_outside_are_found() {
    for source in [
        "use std::fs::File;",
        "let s = std::net::TcpStream::connect(a);",
        "use rand::Rng;",
        "tracing::info!(\"x\");",
        "log::warn!(\"x\");",
        "println!(\"x\");",
        "let v = dbg!(v);",
        "std::env::var(\"HOME\")",
        "use rand_core::{CryptoRng, OsRng};",
    ] {
        assert_eq!(lines(source), [1], "{source}");
    }
}

#[test]
fn words_that_only_look_alike_are_left_alone() {
    let source = r##"
        //! std::time is not used here, nor println!.
        /* use std::fs; /* nested */ rand::rng() */
        use core::time::Duration;
        use std::collections::{BTreeMap, HashMap};
        use rand_core::{CryptoRng, RngCore};
        fn f<'a>(log: &'a Log) -> &'a str { log.entries(); "std::time::Instant" }
        const RAW: &str = r#"use std::net; " "#;
        const QUOTE: char = '"'; const LIFE: char = '\'';
        let rand = 3; my::rand::x(); self.log::<u8>();
    "##;
    assert_eq!(impurities(source), []);
}

#[test]
fn tests_may_use_what_they_like() {
    let source = "#[cfg(test)]\nmod tests { use std::fs; fn f() {} }\n#[cfg(test)] #[path = \"x.rs\"] mod x;\nuse std::net;";
    assert_eq!(lines(source), [4]);
}

#[test]
fn the_line_is_the_words_own() {
    let source = "use std::{\n    fmt,\n    fs,\n};";
    assert_eq!(
        impurities(source),
        [Impurity {
            line: 3,
            text: "`std::fs`: what must be kept goes out as a value".into()
        }]
    );
}
