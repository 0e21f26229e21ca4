//! Completion as docker speaks it (cobra's protocol).
use super::plugin::Flags;
use crate::container::Container;
use clap::Command;
use std::ffi::OsString;
/// w
#[derive(Clone, Copy)]
pub enum Want {
    /// c
    Containers,
}
/// l
#[derive(Default)]
pub struct Live {
    /// c
    pub containers: Vec<Container>,
}
/// a
pub fn asked(words: &[OsString]) -> Option<&[OsString]> {
    match words.split_first() {
        Some((w, rest)) if w == "__complete" || w == "__completeNoDesc" => Some(rest),
        _ => None,
    }
}
/// a
pub fn answer(_: Command, _: &[OsString], _: impl FnOnce(&Flags, Want) -> Live + Send + 'static) -> String {
    ":4\n".into()
}
