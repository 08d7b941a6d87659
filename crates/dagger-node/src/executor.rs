//! Executes commits.
