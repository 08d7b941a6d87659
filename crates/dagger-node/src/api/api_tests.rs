//! The API as a document. Its behaviour is tested against a running node in `tests/api.rs`.

use std::path::Path;

/// `DAGGER_UPDATE=1` writes the document anew instead of comparing it.
#[test]
fn the_document_that_is_checked_in_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut current = super::openapi()
        .to_pretty_json()
        .expect("the document is plain JSON");
    current.push('\n');
    if std::env::var_os("DAGGER_UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == current,
        "docs/openapi.json is out of date; write it anew with\n  \
         DAGGER_UPDATE=1 cargo test -p dagger-node --lib api::"
    );
}

#[test]
fn every_failure_has_the_one_form_and_every_path_a_tag() {
    let document = serde_json::to_value(super::openapi()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["tags"][0].is_string(), "{name} has no tag");
            assert!(operation["summary"].is_string(), "{name} says nothing");
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.starts_with(['4', '5']) {
                    let schema = &response["content"]["application/json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {status}");
                }
            }
        }
    }
}
