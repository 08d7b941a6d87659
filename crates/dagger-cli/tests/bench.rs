//! `dagger bench` measures in earnest: what went in comes out, once, and the figures have the one form.

mod fake;

use fake::{dagger, stderr, stdout};
use std::collections::BTreeMap;

fn figures(args: &[&str]) -> BTreeMap<String, f64> {
    let output = dagger()
        .args(["bench"])
        .args(args)
        .arg("--json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let figure = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["bench", "name", "value", "unit", "target", "ok"] {
            assert!(line.get(key).is_some(), "{key} is missing in {line}");
        }
        let name = line["name"].as_str().unwrap().to_owned();
        (name, line["value"].as_f64().unwrap())
    };
    stdout(&output).lines().map(figure).collect()
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
    let output = dagger()
        .args(["bench", "consensus", "--crash", "2"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
