//! Turns items from the queue into bytes in the sink.
//!
//! The deliver thread calls it for each item, and flushes it when the queue is empty. The printer buffers its output,
//! so that many lines leave in large writes and a single line leaves immediately.

use super::json::{self, Template};
use super::repeats::Repeats;
use super::stamp::StampWriter;
use super::text::{self, Prefix};
use crate::model::batch::{Batch, ContainerKey, Gap, Item, Line};
use crate::model::container::Container;
use crate::model::line_id::Route;
use crate::model::time::Timestamp;
use crate::output::sanitizer::{self, Controls, Form};
use crate::output::sink::Sink;
use crate::output::stderr::diagnostics::{self, Diagnostic, Level};
use crate::output::stderr::history_progress::Progress;
use crate::output::{Ansi, Displaced, Error, OutputFormat, PrinterSettings};
use owo_colors::OwoColorize;
use regex::bytes::Regex;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Buffered bytes at which [`Printer::is_full`] asks for a flush although more items are waiting.
const FLUSH_SIZE: usize = 256 * 1024;
/// Buffered bytes at which even a single batch is written in several parts.
const MAX_BUFFERED: usize = 4 * 1024 * 1024;
/// The widest column of names. Longer names extend beyond it.
const MAX_NAME_WIDTH: usize = 32;

/// Formats items and writes them to stdout or FILE.
pub struct Printer {
    settings: PrinterSettings,
    sink: Sink,
    /// Formatted output that is not written yet; whole lines.
    out: Vec<u8>,
    stamp: StampWriter,
    progress: Progress,
    containers: HashMap<ContainerKey, KnownContainer>,
    style: text::Style,
    is_coloured: bool,
    /// Width of the column of names, at most [`MAX_NAME_WIDTH`]. It grows only on a terminal, and never shrinks.
    width: usize,
    /// Reused buffer for unescaped messages.
    scratch: Vec<u8>,
    /// Lines to skip, while there are any.
    repeats: Option<Repeats>,
    /// After a failed flush: how many bytes of the buffer are in the output.
    written: usize,
}

/// A file that replaces the current output file.
pub struct Successor(Sink);

impl Successor {
    /// The path and the file.
    pub fn file(&self) -> Option<(&Path, &File)> {
        self.0.regular_file()
    }

    /// Whether yet another file has taken its path already.
    pub fn is_displaced(&self) -> bool {
        self.0.displaced().is_some()
    }
}

/// A container that may send lines.
struct KnownContainer {
    container: Arc<Container>,
    prefix: Prefix,
    /// `Some` if the format is JSON.
    template: Option<Template>,
    /// Whether a notice said, under this name, that the container is being followed.
    is_announced: bool,
    /// The route by which the history of a stopped container is read, until its first line is printed.
    history_route: Option<Route>,
}

impl Printer {
    /// Opens stdout or FILE, which is created if it does not exist.
    pub fn open(settings: PrinterSettings) -> Result<Self, Error> {
        let form = match (settings.format, settings.ansi) {
            (OutputFormat::Json, _) => Form::Json,
            (OutputFormat::Text | OutputFormat::Raw, Ansi::Keep) => Form::Verbatim,
            (OutputFormat::Text | OutputFormat::Raw, Ansi::Auto | Ansi::Strip) => Form::Text,
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
            is_coloured: settings.color.is_enabled(is_terminal),
            progress: Progress::new(!is_terminal && settings.wants_status()),
            settings,
            sink,
            out: Vec::with_capacity(FLUSH_SIZE / 4),
            stamp: StampWriter::default(),
            containers: HashMap::new(),
            width: 0,
            scratch: Vec::new(),
            repeats: None,
            written: 0,
        })
    }

    /// Formats an item into the buffer. A large batch is partly flushed.
    pub fn take(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Lines(batch) => {
                let mut from = 0;
                while let Some(next) = self.lines(batch, from)? {
                    self.flush()?;
                    from = next;
                }
            }
            Item::Describe(key, container) => return self.add_container(*key, container),
            Item::StartAt(..) => {}
            Item::Followed(key, route, _) => {
                self.begin(*key, *route)?;
            }
            Item::History(key, route) => {
                if let Some(known) = self.containers.get_mut(key) {
                    known.history_route = Some(*route);
                }
            }
            Item::End(key, code) => {
                if self.containers.get_mut(key).and_then(|known| known.history_route.take()).is_some() {
                    return Ok(());
                }
                let name = self.name(*key);
                let code = code.map_or_else(String::new, |code| format!(" (exit {code})"));
                let line = format!("{} {name}{code}", self.sign('-'));
                self.notice(&line, container_diagnostic(&name, Level::Info, &format!("has ended{code}")))?;
            }
            Item::Removed(key) | Item::Deselected(key) => drop(self.containers.remove(key)),
            Item::Lifecycle(key, event) => {
                let template = self.containers.get(key).and_then(|known| known.template.as_ref());
                if let (true, Some(template)) = (self.settings.lifecycle, template) {
                    json::lifecycle(event, template, &mut self.out);
                }
            }
            Item::Notice(Some(key), text) => {
                let (name, text) = (self.name(*key), sanitizer::safe(text));
                self.notice(&format!("! {name}: {text}"), container_diagnostic(&name, Level::Warn, &text))?;
            }
            Item::Notice(None, text) => {
                let text = sanitizer::safe(text);
                self.notice(&text, Diagnostic::new(Level::Info, &text))?;
            }
        }
        Ok(())
    }

    /// Writes the buffer. When it returns `Ok`, the kernel has taken everything.
    pub fn flush(&mut self) -> Result<(), Error> {
        let result = self.sink.append(&self.out);
        self.out.clear();
        self.out.shrink_to(FLUSH_SIZE * 4);
        result.map_err(|(written, error)| {
            self.written = written;
            error
        })
    }

    /// From now on, removes a failed write from FILE completely.
    pub fn write_all_or_nothing(&mut self) {
        self.sink.all_or_nothing = true;
    }

    /// The bytes that are not written yet; whole lines.
    pub fn buffered(&self) -> &[u8] {
        &self.out
    }

    /// Whether the buffer should be flushed now.
    pub fn is_full(&self) -> bool {
        self.out.len() >= FLUSH_SIZE
    }

    /// After a failed flush: how many bytes of the buffer are in the output.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Skips these lines, which FILE already contains and which will be read again.
    pub fn skip(&mut self, repeats: Repeats) {
        self.repeats = Some(repeats);
    }

    /// Whether some of the lines to skip have not been seen yet.
    pub fn is_skipping(&self) -> bool {
        self.repeats.as_ref().is_some_and(|repeats| !repeats.is_over())
    }

    pub fn format(&self) -> OutputFormat {
        self.settings.format
    }

    /// Prints a notice that the user needs even with `--quiet`.
    pub fn announce(&mut self, text: &str) -> Result<(), Error> {
        self.notice_always(text, Diagnostic::new(Level::Info, text))
    }

    /// Prints a warning about loss or failure, even with `--quiet`.
    pub fn warn(&mut self, text: &str) -> Result<(), Error> {
        self.notice_always(text, Diagnostic::new(Level::Warn, text))
    }

    /// The output file and its path, if it is a regular file, which can be truncated and synced.
    pub fn file(&self) -> Option<(&Path, &File)> {
        self.sink.regular_file()
    }

    /// What happened to the output file, if it is no longer the one at its path.
    pub fn displaced(&self) -> Option<Displaced> {
        self.sink.displaced()
    }

    /// Opens the file that is now at the path, creating it if necessary, for [`Printer::replace`].
    pub fn successor(&self) -> Result<Successor, Error> {
        self.sink.reopen().map(Successor)
    }

    /// Sends the buffer and all further output to `by`.
    pub fn replace(&mut self, by: Successor) {
        self.sink = by.0;
    }

    /// How long to wait for items before calling [`Printer::hide_idle_status`]; `None` while no status is shown.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.progress.idle_timeout()
    }

    /// Removes the status line if no lines have arrived for a while.
    pub fn hide_idle_status(&mut self) {
        self.progress.hide_when_idle();
    }

    fn begin(&mut self, key: ContainerKey, route: Route) -> Result<(), Error> {
        if let Some(known) = self.containers.get_mut(&key) {
            (known.is_announced, known.history_route) = (true, None);
        }
        let (name, route) = (self.name(key), route.name());
        let line = format!("{} {name} ({route})", self.sign('+'));
        self.notice(&line, container_diagnostic(&name, Level::Info, &format!("is followed via {route}")))
    }

    fn add_container(&mut self, key: ContainerKey, container: &Arc<Container>) -> Result<(), Error> {
        let before =
            self.containers.get(&key).filter(|known| known.is_announced).map(|known| Arc::clone(&known.container));
        let is_announced = before.is_some();
        let history_route = self.containers.get(&key).and_then(|known| known.history_route);
        let is_json = self.settings.format == OutputFormat::Json;
        let template = is_json.then(|| Template::new(container, self.settings.metadata));
        let prefix = self.prefix(container);
        let known = KnownContainer { container: Arc::clone(container), prefix, template, is_announced, history_route };
        self.containers.insert(key, known);
        let width = container.name.chars().count().min(MAX_NAME_WIDTH);
        if self.sink.is_terminal && width > self.width {
            self.width = width;
            let containers: Vec<(ContainerKey, Arc<Container>)> =
                self.containers.iter().map(|(key, known)| (*key, Arc::clone(&known.container))).collect();
            for (key, container) in containers {
                let prefix = self.prefix(&container);
                if let Some(known) = self.containers.get_mut(&key) {
                    known.prefix = prefix;
                }
            }
        }
        match before.filter(|before| before.name != container.name) {
            Some(before) => {
                let (before, now) = (sanitizer::safe(&before.name), sanitizer::safe(&container.name));
                let message = format!("is now called {now}");
                self.notice(&format!("{before} {message}"), container_diagnostic(&before, Level::Info, &message))
            }
            None => Ok(()),
        }
    }

    fn prefix(&self, container: &Container) -> Prefix {
        match self.settings.format {
            OutputFormat::Text => Prefix::new(container, self.width, self.is_coloured),
            OutputFormat::Json | OutputFormat::Raw => Prefix::default(),
        }
    }

    /// Formats the lines and gaps of a batch into the buffer, starting with line number `from`. If the buffer becomes
    /// too large, returns the line to continue with after a flush.
    pub fn lines(&mut self, batch: &Batch, from: usize) -> Result<Option<usize>, Error> {
        if let Some(route) = self.containers.get(&batch.key).and_then(|known| known.history_route) {
            let filter = LineFilter { settings: &self.settings };
            if batch.lines.iter().any(|line| filter.shows(batch, line, &mut self.scratch)) {
                self.begin(batch.key, route)?;
            }
        }
        let mut at = from;
        for (before, gap) in batch.gaps.iter().filter(|(before, _)| *before >= from) {
            if let Some(next) = self.format_lines(batch, at, *before) {
                return Ok(Some(next));
            }
            at = *before;
            self.gap(batch.key, gap)?;
        }
        if let Some(next) = self.format_lines(batch, at, batch.lines.len()) {
            return Ok(Some(next));
        }
        self.progress.add(batch);
        Ok(None)
    }

    /// Formats a range of lines. Returns the first line that the buffer had no space for.
    fn format_lines(&mut self, batch: &Batch, from: usize, to: usize) -> Option<usize> {
        // Check the size regularly, because short lines may have long prefixes.
        for start in (from..to).step_by(256) {
            if self.out.len() >= MAX_BUFFERED {
                return Some(start);
            }
            self.format_chunk(batch, &batch.lines[start..to.min(start + 256)]);
        }
        None
    }

    fn format_chunk(&mut self, batch: &Batch, lines: &[Line]) {
        // `Item::Describe` precedes a container's lines, so it is known.
        let Some(known) = self.containers.get(&batch.key) else { return };
        let filter = LineFilter { settings: &self.settings };
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
        let Some(known) = self.containers.get(&key) else { return Ok(()) };
        match &known.template {
            Some(template) => json::gap(gap, &message, template, Timestamp::now(), &mut self.out),
            None => {
                let name = sanitizer::safe(&known.container.name);
                self.notice_always(
                    &format!("! {name}: {message}"),
                    container_diagnostic(&name, Level::Warn, &message),
                )?;
            }
        }
        Ok(())
    }

    fn name(&self, key: ContainerKey) -> String {
        self.containers.get(&key).map_or_else(String::new, |known| sanitizer::safe(&known.container.name))
    }

    fn sign(&self, sign: char) -> String {
        if !self.settings.color.is_enabled(diagnostics::is_stderr_terminal()) {
            return sign.to_string();
        }
        if sign == '+' { sign.green().to_string() } else { sign.red().to_string() }
    }

    fn notice(&mut self, line: &str, diagnostic: Diagnostic<'_>) -> Result<(), Error> {
        if self.settings.quiet { Ok(()) } else { self.notice_always(line, diagnostic) }
    }

    /// Writes a notice to stderr. Lines on stdout are flushed first, so that the order is right where both go to the
    /// same terminal or pipe.
    fn notice_always(&mut self, line: &str, diagnostic: Diagnostic<'_>) -> Result<(), Error> {
        if self.settings.file.is_none() {
            self.flush()?;
        }
        self.progress.hide();
        diagnostics::notice(self.settings.log_format, line, diagnostic);
        Ok(())
    }
}

fn container_diagnostic<'a>(name: &'a str, level: Level, message: &'a str) -> Diagnostic<'a> {
    Diagnostic { container_name: Some(name), ..Diagnostic::new(level, message) }
}

/// Decides which lines are printed: `--stream`, `--include` and `--exclude`.
struct LineFilter<'a> {
    settings: &'a PrinterSettings,
}

impl LineFilter<'_> {
    #[inline]
    fn shows(&self, batch: &Batch, line: &Line, scratch: &mut Vec<u8>) -> bool {
        let PrinterSettings { stream, include, exclude, .. } = self.settings;
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
