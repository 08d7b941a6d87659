use super::*;
use clap::CommandFactory as _;

#[test]
fn the_tree_is_well_formed() {
    Cli::command().debug_assert();
}
