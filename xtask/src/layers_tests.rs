//! The edges between crates that the table refuses.

use super::*;

fn package(name: &str, dependencies: &[(&str, Option<&str>, bool)]) -> Package {
    Package {
        name: name.into(),
        manifest_path: PathBuf::new(),
        dependencies: dependencies
            .iter()
            .map(|(name, kind, local)| Dependency {
                name: (*name).into(),
                kind: kind.map(Into::into),
                path: local.then(PathBuf::new),
            })
            .collect(),
    }
}

#[test]
fn an_arrow_that_points_up_is_refused() {
    let packages = [package("dagger-ledger", &[("dagger-node", None, true)])];
    assert_eq!(edges(&packages), ["dagger-ledger must not use dagger-node"]);
}

#[test]
fn a_pure_crate_takes_no_new_dependency_unseen() {
    let packages = [package(
        "shadowgraph",
        &[("blake3", None, false), ("tokio", None, false)],
    )];
    assert_eq!(edges(&packages), ["shadowgraph must not use tokio"]);
}

#[test]
fn tests_may_point_anywhere() {
    let packages = [package(
        "shadowgraph",
        &[("shadowgraph-sim", Some("dev"), true)],
    )];
    assert!(edges(&packages).is_empty());
}

#[test]
fn a_crate_without_a_layer_is_refused() {
    assert_eq!(
        edges(&[package("newcomer", &[])]),
        ["newcomer is in no layer: add it to the table"]
    );
}

#[test]
fn the_table_itself_points_down() {
    for (height, layer) in LAYERS.iter().enumerate() {
        for lower in layer.may_use {
            let below = LAYERS.iter().position(|other| other.name == *lower);
            assert!(
                below.is_some_and(|below| below < height),
                "{} -> {lower}",
                layer.name
            );
        }
    }
}
