//! Items in, bytes out.
//!
//! Called by the engine's deliver thread for each item, and for a flush when none waits. Gathers what it writes, so that
//! a flood leaves in large writes and a single line leaves at once.

use super::json::{self, Template};
use super::repeats::Repeats;
use super::stamp::Stamp;
use super::text::{self, Prefix};
use crate::model::batch::{Batch, ContainerKey, Gap, Item, Line};
use crate::model::container::Container;
use crate::model::cursor::Route;
use crate::model::time::Timestamp;
use crate::output::sanitizer::{self, Controls, Form};
use crate::output::sink::Sink;
use crate::output::stderr::diagnostics::{self, Diagnostic, Level};
use crate::output::stderr::history_progress::Progress;
use crate::output::{Ansi, Displaced, Error, Format, Settings};
use owo_colors::OwoColorize;
use regex::bytes::Regex;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is gathered before it is written though more waits.
const GATHER: usize = 256 * 1024;
/// What is gathered of one batch before a part of it is written.
const LARGEST_PART: usize = 4 * 1024 * 1024;
/// Longer names stand out of the column.
const WIDEST_NAME: usize = 32;

/// See the module.
pub struct Printer {
    settings: Settings,
    sink: Sink,
    out: Vec<u8>,
    stamp: Stamp,
    progress: Progress,
    known: HashMap<ContainerKey, Known>,
    style: text::Style,
    is_coloured: bool,
    width: usize,
    scratch: Vec<u8>,
    repeats: Option<Repeats>,
    /// Of the last write, which failed: how much of it is in the output.
    written: usize,
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
    /// Its history is read by this route, and no line of it was shown yet.
    recalled: Option<Route>,
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
            repeats: None,
            written: 0,
        })
    }

    /// Gathers an item, all of it.
    pub fn take(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Lines(batch) => {
                let mut from = 0;
                while let Some(next) = self.lines(batch, from)? {
                    self.flush()?;
                    from = next;
                }
            }
            Item::Meet(key, container) => return self.meet(*key, container),
            Item::Place(..) => {}
            Item::Begin(key, route, _) => {
                self.begin(*key, *route)?;
            }
            Item::Recall(key, route) => {
                if let Some(known) = self.known.get_mut(key) {
                    known.recalled = Some(*route);
                }
            }
            Item::End(key, code) => {
                if self.known.get_mut(key).and_then(|known| known.recalled.take()).is_some() {
                    return Ok(());
                }
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
                let (name, text) = (self.name(*key), sanitizer::safe(text));
                self.notice(&format!("! {name}: {text}"), about(&name, Level::Warn, &text))?;
            }
            Item::Notice(None, text) => {
                let text = sanitizer::safe(text);
                self.notice(&text, Diagnostic::new(Level::Info, &text))?;
            }
        }
        Ok(())
    }

    /// Everything is out when it returns.
    pub fn flush(&mut self) -> Result<(), Error> {
        let result = self.sink.append(&self.out);
        self.out.clear();
        self.out.shrink_to(GATHER * 4);
        result.map_err(|(written, error)| {
            self.written = written;
            error
        })
    }

    /// From now on a write to the file that fails leaves nothing of it behind.
    pub fn write_all_or_nothing(&mut self) {
        self.sink.all_or_nothing = true;
    }

    /// What is gathered, whole lines.
    pub fn gathered(&self) -> &[u8] {
        &self.out
    }

    /// Whether so much is gathered that it is better written now.
    pub fn is_full(&self) -> bool {
        self.out.len() >= GATHER
    }

    /// Once a flush has failed: how many bytes of what was gathered are in the output all the same.
    pub fn written(&self) -> usize {
        self.written
    }

    /// The output holds these lines already, and they will come again.
    pub fn expect(&mut self, repeats: Repeats) {
        self.repeats = Some(repeats);
    }

    /// Whether some of those lines have not come yet.
    pub fn is_expecting(&self) -> bool {
        self.repeats.as_ref().is_some_and(|repeats| !repeats.is_over())
    }

    /// The form of a record.
    pub fn format(&self) -> Format {
        self.settings.format
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

    fn begin(&mut self, key: ContainerKey, route: Route) -> Result<(), Error> {
        if let Some(known) = self.known.get_mut(&key) {
            (known.is_told, known.recalled) = (true, None);
        }
        let (name, route) = (self.name(key), route.name());
        let line = format!("{} {name} ({route})", self.sign('+'));
        self.notice(&line, about(&name, Level::Info, &format!("is followed by {route}")))
    }

    fn meet(&mut self, key: ContainerKey, container: &Arc<Container>) -> Result<(), Error> {
        let before = self.known.get(&key).filter(|known| known.is_told).map(|known| Arc::clone(&known.container));
        let is_told = before.is_some();
        let recalled = self.known.get(&key).and_then(|known| known.recalled);
        let is_json = self.settings.format == Format::Json;
        let template = is_json.then(|| Template::new(container, self.settings.metadata));
        let prefix = self.prefix(container);
        self.known.insert(key, Known { container: Arc::clone(container), prefix, template, is_told, recalled });
        let width = container.name.chars().count().min(WIDEST_NAME);
        if self.sink.is_terminal && width > self.width {
            self.width = width;
            let known: Vec<(ContainerKey, Arc<Container>)> =
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
                let (before, now) = (sanitizer::safe(&before.name), sanitizer::safe(&container.name));
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

    /// Gathers lines and gaps of a batch from a line on. When that becomes too much at once: the line to go on with
    /// after a flush.
    pub fn lines(&mut self, batch: &Batch, from: usize) -> Result<Option<usize>, Error> {
        if let Some(route) = self.known.get(&batch.key).and_then(|known| known.recalled) {
            let filter = Filter { settings: &self.settings };
            if batch.lines.iter().any(|line| filter.shows(batch, line, &mut self.scratch)) {
                self.begin(batch.key, route)?;
            }
        }
        let mut at = from;
        for (before, gap) in batch.gaps.iter().filter(|(before, _)| *before >= from) {
            if let Some(next) = self.gather(batch, at, *before) {
                return Ok(Some(next));
            }
            at = *before;
            self.gap(batch.key, gap)?;
        }
        if let Some(next) = self.gather(batch, at, batch.lines.len()) {
            return Ok(Some(next));
        }
        self.progress.add(batch);
        Ok(None)
    }

    fn gather(&mut self, batch: &Batch, from: usize, to: usize) -> Option<usize> {
        // In steps, since short lines may have long prefixes.
        for start in (from..to).step_by(256) {
            if self.out.len() >= LARGEST_PART {
                return Some(start);
            }
            self.write_lines(batch, &batch.lines[start..to.min(start + 256)]);
        }
        None
    }

    fn write_lines(&mut self, batch: &Batch, lines: &[Line]) {
        // Whoever sends lines has introduced their container.
        let Some(known) = self.known.get(&batch.key) else { return };
        let filter = Filter { settings: &self.settings };
        if let Some(repeats) = &mut self.repeats {
            for line in lines.iter().filter(|line| filter.shows(batch, line, &mut self.scratch)) {
                let start = self.out.len();
                text::line(batch, line, &known.prefix, self.style, &mut self.stamp, &mut self.out);
                if repeats.take(&self.out[start..self.out.len() - 1], line.time) {
                    self.out.truncate(start);
                }
            }
            self.repeats.take_if(|repeats| repeats.is_over());
            return;
        }
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

    fn gap(&mut self, key: ContainerKey, gap: &Gap) -> Result<(), Error> {
        let lost = gap.lost_bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes of log"));
        let message = format!("{}{lost}", gap.reason.phrase());
        let Some(known) = self.known.get(&key) else { return Ok(()) };
        match &known.template {
            Some(template) => json::gap(gap, &message, template, Timestamp::now(), &mut self.out),
            None => {
                let name = sanitizer::safe(&known.container.name);
                self.notice_always(&format!("! {name}: {message}"), about(&name, Level::Warn, &message))?;
            }
        }
        Ok(())
    }

    fn name(&self, key: ContainerKey) -> String {
        self.known.get(&key).map_or_else(String::new, |known| sanitizer::safe(&known.container.name))
    }

    fn sign(&self, sign: char) -> String {
        if !self.settings.color.holds(diagnostics::is_on_terminal()) {
            return sign.to_string();
        }
        if sign == '+' { sign.green().to_string() } else { sign.red().to_string() }
    }

    fn notice(&mut self, line: &str, said: Diagnostic<'_>) -> Result<(), Error> {
        if self.settings.quiet { Ok(()) } else { self.notice_always(line, said) }
    }

    /// On stderr, behind the lines that came before it, where a terminal or a pipe may show both.
    fn notice_always(&mut self, line: &str, said: Diagnostic<'_>) -> Result<(), Error> {
        if self.settings.file.is_none() {
            self.flush()?;
        }
        self.progress.rest();
        diagnostics::notice(self.settings.log_format, line, said);
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
            crate::model::json::unescape(message, scratch);
            scratch
        } else {
            message
        };
        let matches = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(message));
        (include.is_empty() || matches(include)) && !matches(exclude)
    }
}
