//! Plays a sequence: what happens to the files, what the reader makes of it, and what the model says to that.
//!
//! In: a setup and actions. Out: what is wrong, if anything. Called by the tests. Whenever the reader has come to rest, all
//! that came is looked at; which records it can read then is known from the names in the folder and from what it has open.

use crate::engine::{self, Engine, Id, Name, Options};
use crate::model::{self, Model, Out};
use crate::reader::{Life, MAIN};
use logwatch::model::batch::{Encoding, Item};
use logwatch::model::cursor::Stream;
use logwatch::model::json;
use logwatch::model::position::Position;
use logwatch::model::time::Timestamp;
use logwatch::tail::{Command, Follow, Report, Start, Window};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What the engine reads of a line at once.
pub const BUFFER: usize = 16 * 1024;
/// How long an engine takes at least to fill a file while the reader runs.
const TICK: Duration = Duration::from_millis(5);
const ID: &str = "container";
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub options: Options,
    /// Bytes in the queue.
    pub limit: usize,
    pub max_line_size: usize,
    /// The reader runs while the engine writes, instead of where it is let.
    pub is_loose: bool,
    /// At the end, the container is removed before the reader has seen that it died.
    pub is_removed: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// The container writes lines: to one stream, or to both in turn.
    Write {
        lines: u8,
        to: Option<Stream>,
        size: usize,
        step: u32,
    },
    /// One more piece of a long line, or the first of a new one.
    Piece {
        to: Stream,
        size: usize,
    },
    /// A line of which the reader may see the first half alone.
    Torn {
        to: Stream,
    },
    /// The engine rotates, though the file is not full; `slowly`: the reader sees each step.
    Rotate {
        slowly: bool,
    },
    /// A step of packing the last rotated file.
    Pack,
    Truncate,
    CopyTruncate,
    Unlink,
    /// The container dies: with its lines written, in the middle of them, or with so many bytes without a newline.
    Die(Death),
    Start,
    /// The reader runs a little.
    Step,
    /// The reader runs until nothing is left to do.
    Rest,
    /// The output takes nothing.
    Hold,
    Release,
    /// The output remembers how far it is.
    Commit,
    /// We are killed.
    Crash,
    /// We run again; `by_time`: the place is lost.
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

/// A line whose last piece was not written yet.
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
    /// It had one in this life: where there is none of the live name, it waits for it.
    was_open: bool,
    /// It began where somebody had removed the live file, without a place to go on from, or opens its first file while the
    /// engine writes: what is made and removed before it has come to rest may be as old as what lies there.
    is_blind: bool,
    /// It goes on by time, and has not come to rest since.
    is_by_time: bool,
    /// Files that it has opened, or will before anything else happens.
    held: BTreeSet<Id>,
    /// Files of which it has seen something, so that it will see that they were truncated.
    touched: BTreeSet<Id>,
    /// Files that were truncated, and what was in them.
    truncated: Vec<(Id, Vec<usize>)>,
    /// Files that are gone, by the last record of each.
    removed: Vec<usize>,
    /// The last record that was read when a file was removed by hand that may not have been opened yet: where among the
    /// others it was cannot be known.
    vanished: Option<usize>,
    /// Files that were removed by hand.
    unlinked: BTreeSet<Id>,
    /// Deaths that the reader was told of.
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

    /// The whole of it: the container dies in the end, and everything has to have come.
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
            // Nobody lets both rotate: a copy counts as a file that the engine made.
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
                // Which files and lines are new is told by their times where nothing else is left to tell it.
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

    /// Not where only times tell: on a log that is being gone on with by time, and of a file that somebody removed or
    /// copied, whether what is left is older.
    fn may_set_back(&self) -> bool {
        let mut positions = self.latest.into_iter().chain(self.committed.map(|(_, position)| position));
        let is_by_time = self.is_by_time || positions.any(|position| position.place.is_none());
        !self.setup.is_loose && !is_by_time && self.unlinked.is_empty() && self.rotates()
    }

    fn rotates(&self) -> bool {
        self.setup.options.max_size < u64::MAX
    }

    /// So many microseconds pass.
    fn tick(&mut self, micros: u32) {
        self.now.0 += i64::from(micros) * 1000 + 1;
        if self.setup.is_loose {
            self.now = Timestamp::now();
        } else {
            self.engine.clock = Some(self.now);
        }
    }

    /// A new line, stamped by the writer of its stream: the two are not in order.
    fn begin(&mut self, stream: Stream, size: usize, may_share: bool) -> Open {
        let number = self.model.lines.len();
        let skew = (number as i64).wrapping_mul(7_919_000_017).rem_euclid(1_500_000_000);
        let last = &mut self.last[stream as usize];
        let text = text(number, size);
        // What has the time of a piece that got no newline, or whose rest is lost, is taken for its rest; and a file is
        // known by its first record, which may be the end of a line and no other.
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

    /// Writes the next piece of the line that is open.
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
            // No engine fills a file in less than the tick of the clock that files are stamped with.
            std::thread::sleep(TICK);
        }
        let live = self.engine.names.get(&Name::Live).map(|live| &self.engine.files[*live]);
        if self.setup.options.compress && live.is_some_and(|live| live.records.is_empty()) {
            // Packed, a file that was truncated and has no record is not found: it counts as lost, where the next is looked for.
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

    /// Somebody does something to the live file.
    fn change(&mut self, change: impl FnOnce(&mut Engine) -> Option<Id>) -> Played {
        let (before, files) = (self.names(), self.engine.files.clone());
        let truncated = change(&mut self.engine);
        self.lose(&before);
        if let Some(id) = truncated {
            let is_copied = self.names().len() > before.len();
            let last = files[id].records.last().copied().filter(|_| !is_copied);
            // A truncated file does not say whether anything was behind what was read, and a copy that is found by a crash
            // brings back what was told to be lost.
            self.model.doubts.push((last.unwrap_or(0), self.now(), "truncated"));
            // There is nothing to compare a file with of which nothing was read.
            if !self.touched.contains(&id) {
                files[id].records.iter().for_each(|record| self.model.fates[*record].is_silent = true);
            }
            // Nor while it may have been begun anew, or where a copy is taken for it.
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

    /// Remembers the files that lost their last name.
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
                // Should the file that was read last be among them, nothing shows what came behind it.
                self.model.doubts.push((self.now(), self.now(), "removed before it was opened again"));
            }
            if self.setup.is_loose {
                // A file that is made while the first is opened may be one of those told of before.
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
            // A file of which nothing was known but when it was made is not known again when it is packed.
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

    /// Whether all of a line has come.
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
        // After the clock was set back, times do not tell where to go on.
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
            // With no place nothing shows what was before the first line that is there, but on a stream whose last line has
            // to come again.
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
        // Of a file that it came to by another it may have seen nothing yet.
        self.touched.clear();
        // What happens before it has heard that its file is open is another matter.
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

    /// The reader has come to the end of all that the container wrote, and closed its files.
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
                Item::Place(_, position) => self.latest = Some(*position),
                _ => {}
            }
            life.finish(item);
        }
    }

    /// Lets the reader do all it can, then looks at what came.
    fn rest(&mut self) -> Played {
        self.run_until_quiet(3);
        // Nothing comes of files in between that are empty.
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
        // Nobody tells of what is written to a file without a name.
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
        // The engine goes on as if a file that was removed by hand had never been.
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
        self.model.check(&self.out, &readable).map_err(|wrong| format!("{wrong}\n{}", model::tell(&self.out)))
    }
}

/// What line number `number` says: its number where there is room, and characters of all kinds of escapes.
fn text(number: usize, size: usize) -> Vec<u8> {
    const KINDS: &[u8] = b"abcdefghij klmnop\"qr\\st<uvwxyz0123456789\t";
    let mut text = if size >= 8 { format!("{number:06} ").into_bytes() } else { Vec::new() };
    text.extend((text.len()..size).map(|at| KINDS[(number * 31 + at * (1 + number % 7)) % KINDS.len()]));
    text
}
