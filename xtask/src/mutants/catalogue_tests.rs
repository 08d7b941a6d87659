use super::*;
use crate::shell;

const TEXT: &str = "# a comment\nmutant a\nfile x.rs\nfrom f + 1\nto   f\n\n# more\n\nmutant b\nfile x.rs\nin let b = g();\nfrom g()\nto h()\n";

#[test]
fn every_mutant_still_finds_its_text() {
    let mut lost = Vec::new();
    for mutation in catalogue().unwrap() {
        let path = shell::root()
            .join("crates/shadowgraph/src")
            .join(&mutation.file);
        let source = std::fs::read_to_string(path).unwrap();
        match mutation.span(&source) {
            Ok(span) => assert_ne!(&source[span], mutation.to, "{}", mutation.name),
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn a_text_that_is_gone_or_not_alone_is_refused() {
    let mutations = parse(TEXT).unwrap();
    assert_eq!(
        (mutations[0].name.as_str(), mutations[1].name.as_str()),
        ("a", "b")
    );
    let gone = mutations[0].span("f - 1").unwrap_err();
    assert!(
        format!("{gone:#}").contains("no longer says `f + 1`"),
        "{gone:#}"
    );
    let twice = mutations[0].span("f + 1; f+1").unwrap_err();
    assert!(format!("{twice:#}").contains("twice"), "{twice:#}");
    assert!(parse("mutant a\nfile x.rs\nfrom f\n").is_err());
    assert!(parse(&format!("{TEXT}\n{TEXT}")).is_err());
}

#[test]
fn a_switch_takes_the_place_of_the_text_alone() {
    let mutations = parse(TEXT).unwrap();
    let source = "let a = f\n    + 1;\nlet b = g();\ng();\n";
    let switched = with_switches(source, &[(7, &mutations[0]), (8, &mutations[1])]).unwrap();
    assert_eq!(
        switched,
        "let a = (match crate::mutation::active() { 7 => { f } _ => { f\n    + 1 } });\n\
         let b = (match crate::mutation::active() { 8 => { h() } _ => { g() } });\ng();\n"
    );
    // Two mutants of one text share a switch; texts that overlap otherwise have none.
    let shared = with_switches("f + 1", &[(1, &mutations[0]), (2, &mutations[0])]).unwrap();
    assert!(
        shared.contains("1 => { f } 2 => { f } _ => { f + 1 }"),
        "{shared}"
    );
    let longer = parse("mutant c\nfile x.rs\nfrom f + 1;\nto {}\n").unwrap();
    assert!(with_switches("f + 1;", &[(1, &mutations[0]), (2, &longer[0])]).is_err());
}
