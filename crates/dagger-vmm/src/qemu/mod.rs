//! What is known of QEMU: its command line, its control protocol, its disks. No process is started here.

pub mod accel;
pub mod args;
pub mod qmp;
