//! The engine: connects the rooms and answers the verbs.

pub mod watch;
