//! Plays a sequence of actions on the files, lets the reader read them, and has the model check the output.
//!
//! Whenever the reader is at rest, everything it delivered is checked. Which records it can read then is derived from
//! the names in the directory and from the files that it has open.

use crate::engine::{self, Engine, Id, Name, Options};
use crate::model::{self, Model, Out};
use crate::reader::{Life, MAIN};
use logwatch::internals::model::{Encoding, Item, Position, Stream, Timestamp, json};
use logwatch::internals::tail::{Command, Follow, Report, Start, Window};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The engine's buffer: how much of a line it reads at once, in bytes.
pub const BUFFER: usize = 16 * 1024;
/// The shortest time in which an engine fills a file while the reader runs.
const TICK: Duration = Duration::from_millis(5);
const ID: &str = "container";
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub options: Options,
    /// The limit of the queue, in bytes.
    pub limit: usize,
    pub max_line_size: usize,
    /// The reader runs while the engine writes, instead of only when an action lets it.
    pub is_loose: bool,
    /// In the end, the container is removed before the reader has noticed its death.
    pub is_removed: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// The container writes lines, to one stream or alternately to both.
    Write {
        lines: u8,
        to: Option<Stream>,
        size: usize,
        step: u32,
    },
    /// One more piece of a long line, or the first piece of a new one.
    Piece {
        to: Stream,
        size: usize,
    },
    /// A line of which the reader may see only the first half.
    Torn {
        to: Stream,
    },
    /// The engine rotates although the file is not full. With `slowly` the reader sees each step.
    Rotate {
        slowly: bool,
    },
    /// One step of compressing the last rotated file.
    Pack,
    Truncate,
    CopyTruncate,
    Unlink,
    /// The container dies: between two lines, in the middle of one, or after so many bytes without a newline.
    Die(Death),
    Start,
    /// The reader makes one pass.
    Step,
    /// The reader runs until nothing is left to do.
    Rest,
    /// The output accepts nothing.
    Hold,
    Release,
    /// The output commits its position.
    Commit,
    /// We are killed.
    Crash,
    /// We run again; with `by_time` the position in the file is lost.
    Resume {
        by_time: bool,
    },
    /// The clock is set back by an hour.
    SetBack,
    /// Nothing happens for a minute.
    Wait,
}

#[derive(Clone, Copy, Debug)]
pub enum Death {
    Whole,
    Cut,
    Open(usize),
}

/// A line whose last piece is still to be written.
#[derive(Debug)]
struct Open {
    line: usize,
    rest: VecDeque<(usize, bool)>,
    pieces: u32,
}

pub struct Play {
    setup: Setup,
    root: tempfile::TempDir,
    engine: Engine,
    model: Model,
    open: [Option<Open>; 2],
    now: Timestamp,
    last: [Timestamp; 2],
    was_set_back: bool,
    life: Option<Life>,
    /// The reader has a file open.
    is_open: bool,
    /// It had a file open in this run: when no live file exists, it waits for one.
    was_open: bool,
    /// It started without a position where somebody had removed the live file, or it opens its first file while the
    /// engine writes. A file that comes and goes before it is at rest may then be as old as the existing ones.
    is_blind: bool,
    /// It resumed by time, and has not been at rest since.
    is_by_time: bool,
    /// The files that it has opened, or will open before anything else happens.
    held: BTreeSet<Id>,
    /// The files of which it has seen a part, so that it will notice a truncation.
    touched: BTreeSet<Id>,
    /// The files that were truncated, and their records.
    truncated: Vec<(Id, Vec<usize>)>,
    /// The last record of each file that has vanished.
    removed: Vec<usize>,
    /// The last record that was read when a file was removed by hand that may not have been open. Where that file
    /// belonged among the others cannot be known.
    vanished: Option<usize>,
    /// The files that were removed by hand.
    unlinked: BTreeSet<Id>,
    /// How many deaths the reader was notified of.
    deaths: usize,
    is_holding: bool,
    out: Vec<Out>,
    latest: Option<Position>,
    committed: Option<(usize, Position)>,
}

pub type Played = Result<(), String>;

impl Play {
    pub fn new(setup: Setup) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(ID);
        fs::create_dir(&folder).unwrap();
        let engine = Engine::new(&folder, ID, setup.options);
        let model = Model::new(setup.max_line_size, !setup.is_loose);
        let now = Timestamp::now();
        Play {
            setup,
            root,
            engine,
            model,
            open: [None, None],
            now,
            last: [Timestamp(0); 2],
            was_set_back: false,
            life: None,
            is_open: false,
            was_open: false,
            is_blind: false,
            is_by_time: false,
            held: BTreeSet::new(),
            touched: BTreeSet::new(),
            truncated: Vec::new(),
            removed: Vec::new(),
            vanished: None,
            unlinked: BTreeSet::new(),
            deaths: 0,
            is_holding: false,
            out: Vec::new(),
            latest: None,
            committed: None,
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join(ID)
    }

    /// Plays the whole sequence: in the end the container dies, and everything must have come.
    pub fn play(mut self, actions: &[Action]) -> Played {
        self.start()?;
        self.resume(false)?;
        for action in actions {
            self.act(*action)?;
        }
        self.is_holding = false;
        self.resume(false)?;
        if self.setup.is_removed {
            self.rest()?;
        }
        self.die(Death::Whole)?;
        if self.setup.is_removed {
            let (folder, before) = (self.folder(), self.names());
            self.engine.remove_all(&folder);
            self.lose(&before);
        }
        self.rest()
    }

    fn act(&mut self, action: Action) -> Played {
        self.tick(1000);
        match action {
            Action::Write { .. } | Action::Piece { .. } | Action::Torn { .. } if !self.engine.is_running() => Ok(()),
            Action::Write { lines, to, size, step } => {
                for number in 0..usize::from(lines) {
                    let stream = to.unwrap_or(STREAMS[number % 2]);
                    self.finish_line(stream)?;
                    self.tick(step);
                    let line = self.begin(stream, size, step == 0 && number > 1);
                    self.open[stream as usize] = Some(line);
                    self.finish_line(stream)?;
                }
                Ok(())
            }
            Action::Piece { to, size } => {
                if self.open[to as usize].is_none() {
                    self.open[to as usize] = Some(self.begin(to, size, false));
                }
                self.piece(to, false)
            }
            Action::Torn { to } => {
                self.finish_line(to)?;
                self.open[to as usize] = Some(self.begin(to, 30, false));
                self.piece(to, true)
            }
            Action::Rotate { slowly } if self.rotates() && !self.engine.is_empty() => self.rotate(slowly),
            Action::Rotate { .. } => Ok(()),
            Action::Pack => {
                self.engine.pack();
                Ok(())
            }
            Action::Truncate => self.change(|engine| engine.truncate()),
            // Nobody uses both kinds of rotation: a copy counts as a file that the engine made.
            Action::CopyTruncate if !self.rotates() => self.change(Engine::copy_and_truncate),
            Action::CopyTruncate => Ok(()),
            Action::Unlink if !self.was_set_back && !self.setup.options.compress => {
                self.unlinked.extend(self.engine.names.get(&Name::Live));
                let read = self.model.fates.iter().rposition(|fate| fate.is_read).unwrap_or(0);
                self.vanished.get_or_insert(read);
                self.change(|engine| {
                    engine.remove(Name::Live);
                    None
                })
            }
            Action::Die(death) if self.engine.is_running() => self.die(death),
            Action::Start if !self.engine.is_running() => self.start(),
            Action::Die(_) | Action::Start => Ok(()),
            Action::Step => self.step(),
            Action::Rest => self.rest(),
            Action::Hold => {
                self.is_holding = true;
                Ok(())
            }
            Action::Release => {
                self.is_holding = false;
                Ok(())
            }
            Action::Commit => {
                self.committed = self.latest.map(|position| (self.out.len(), position)).or(self.committed);
                Ok(())
            }
            Action::Crash => {
                self.crash();
                Ok(())
            }
            Action::Resume { by_time } => self.resume(by_time),
            Action::SetBack if self.may_set_back() => {
                self.now.0 -= 3_600_000_000_000;
                self.last = [Timestamp(0); 2];
                self.was_set_back = true;
                // Where nothing else is left, the times of files and lines show which are new.
                self.model.is_strict = false;
                Ok(())
            }
            Action::Wait if !self.setup.is_loose => {
                self.tick(60_000_000);
                Ok(())
            }
            Action::Unlink | Action::SetBack | Action::Wait => Ok(()),
        }
    }

    /// Not where only times show it: on a log that is resumed by time, or when somebody removed or copied a file, they
    /// must show whether the remaining one is older.
    fn may_set_back(&self) -> bool {
        let mut positions = self.latest.into_iter().chain(self.committed.map(|(_, position)| position));
        let is_by_time = self.is_by_time || positions.any(|position| position.place.is_none());
        !self.setup.is_loose && !is_by_time && self.unlinked.is_empty() && self.rotates()
    }

    fn rotates(&self) -> bool {
        self.setup.options.max_size < u64::MAX
    }

    /// Advances the clock by so many microseconds.
    fn tick(&mut self, micros: u32) {
        self.now.0 += i64::from(micros) * 1000 + 1;
        if self.setup.is_loose {
            self.now = Timestamp::now();
        } else {
            self.engine.clock = Some(self.now);
        }
    }

    /// Begins a new line, stamped by the writer of its stream. The stamps of the two writers are not in order.
    fn begin(&mut self, stream: Stream, size: usize, may_share: bool) -> Open {
        let number = self.model.lines.len();
        let skew = (number as i64).wrapping_mul(7_919_000_017).rem_euclid(1_500_000_000);
        let last = &mut self.last[stream as usize];
        let text = text(number, size);
        // A line with the time of an unfinished piece is taken for the rest of that, and a file is identified by its
        // first record, which may be only the end of a line.
        let before = self.model.lines.iter().rev().find(|line| line.stream == stream);
        let may_share = may_share && before.is_some_and(|line| line.has_end && line.pieces.len() == 1);
        *last = match may_share && (8..BUFFER).contains(&size) && last.0 > 0 && !number.is_multiple_of(4) {
            true => *last,
            false => Timestamp((self.now.0 + skew - 1_000_000_000).max(last.0 + 1)),
        };
        let whole = text.len() / BUFFER;
        let mut rest: VecDeque<(usize, bool)> = (1..=whole).map(|piece| (piece * BUFFER, false)).collect();
        rest.push_back((text.len(), true));
        Open { line: self.model.add(stream, *last, text), rest, pieces: 0 }
    }

    fn finish_line(&mut self, stream: Stream) -> Played {
        while self.open[stream as usize].is_some() && self.engine.is_running() {
            self.piece(stream, false)?;
        }
        Ok(())
    }

    /// Writes the next piece of the unfinished line.
    fn piece(&mut self, stream: Stream, is_torn: bool) -> Played {
        let Some((end, ends)) = self.open[stream as usize].as_mut().and_then(|open| open.rest.pop_front()) else {
            return Ok(());
        };
        self.write(stream, end, ends, is_torn)
    }

    fn write(&mut self, stream: Stream, end: usize, ends: bool, is_torn: bool) -> Played {
        if !self.engine.is_running() {
            self.open[stream as usize] = None;
            return Ok(());
        }
        if self.engine.must_rotate() {
            self.rotate(false)?;
        }
        self.tick(1);
        let Some(open) = self.open[stream as usize].as_mut() else { return Ok(()) };
        open.pieces += 1;
        let (line, ordinal) = (open.line, (open.pieces > 1 || !ends).then_some(open.pieces));
        let start = self.model.lines[line].pieces.last().map_or(0, |piece| piece.1);
        let number = self.model.record(line, end);
        self.model.fates[number].is_silent = self.is_blind;
        let written = &mut self.model.lines[line];
        (written.is_over, written.has_end) = (ends, ends);
        let record = engine::Record { stream, time: written.time, text: &written.text[start..end], ordinal, ends };
        let (life, touched, files) = (&mut self.life, &mut self.touched, self.engine.files.clone());
        let mut halfway = || {
            if let Some(life) = life {
                life.pass();
                touched.retain(|id| !files[*id].records.is_empty());
            }
        };
        self.engine.write(number, record, is_torn.then_some(&mut halfway as &mut dyn FnMut()));
        if ends {
            self.open[stream as usize] = None;
        }
        Ok(())
    }

    fn rotate(&mut self, slowly: bool) -> Played {
        if self.setup.is_loose {
            // No engine fills a file in less than a tick of the clock that stamps files.
            std::thread::sleep(TICK);
        }
        let live = self.engine.names.get(&Name::Live).map(|live| &self.engine.files[*live]);
        if self.setup.options.compress && live.is_some_and(|live| live.records.is_empty()) {
            // A truncated and compressed file without a record is not found: where the next one is looked for, it
            // counts as lost.
            self.model.doubts.push((self.now(), usize::MAX, "packed when it was empty"));
        }
        for step in self.engine.rotation() {
            let before = self.names();
            self.engine.take(step);
            self.lose(&before);
            if slowly {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Somebody changes the live file by hand.
    fn change(&mut self, change: impl FnOnce(&mut Engine) -> Option<Id>) -> Played {
        let (before, files) = (self.names(), self.engine.files.clone());
        let truncated = change(&mut self.engine);
        self.lose(&before);
        if let Some(id) = truncated {
            let is_copied = self.names().len() > before.len();
            let last = files[id].records.last().copied().filter(|_| !is_copied);
            // A truncated file does not show whether anything followed the part that was read, and a copy found after a
            // crash brings back lines that were reported as lost.
            self.model.doubts.push((last.unwrap_or(0), self.now(), "truncated"));
            // A file of which nothing was read cannot be compared.
            if !self.touched.contains(&id) {
                files[id].records.iter().for_each(|record| self.model.fates[*record].is_silent = true);
            }
            // Nor while it may have been started again, or where a copy is taken for it.
            if self.setup.is_loose || self.life.is_none() && is_copied {
                self.touched.remove(&id);
            }
            self.truncated.push((id, files[id].records.clone()));
        }
        Ok(())
    }

    fn names(&self) -> BTreeSet<Id> {
        self.engine.names.values().copied().collect()
    }

    /// The number of the next record.
    fn now(&self) -> usize {
        self.model.fates.len()
    }

    /// Records which files have lost their last name.
    fn lose(&mut self, before: &BTreeSet<Id>) {
        for id in before.difference(&self.names()) {
            let from = self.engine.files[*id].records.last().copied().unwrap_or(0);
            self.removed.push(from);
            if self.is_blind {
                self.engine.files[*id].records.iter().for_each(|record| self.model.fates[*record].is_silent = true);
            }
            if !self.held.contains(id) {
                self.model.doubts.push((from, self.now(), "removed before it was opened"));
            }
        }
    }

    fn start(&mut self) -> Played {
        self.engine.start();
        if self.life.is_some() {
            self.touched.clear();
            let live = self.engine.names.get(&Name::Live).map(|live| &self.engine.files[*live]);
            if self.setup.options.compress && live.is_some_and(|live| live.records.is_empty()) {
                self.model.doubts.push((self.now(), self.now(), "packed when only its birth was known"));
            }
            if !std::mem::take(&mut self.removed).is_empty() {
                // If the file read last is among them, nothing shows what came after it.
                self.model.doubts.push((self.now(), self.now(), "removed before it was opened again"));
            }
            if self.setup.is_loose {
                // A file that is created while the first one is opened may be one of those announced before.
                self.is_blind = true;
                self.model.doubts.push((self.now(), self.now() + 30, "rotated while it was opened"));
            }
            self.follow(None)?;
        }
        Ok(())
    }

    fn die(&mut self, death: Death) -> Played {
        for stream in STREAMS {
            match death {
                Death::Whole => self.finish_line(stream)?,
                Death::Cut => {}
                Death::Open(size) => {
                    let open = match self.open[stream as usize].take() {
                        Some(open) => open,
                        None => self.begin(stream, size.max(1), false),
                    };
                    let from = self.model.lines[open.line].pieces.last().map_or(0, |piece| piece.1);
                    let end = (from + size.max(1)).min(self.model.lines[open.line].text.len());
                    self.open[stream as usize] = Some(open);
                    if end > from {
                        self.write(stream, end, false, false)?;
                    }
                }
            }
            if let Some(open) = self.open[stream as usize].take() {
                self.model.lines[open.line].is_over = true;
            }
        }
        self.engine.stop();
        if let Some(life) = &self.life {
            life.send(Command::Finish(MAIN, vec![Item::End(MAIN, None)]));
            self.deaths += 1;
        }
        Ok(())
    }

    fn follow(&mut self, position: Option<Position>) -> Played {
        let Some(life) = &self.life else { return Ok(()) };
        life.send(Command::Follow(Box::new(Follow {
            key: MAIN,
            id: ID.to_owned(),
            folder: self.folder(),
            start: Start::All,
            position,
            window: Window::default(),
            max_line_size: self.setup.max_line_size,
            once: false,
            is_held: false,
            on_open: Vec::new(),
        })));
        Ok(())
    }

    fn crash(&mut self) {
        if self.life.take().is_none() {
            return;
        }
        (self.is_open, self.was_open) = (false, false);
        self.held.clear();
        self.deaths = 0;
        self.out.truncate(self.committed.as_ref().map_or(0, |committed| committed.0));
        self.latest = self.committed.map(|committed| committed.1);
        let known: Vec<bool> = self.model.of.iter().map(|line| self.is_out(*line)).collect();
        self.model.fates.iter_mut().for_each(|fate| fate.is_read = false);
        self.model.lines.iter_mut().for_each(|line| line.is_flushed = false);
        let files = &self.engine.files;
        self.touched.retain(|id| files[*id].records.iter().any(|record| known[*record]));
        if self.setup.options.compress
            && self.committed.is_some_and(|(_, position)| position.place.is_some_and(|place| place.offset == 0))
        {
            // A file of which only the creation time was known is not recognised once it is compressed.
            self.removed.push(0);
        }
        for (_, records) in self.truncated.iter().filter(|(id, _)| !self.touched.contains(id)) {
            records.iter().for_each(|record| self.model.fates[*record].is_silent = true);
        }
        let now = self.now();
        for from in self.removed.drain(..) {
            self.model.doubts.push((from, now, "removed"));
        }
    }

    /// Whether all of a line was delivered.
    fn is_out(&self, line: usize) -> bool {
        let line = &self.model.lines[line];
        let parts = self.out.iter().filter_map(|out| match out {
            Out::Line(cursor, text) if (cursor.stream, cursor.time) == (line.stream, line.time) => Some(text.len()),
            _ => None,
        });
        let (count, size) = parts.fold((0, 0), |(count, size), part| (count + 1, size + part));
        count > 0 && size >= line.pieces.last().map_or(0, |piece| piece.1)
    }

    fn resume(&mut self, by_time: bool) -> Played {
        if self.life.is_some() {
            return Ok(());
        }
        self.life =
            Some(Life::begin(&self.root.path().join("markers"), self.setup.limit, self.setup.is_loose).unwrap());
        // After the clock was set back, times do not show where to resume.
        let by_time = by_time && !self.was_set_back;
        let position = self.committed.map(|(_, position)| match by_time {
            true => Position { place: None, ..position },
            false => position,
        });
        if position.is_none() {
            self.model.origin = match self.engine.names.contains_key(&Name::Live) {
                true => self.on_disk().first().copied().unwrap_or(self.now()),
                false => self.now(),
            };
        }
        self.is_by_time = position.is_some_and(|position| position.place.is_none());
        self.is_blind = self.setup.is_loose;
        if position.is_none_or(|position| position.place.is_none()) {
            self.is_blind |= !self.engine.names.contains_key(&Name::Live);
            // Without a position nothing shows what came before the first available line, except on a stream whose last
            // line must come again.
            let resume = position.map(|position| position.resume).unwrap_or_default();
            let shows = resume.seen.map(|seen| seen.is_some_and(|seen| Some(seen.time) >= resume.since));
            let there = self.on_disk();
            for (record, fate) in self.model.fates.iter_mut().enumerate() {
                let stream = self.model.lines[self.model.of[record]].stream;
                fate.is_silent |= !there.contains(&record) && !shows[stream as usize];
            }
        }
        self.follow(position)?;
        if !self.engine.is_running()
            && let Some(life) = &self.life
        {
            life.send(Command::Finish(MAIN, vec![Item::End(MAIN, None)]));
            self.deaths += 1;
        }
        // It may have seen nothing yet of a file that it reached from another one.
        self.touched.clear();
        // What happens before it is notified that its file is open is another case.
        self.step()?;
        self.step()
    }

    fn on_disk(&self) -> BTreeSet<usize> {
        let files = self.names().into_iter().map(|id| &self.engine.files[id]).filter(|file| !file.is_copy);
        files.flat_map(|file| file.records.iter().copied()).collect()
    }

    fn step(&mut self) -> Played {
        let Some(life) = &mut self.life else { return Ok(()) };
        life.pass();
        let files = &self.engine.files;
        self.touched.retain(|id| !files[*id].records.is_empty());
        if self.has_ended() {
            self.is_open = false;
            self.held.clear();
        }
        self.consume();
        Ok(())
    }

    /// The reader has reached the end of everything the container wrote, and closed its files.
    fn has_ended(&self) -> bool {
        let ends = self.life.as_ref().map_or(0, |life| life.ends);
        self.deaths > 0 && self.deaths == ends && !self.engine.is_running()
    }

    fn consume(&mut self) {
        let Some(life) = self.life.as_mut().filter(|_| !self.is_holding) else { return };
        while let Some(item) = life.taken.pop_front() {
            match &item {
                Item::Lines(batch) => {
                    for at in 0..=batch.lines.len() {
                        let gaps = batch.gaps.iter().filter(|(before, _)| *before == at);
                        self.out.extend(gaps.map(|(_, gap)| Out::Gap(gap.reason)));
                        if let Some(line) = batch.lines.get(at) {
                            let mut text = Vec::new();
                            match line.encoding {
                                Encoding::Json | Encoding::Surrogates => json::unescape(batch.text(line), &mut text),
                                Encoding::Plain | Encoding::Raw => text.extend(batch.text(line)),
                            }
                            self.out.push(Out::Line(line.cursor(), text));
                        }
                    }
                    self.latest = batch.position.or(self.latest);
                }
                Item::StartAt(_, position) => self.latest = Some(*position),
                _ => {}
            }
            life.finish(item);
        }
    }

    /// Lets the reader do everything it can, then checks the output.
    fn rest(&mut self) -> Played {
        self.run_until_quiet(3);
        // Empty files in between have no effect.
        self.settle().or_else(|_| {
            self.run_until_quiet(20);
            self.settle()
        })
    }

    fn run_until_quiet(&mut self, passes: u32) {
        let mut quiet = 0;
        while quiet < passes {
            let Some(life) = &mut self.life else { return };
            quiet = if life.pass() == 0 { quiet + 1 } else { 0 };
            self.consume();
        }
    }

    fn settle(&mut self) -> Played {
        let Some(life) = &self.life else { return Ok(()) };
        for report in life.reports.try_iter() {
            match report {
                Report::Finished(MAIN) => {}
                other => return Err(format!("the reader reports {other:?}")),
            }
        }
        let has_ended = self.has_ended();
        let has_live = self.engine.names.contains_key(&Name::Live);
        self.is_open |= has_live && !has_ended;
        self.was_open |= has_live;
        self.is_blind &= !has_live;
        self.is_by_time &= !has_live || self.is_holding;
        if self.is_open {
            self.held.extend(self.names());
        }
        if has_ended && self.is_holding {
            self.is_open = false;
            self.held.clear();
        }
        if self.is_holding || !self.was_open || !self.is_open && !has_ended {
            return Ok(());
        }
        let mut readable = self.on_disk();
        let hidden = self.engine.hidden();
        // inotify does not report writes to a file without a name.
        let held = self.held.iter().filter(|id| Some(**id) != hidden).map(|id| &self.engine.files[*id]);
        readable.extend(held.filter(|file| !file.is_copy).flat_map(|file| file.records.iter().copied()));
        let late: BTreeSet<usize> = hidden
            .filter(|id| self.held.contains(id))
            .map(|id| self.engine.files[id].records.iter().copied().collect())
            .unwrap_or_default();
        for (record, fate) in self.model.fates.iter_mut().enumerate() {
            fate.is_read |= readable.contains(&record) && !fate.is_gone;
            fate.is_gone |= !fate.is_read && !late.contains(&record);
        }
        if let Some(from) = self.vanished.take() {
            self.model.doubts.push((from, self.now(), "removed by hand"));
        }
        // The engine continues as if the file that was removed by hand had never existed.
        for record in self.unlinked.difference(&self.held).flat_map(|id| &self.engine.files[*id].records) {
            self.model.fates[*record].is_silent = true;
        }
        if has_ended {
            for line in &mut self.model.lines {
                line.is_flushed |= line.pieces.iter().all(|(record, _)| self.model.fates[*record].is_read);
            }
            self.is_open = false;
            self.held.clear();
        }
        let (files, fates) = (&self.engine.files, &self.model.fates);
        self.touched =
            (0..files.len()).filter(|id| files[*id].records.iter().any(|record| fates[*record].is_read)).collect();
        self.model.check(&self.out, &readable).map_err(|wrong| format!("{wrong}\n{}", model::describe(&self.out)))
    }
}

/// The text of line `number`: its number if there is space for it, then characters with all kinds of escapes.
fn text(number: usize, size: usize) -> Vec<u8> {
    const KINDS: &[u8] = b"abcdefghij klmnop\"qr\\st<uvwxyz0123456789\t";
    let mut text = if size >= 8 { format!("{number:06} ").into_bytes() } else { Vec::new() };
    text.extend((text.len()..size).map(|at| KINDS[(number * 31 + at * (1 + number % 7)) % KINDS.len()]));
    text
}
