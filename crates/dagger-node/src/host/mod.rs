//! The host agent: drives this machine's VMs to what the ledger wants, and reports what happened.

mod plan;
#[cfg(test)]
mod plan_tests;
