//! The checked-in JSON Schemas are what the types say. `DAGGER_WRITE_SCHEMA=1 cargo test -p dagger-ledger --test
//! schema` writes them anew.

use dagger_ledger::{Genesis, Transaction};

fn check(name: &str, schema: schemars::Schema) {
    let path = format!(
        "{}/../../docs/schema/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    if std::env::var_os("DAGGER_WRITE_SCHEMA").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().expect("a folder")).unwrap();
        std::fs::write(&path, &text).expect("the folder is there");
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        held == text,
        "docs/schema/{name}.json is out of date; see this file's first lines"
    );
}

#[test]
fn schemas_are_up_to_date() {
    check("transaction", schemars::schema_for!(Transaction));
    check("genesis", schemars::schema_for!(Genesis));
}
