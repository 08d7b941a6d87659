//! Filled by its part of the node.
