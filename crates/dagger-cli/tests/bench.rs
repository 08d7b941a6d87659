//! `dagger bench` measures in earnest: what went in comes out, once, and the figures have the one form.

use std::collections::BTreeMap;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagger"));
    command.arg("bench").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn figures(args: &[&str]) -> BTreeMap<String, f64> {
    let output = bench(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let figure = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["bench", "name", "value", "unit", "target", "ok"] {
            assert!(line.get(key).is_some(), "{key} is missing in {line}");
        }
        let name = line["name"].as_str().unwrap().to_owned();
        (name, line["value"].as_f64().unwrap())
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(figure)
        .collect()
}

fn all_was_ordered_once(figures: &BTreeMap<String, f64>) {
    assert!(figures["committed"] > 0.0, "{figures:?}");
    assert!(figures["latency_p50"] > 0.0, "{figures:?}");
    for none in ["lost", "repeated", "refused"] {
        assert!(figures[none].abs() < 0.5, "{none}: {figures:?}");
    }
}

const SHORT: [&str; 6] = ["--rate", "300", "--duration", "1", "--warmup", "0.5"];

#[test]
fn members_of_one_process_order_everything_once() {
    let mut args = vec!["consensus", "--transport", "memory", "--store", "memory"];
    args.extend(SHORT);
    all_was_ordered_once(&figures(&args));
}

#[test]
fn members_as_processes_order_everything_once_also_when_one_is_killed() {
    let mut args = vec!["consensus", "--crash", "1"];
    args.extend(SHORT);
    all_was_ordered_once(&figures(&args));
}

#[test]
fn too_many_crashes_are_wrong_usage() {
    let output = bench(&["consensus", "--crash", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
