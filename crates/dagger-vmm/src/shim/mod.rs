//! The shim: one small process per instance that owns QEMU, its exit, its console and its lease.

use std::path::Path;
use std::process::ExitCode;

/// Entry of `dagger vm-shim --dir DIR`. Runs until QEMU has ended. Starts no runtime and no thread.
pub fn shim_main(dir: &Path) -> ExitCode {
    let _ = dir;
    unimplemented!()
}
