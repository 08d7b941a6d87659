//! Skeleton.

pub mod images;
