use super::*;

#[test]
fn every_target_has_seeds_and_a_source() {
    let home = shell::root().join("fuzz");
    let targets = targets(&home).unwrap();
    assert!(targets.len() > 10, "{targets:?}");
    for name in &targets {
        assert!(
            home.join(format!("fuzz_targets/{name}.rs")).is_file(),
            "{name}"
        );
        let seeds = std::fs::read_dir(home.join("corpus").join(name)).map(Iterator::count);
        assert!(seeds.is_ok_and(|count| count > 0), "{name} has no seeds");
    }
    let sources = std::fs::read_dir(home.join("fuzz_targets"))
        .unwrap()
        .count();
    assert_eq!(sources, targets.len(), "a source without a target");
}

#[test]
fn an_account_is_read() {
    let quiet = "#100\tREDUCE cov: 40 ft: 9\n#200\tDONE   cov: 41 ft: 9 corp: 3/9b\n\
                 stat::number_of_executed_units: 200\nstat::new_units_added:          7\n";
    let expected = Outcome {
        executions: 200,
        coverage: 41,
        seeds: 7,
        found: None,
    };
    assert_eq!(outcome(quiet), expected);
    let crash = "#3\tNEW    cov: 4 ft: 5\nartifact_prefix='/a/'; Test unit written to /a/crash-1\n";
    assert_eq!(outcome(crash).found.as_deref(), Some("/a/crash-1"));
}
