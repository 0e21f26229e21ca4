//! The rooms and verbs against real engines.

mod endpoint;
