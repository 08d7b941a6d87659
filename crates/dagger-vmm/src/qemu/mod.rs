//! What is known of QEMU: its command line, its control protocol, its disks. No process is started here, but a QEMU that is asked what it can (`aio.rs`).

pub mod accel;
pub mod aio;
pub mod args;
pub mod qmp;
