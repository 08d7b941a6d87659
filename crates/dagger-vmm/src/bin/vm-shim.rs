//! The shim alone, called as the `dagger` binary is (`vm-shim --dir DIR`): for this crate's tests and measurements.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["vm-shim", "--dir", dir] => dagger_vmm::shim_main(Path::new(dir)),
        _ => {
            eprintln!("usage: vm-shim vm-shim --dir DIR");
            ExitCode::FAILURE
        }
    }
}
