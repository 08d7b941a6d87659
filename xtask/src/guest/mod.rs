//! Guest images of our own: built from Debian's packages, without root, reproducibly.
//!
//! The same packages give the same bytes. The micro guest's are downloaded into a cache and unpacked beside it; nothing is
//! installed on the building machine. What it contains is in `micro.rs`; how it is written, in `cpio.rs`; where its
//! packages come from, in `debs.rs`; kernel modules, in `modules.rs`. The Debian guest is in `debian.rs` and `disk.rs`, and is tried by
//! `trial.rs`.

mod cpio;
mod debian;
mod debs;
mod disk;
mod micro;
mod modules;
mod trial;

pub use debian::{DebianArgs, debian};
pub use micro::{MicroGuest, build_micro};
