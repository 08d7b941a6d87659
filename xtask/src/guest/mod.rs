//! Guest images of our own: built from Debian's packages, without root, reproducibly.
//!
//! The same packages give the same bytes. Nothing is installed on the building machine: packages are downloaded into a
//! cache and unpacked beside it. What an image contains is in `micro.rs`; how it is written, in `cpio.rs`; where its
//! packages come from, in `debs.rs`; kernel modules, in `modules.rs`.

mod cpio;
mod debs;
mod micro;
mod modules;

pub use micro::{MicroGuest, build_micro};
