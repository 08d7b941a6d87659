//! The checkers. They watch a run from outside, recompute what they can from the events themselves, and share no code with
//! the library. `ledger` watches commits as they come, `clients` what was promised to clients, `limits` bounds;
//! `naive` is the commit rule in its plainest form, `schedule` the leaders' schedule, `replay` runs both over final graphs and
//! prefixes.

pub mod clients;
pub mod ledger;
#[cfg(test)]
mod ledger_tests;
pub mod limits;
pub mod naive;
#[cfg(test)]
mod naive_tests;
pub mod replay;
pub mod schedule;
