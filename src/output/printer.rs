//! Items in, bytes out.
//!
//! Called by the engine's deliver thread for each item, and for a flush when none waits. Gathers what it writes, so that
//! a flood leaves in large writes and a single line leaves at once.

use super::diagnostic::{self, Diagnostic, Level};
use super::json::{self, Template};
use super::progress::Progress;
use super::sink::Sink;
use super::stamp::Stamp;
use super::terminal::{self, Controls, Form};
use super::text::{self, Prefix};
use super::{Ansi, Displaced, Error, Format, Settings};
use crate::batch::{Batch, Gap, Item, Key, Line};
use crate::container::Container;
use crate::time::Timestamp;
use owo_colors::OwoColorize;
use regex::bytes::Regex;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is gathered before it is written though more waits.
const GATHER: usize = 256 * 1024;
/// Longer names stand out of the column.
const WIDEST_NAME: usize = 32;

/// See the module.
pub struct Printer {
    settings: Settings,
    sink: Sink,
    out: Vec<u8>,
    stamp: Stamp,
    progress: Progress,
    known: HashMap<Key, Known>,
    style: text::Style,
    is_coloured: bool,
    width: usize,
    scratch: Vec<u8>,
}

/// A file that takes the place of the one that is written to.
pub struct Successor(Sink);

impl Successor {
    /// The file and its path.
    pub fn file(&self) -> Option<(&Path, &File)> {
        self.0.regular_file()
    }

    /// Whether another one is under its path already.
    pub fn is_displaced(&self) -> bool {
        self.0.displaced().is_some()
    }
}

struct Known {
    container: Arc<Container>,
    prefix: Prefix,
    template: Option<Template>,
    /// That it is followed was said, by this name.
    is_told: bool,
}

impl Printer {
    /// Opens what is written to.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let form = match (settings.format, settings.ansi) {
            (Format::Json, _) => Form::Json,
            (Format::Text | Format::Raw, Ansi::Keep) => Form::Verbatim,
            (Format::Text | Format::Raw, Ansi::Auto | Ansi::Strip) => Form::Text,
        };
        let sink = match &settings.file {
            Some(path) => Sink::file(path, form)?,
            None => Sink::stdout(form)?,
        };
        let is_terminal = sink.is_terminal;
        let controls = match settings.ansi {
            Ansi::Auto if is_terminal => Controls::Show,
            Ansi::Auto | Ansi::Keep => Controls::Keep,
            Ansi::Strip => Controls::Strip,
        };
        Ok(Printer {
            style: text::Style { timestamps: settings.timestamps, controls },
            is_coloured: settings.color.holds(is_terminal),
            progress: Progress::new(!is_terminal && settings.wants_status()),
            settings,
            sink,
            out: Vec::with_capacity(GATHER / 4),
            stamp: Stamp::default(),
            known: HashMap::new(),
            width: 0,
            scratch: Vec::new(),
        })
    }

    /// Writes an item, or gathers it.
    pub fn take(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Lines(batch) => return self.lines(batch),
            Item::Meet(key, container) => return self.meet(*key, container),
            Item::Place(..) => {}
            Item::Begin(key, route, _) => {
                if let Some(known) = self.known.get_mut(key) {
                    known.is_told = true;
                }
                let (name, route) = (self.name(*key), route.name());
                let line = format!("{} {name} ({route})", self.sign('+'));
                self.notice(&line, about(&name, Level::Info, &format!("is followed by {route}")))?;
            }
            Item::End(key, code) => {
                let name = self.name(*key);
                let code = code.map_or_else(String::new, |code| format!(" (exit {code})"));
                let line = format!("{} {name}{code}", self.sign('-'));
                self.notice(&line, about(&name, Level::Info, &format!("has ended{code}")))?;
            }
            Item::Gone(key) | Item::Forget(key) => drop(self.known.remove(key)),
            Item::Lifecycle(key, happening) => {
                let template = self.known.get(key).and_then(|known| known.template.as_ref());
                if let (true, Some(template)) = (self.settings.lifecycle, template) {
                    json::lifecycle(happening, template, &mut self.out);
                }
            }
            Item::Notice(Some(key), text) => {
                let (name, text) = (self.name(*key), terminal::safe(text));
                self.notice(&format!("! {name}: {text}"), about(&name, Level::Warn, &text))?;
            }
            Item::Notice(None, text) => {
                let text = terminal::safe(text);
                self.notice(&text, Diagnostic::new(Level::Info, &text))?;
            }
        }
        Ok(())
    }

    /// Everything is out when it returns.
    pub fn flush(&mut self) -> Result<(), Error> {
        let written = self.sink.write(&self.out);
        self.out.clear();
        written
    }

    /// Says what nobody could know otherwise, though no notices are wanted.
    pub fn announce(&mut self, text: &str) -> Result<(), Error> {
        self.notice_always(text, Diagnostic::new(Level::Info, text))
    }

    /// Says what was lost or does not work, though no notices are wanted.
    pub fn warn(&mut self, text: &str) -> Result<(), Error> {
        self.notice_always(text, Diagnostic::new(Level::Warn, text))
    }

    /// The file that is written to and its path, if it is one that can be cut back and synced.
    pub fn file(&self) -> Option<(&Path, &File)> {
        self.sink.regular_file()
    }

    /// What has become of that file, if it is no longer the one under its path.
    pub fn displaced(&self) -> Option<Displaced> {
        self.sink.displaced()
    }

    /// Opens the file that is under the path now, which is made where there is none, for [`Printer::replace`].
    pub fn successor(&self) -> Result<Successor, Error> {
        self.sink.anew().map(Successor)
    }

    /// What comes from now on, and what is gathered, goes there.
    pub fn replace(&mut self, by: Successor) {
        self.sink = by.0;
    }

    /// How long nothing may come before [`Printer::rest`] is due, if ever.
    pub fn patience(&self) -> Option<Duration> {
        self.progress.patience()
    }

    /// Nothing has come for some time.
    pub fn rest(&mut self) {
        self.progress.rest_when_due();
    }

    fn meet(&mut self, key: Key, container: &Arc<Container>) -> Result<(), Error> {
        let before = self.known.get(&key).filter(|known| known.is_told).map(|known| Arc::clone(&known.container));
        let is_told = before.is_some();
        let is_json = self.settings.format == Format::Json;
        let template = is_json.then(|| Template::new(container, self.settings.metadata));
        let prefix = self.prefix(container);
        self.known.insert(key, Known { container: Arc::clone(container), prefix, template, is_told });
        let width = container.name.chars().count().min(WIDEST_NAME);
        if self.sink.is_terminal && width > self.width {
            self.width = width;
            let known: Vec<(Key, Arc<Container>)> =
                self.known.iter().map(|(key, known)| (*key, Arc::clone(&known.container))).collect();
            for (key, container) in known {
                let prefix = self.prefix(&container);
                if let Some(known) = self.known.get_mut(&key) {
                    known.prefix = prefix;
                }
            }
        }
        match before.filter(|before| before.name != container.name) {
            Some(before) => {
                let (before, now) = (terminal::safe(&before.name), terminal::safe(&container.name));
                let message = format!("is now called {now}");
                self.notice(&format!("{before} {message}"), about(&before, Level::Info, &message))
            }
            None => Ok(()),
        }
    }

    fn prefix(&self, container: &Container) -> Prefix {
        match self.settings.format {
            Format::Text => Prefix::new(container, self.width, self.is_coloured),
            Format::Json | Format::Raw => Prefix::default(),
        }
    }

    fn lines(&mut self, batch: &Batch) -> Result<(), Error> {
        let (mut from, mut lines) = (0, batch.lines.as_slice());
        for (at, gap) in &batch.gaps {
            self.write(batch, &lines[..at - from])?;
            (from, lines) = (*at, &lines[at - from..]);
            self.gap(batch.key, gap)?;
        }
        self.write(batch, lines)?;
        self.progress.add(batch);
        Ok(())
    }

    fn write(&mut self, batch: &Batch, lines: &[Line]) -> Result<(), Error> {
        // In steps, so that a batch of short lines with long prefixes is gathered no further than others.
        for lines in lines.chunks(1024) {
            self.format(batch, lines);
            if self.out.len() >= GATHER {
                self.sink.write(&self.out)?;
                self.out.clear();
                self.out.shrink_to(GATHER * 4);
            }
        }
        Ok(())
    }

    fn format(&mut self, batch: &Batch, lines: &[Line]) {
        // Whoever sends lines has introduced their container.
        let Some(known) = self.known.get(&batch.key) else { return };
        let filter = Filter { settings: &self.settings };
        let shown = lines.iter().filter(|line| filter.shows(batch, line, &mut self.scratch));
        match &known.template {
            Some(template) => {
                for line in shown {
                    json::log(batch, line, template, &mut self.stamp, &mut self.out);
                }
            }
            None => {
                for line in shown {
                    text::line(batch, line, &known.prefix, self.style, &mut self.stamp, &mut self.out);
                }
            }
        }
    }

    fn gap(&mut self, key: Key, gap: &Gap) -> Result<(), Error> {
        let lost = gap.lost_bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes of log"));
        let message = format!("{}{lost}", gap.reason.phrase());
        let Some(known) = self.known.get(&key) else { return Ok(()) };
        match &known.template {
            Some(template) => json::gap(gap, &message, template, Timestamp::now(), &mut self.out),
            None => {
                let name = terminal::safe(&known.container.name);
                self.notice_always(&format!("! {name}: {message}"), about(&name, Level::Warn, &message))?;
            }
        }
        Ok(())
    }

    fn name(&self, key: Key) -> String {
        self.known.get(&key).map_or_else(String::new, |known| terminal::safe(&known.container.name))
    }

    fn sign(&self, sign: char) -> String {
        if !self.settings.color.holds(diagnostic::is_on_terminal()) {
            return sign.to_string();
        }
        if sign == '+' { sign.green().to_string() } else { sign.red().to_string() }
    }

    fn notice(&mut self, line: &str, said: Diagnostic<'_>) -> Result<(), Error> {
        if self.settings.quiet { Ok(()) } else { self.notice_always(line, said) }
    }

    /// On stderr, behind the lines that came before it.
    fn notice_always(&mut self, line: &str, said: Diagnostic<'_>) -> Result<(), Error> {
        self.flush()?;
        self.progress.rest();
        diagnostic::notice(self.settings.log_format, line, said);
        Ok(())
    }
}

fn about<'a>(name: &'a str, level: Level, message: &'a str) -> Diagnostic<'a> {
    Diagnostic { container_name: Some(name), ..Diagnostic::new(level, message) }
}

/// Which lines are shown.
struct Filter<'a> {
    settings: &'a Settings,
}

impl Filter<'_> {
    #[inline]
    fn shows(&self, batch: &Batch, line: &Line, scratch: &mut Vec<u8>) -> bool {
        let Settings { stream, include, exclude, .. } = self.settings;
        if stream.is_some_and(|stream| stream != line.stream) {
            return false;
        }
        if include.is_empty() && exclude.is_empty() {
            return true;
        }
        let message = batch.text(line);
        let message = if line.encoding.is_escaped() {
            scratch.clear();
            crate::json::unescape(message, scratch);
            scratch
        } else {
            message
        };
        let matches = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(message));
        (include.is_empty() || matches(include)) && !matches(exclude)
    }
}
