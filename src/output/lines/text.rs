//! Formats lines for people: the container's name, optionally the time, and the message.

use super::color;
use super::stamp::StampWriter;
use crate::model::batch::{Batch, Line};
use crate::model::container::Container;
use crate::model::json;
use crate::output::sanitizer::{self, Controls};
use owo_colors::OwoColorize;

/// What precedes each message of a container: the name and a bar, or nothing.
#[derive(Default)]
pub(super) struct Prefix(Vec<u8>);

impl Prefix {
    /// Renders the name, padded to `width` columns, and the bar.
    pub(super) fn new(container: &Container, width: usize, is_coloured: bool) -> Self {
        let name = sanitizer::safe(&container.name);
        let padding = " ".repeat(width.saturating_sub(name.chars().count()));
        let prefix = if is_coloured {
            format!("{}{padding} {} ", name.style(color::style(container)), "|".dimmed())
        } else {
            format!("{name}{padding} | ")
        };
        Prefix(prefix.into_bytes())
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) timestamps: bool,
    pub(super) controls: Controls,
}

/// Appends a line, with its newline.
#[inline]
pub(super) fn line(
    batch: &Batch,
    line: &Line,
    prefix: &Prefix,
    style: Style,
    stamp: &mut StampWriter,
    out: &mut Vec<u8>,
) {
    let message = batch.text(line);
    out.reserve(message.len() + prefix.0.len() + 40);
    out.extend_from_slice(&prefix.0);
    if style.timestamps {
        stamp.set(line.time);
        out.extend_from_slice(stamp.written());
        out.push(b' ');
    }
    match (style.controls, line.encoding.is_escaped()) {
        (Controls::Keep, true) => json::unescape(message, out),
        (Controls::Keep, false) => out.extend_from_slice(message),
        (controls, true) => {
            let mut text = Vec::new();
            json::unescape(message, &mut text);
            sanitizer::write(&text, controls, out);
        }
        (controls, false) => sanitizer::write(message, controls, out),
    }
    out.push(b'\n');
}
