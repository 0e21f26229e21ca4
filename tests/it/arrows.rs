//! The arrows between the rooms point one way.
