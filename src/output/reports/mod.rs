//! Prints the results of the commands: events, dry runs, the pool and reconciliations.

pub(crate) mod dry_run;
pub(crate) mod event;
pub(crate) mod pool;
pub(crate) mod reconcile;
