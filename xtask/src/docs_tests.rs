//! What the check of the documents reads out of them.

use super::*;

#[test]
fn links_are_read_outside_fenced_blocks() {
    let text = "See [a](x.md) and [b](y/z.md#part).\n```\n[c](no.md)\n```\n[d](https://e.org)";
    assert_eq!(link_targets(text), ["x.md", "y/z.md#part", "https://e.org"]);
}

#[test]
fn a_link_that_leads_nowhere_is_a_fault() {
    let mut faults = Vec::new();
    links(
        Path::new("README.md"),
        "[a](no-such-file.md) [b](Cargo.toml) [c](#here)",
        &mut faults,
    );
    assert_eq!(
        faults,
        ["README.md: the link to no-such-file.md leads nowhere"]
    );
}

#[test]
fn rules_are_the_numbers_that_lines_begin_with() {
    let text = "# 4. Votes\n**4.3** A vote\n- 4.4. Another\nin 5.1 nothing is stated";
    assert_eq!(
        rules(text),
        BTreeSet::from(["4".into(), "4.3".into(), "4.4".into()])
    );
}

#[test]
fn a_cited_rule_follows_the_documents_name() {
    assert_eq!(cited_rule(" 4.3: ties break on the digest"), Some("4.3"));
    assert_eq!(cited_rule(" says so"), None);
    assert_eq!(cited_rule("#votes"), None);
}

#[test]
fn commands_of_documents_must_exist() {
    let commands = BTreeSet::from(["demo".to_owned()]);
    let mut faults = Vec::new();
    let text = "`cargo xtask demo --keep`, `cargo xtask dance`";
    unknown_commands(Path::new("README.md"), text, &commands, &mut faults);
    assert_eq!(faults, ["README.md: there is no `cargo xtask dance`"]);
}

#[test]
fn registry_crates_are_those_without_a_path() {
    let manifest =
        "[workspace.dependencies]\na = { path = \"a\" }\n# why\nb = \"1\"\n\n[profile]\nc = 1";
    assert_eq!(registry_crates(manifest), ["b"]);
}
