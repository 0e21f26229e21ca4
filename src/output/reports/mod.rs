//! Writes what a command reports: events, plans, the pool, reconciliations.

pub(crate) mod dry_run;
pub(crate) mod event;
pub(crate) mod pool;
pub(crate) mod reconcile;
