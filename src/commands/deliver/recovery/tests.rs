//! Model test: any sequence of writes, kills, rotations, restored backups and power failures.

use super::*;
use crate::commands::deliver::wal::{self, Wal};
use crate::model::line_id::Stream;
use proptest::prelude::*;
use std::collections::HashSet;

/// One step of a test: something happens to a run or to its files.
#[derive(Clone, Debug)]
enum Op {
    /// A container's lines are written: index of the container, number of lines.
    Write(u64, u64),
    /// Everything written is synced and committed.
    Commit,
    /// Another program appends a line to FILE.
    Foreign,
    /// The run ends regularly.
    End,
    /// The run is killed during a write of a container's lines, when this percentage of the bytes is in FILE. 101 means
    /// that not even the log has them.
    Kill(u64, u64, usize),
    /// FILE is moved away while no run is active.
    Move,
    /// FILE is copied and truncated while no run is active, like logrotate's `copytruncate`.
    CopyTruncate,
    /// The state is replaced by a backup that is this many commits old.
    Restore(usize),
    /// The power fails. Of the unsynced part of FILE this percentage is left, followed by NULs if the flag is set, and
    /// of each segment of the log the other percentages.
    PowerCut(usize, bool, [usize; 2]),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..3_u64, 1..5_u64).prop_map(|(container, lines)| Op::Write(container, lines)),
        3 => Just(Op::Commit),
        2 => Just(Op::Foreign),
        1 => Just(Op::End),
        3 => (0..3_u64, 1..5_u64, 0..102_usize).prop_map(|(container, lines, share)| Op::Kill(container, lines, share)),
        1 => Just(Op::Move),
        1 => Just(Op::CopyTruncate),
        1 => (0..4_usize).prop_map(Op::Restore),
        1 => (0..101_usize, any::<bool>(), [0..101_usize, 0..101]).prop_map(|(file, nul, log)| Op::PowerCut(file, nul, log)),
    ];
    prop::collection::vec(op, 1..40)
}

/// Content of the state: the output and the positions.
type Committed = (Option<SavedOutput>, HashMap<String, Saved>);

struct Model {
    folder: tempfile::TempDir,
    format: OutputFormat,
    state: Committed,
    backups: Vec<Committed>,
    run: Option<ModelRun>,
    /// Lines of any program that were complete in FILE at some time and that no power failure has removed.
    ever: HashSet<String>,
    /// Number of lines by other programs.
    foreign: u64,
    /// Number of files `out.1`, `out.2`, ..: moved ones and copies.
    moves: u64,
    /// FILE is to be moved away before the next run.
    is_moved: bool,
    has_power_failed: bool,
    /// The last run was killed in a write.
    is_unfinished: bool,
    /// FILE was copied and truncated since the last run.
    is_copied: bool,
    /// Number of copies made by [`Op::CopyTruncate`].
    copies: u64,
}

struct ModelRun {
    file: File,
    wal: Wal,
    positions: HashMap<String, Saved>,
    repeats: Option<Repeats>,
    sequence: u64,
    /// Length of FILE that survives a power failure.
    synced: u64,
    /// The run began after a power failure and has not committed since.
    is_fresh: bool,
}

/// Returns the number of the last line of a container that the positions include.
fn seen(positions: &HashMap<String, Saved>, container: &str) -> u64 {
    let seen = positions.get(container).and_then(|saved| saved.position.resume.seen[0]);
    seen.map_or(0, |seen| seen.time.0.cast_unsigned())
}

fn line(format: OutputFormat, container: &str, number: u64) -> String {
    match format {
        OutputFormat::Json => format!(
            "{{\"type\":\"log\",\"container_id\":\"{container}\",\"container_name\":\"{container}\",\"source\":\"file\",\"cursor\":\"{number}-o0\"}}\n"
        ),
        _ => format!("{container} | line {number}\n"),
    }
}

fn saved(container: &str, number: u64) -> Saved {
    let mut resume = TimePosition::at(None);
    let time = Timestamp(number.cast_signed());
    resume.advance(Cursor { time, stream: Stream::Stdout, ordinal: 0 });
    Saved { name: container.into(), position: Position { route: Route::File, resume, place: None }, ended: false }
}

impl Model {
    fn new(format: OutputFormat) -> Self {
        Model {
            folder: tempfile::tempdir().unwrap(),
            format,
            state: (None, HashMap::new()),
            backups: Vec::new(),
            run: None,
            ever: HashSet::new(),
            foreign: 0,
            moves: 0,
            is_moved: false,
            has_power_failed: false,
            is_unfinished: false,
            is_copied: false,
            copies: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("state.wal")
    }

    /// Returns the complete lines of all files except FILE.damaged.
    fn lines(&self) -> Vec<String> {
        let names = (1..=self.moves).map(|turn| self.folder.path().join(format!("out.{turn}"))).chain([self.path()]);
        let text: String = names.map(|name| fs::read_to_string(name).unwrap_or_default()).collect();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n') && !line.trim().is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn remember_lines(&mut self) {
        let lines: Vec<String> = self.lines().into_iter().filter(|line| self.is_intact(line)).collect();
        self.ever.extend(lines);
    }

    fn ends_with_newline(&self) -> bool {
        fs::read(self.path()).unwrap_or_default().ends_with(b"\n")
    }

    /// Returns whether this is one line, not the beginning of one followed by another.
    fn is_intact(&self, line: &str) -> bool {
        match self.format {
            OutputFormat::Json => serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok(),
            _ => {
                let foreign = line.strip_prefix("note ");
                let ours = || line.strip_prefix('c').and_then(|line| line.get(1..)?.strip_prefix(" | line "));
                foreign.or_else(ours).is_some_and(|number| number.trim_end().parse::<u64>().is_ok())
            }
        }
    }

    fn start(&mut self) {
        if self.run.is_some() {
            return;
        }
        if std::mem::take(&mut self.is_moved) && self.path().exists() {
            self.moves += 1;
            fs::rename(self.path(), self.folder.path().join(format!("out.{}", self.moves))).unwrap();
        }
        (self.is_unfinished, self.is_copied) = (false, false);
        let path = self.path();
        let file = File::options().append(true).create(true).open(&path).unwrap();
        let mut found = wal::read(&self.log(), &self.log());
        let is_fresh = std::mem::take(&mut self.has_power_failed);
        if is_fresh {
            found.mount = "another boot".into();
        }
        let mut positions = self.state.1.clone();
        let recovery = Recovery { path: &path, file: &file, known: self.state.0, found, format: self.format };
        let recovered = recovery.run(&mut positions).unwrap();
        let id = file_ref(&file).unwrap();
        let length = file.metadata().unwrap().len();
        let end = recovered.unproven_from.unwrap_or(file.metadata().unwrap().len());
        self.save(&file, end, &positions, recovered.sequence, false);
        let wal = Wal::start(&self.log(), &self.log(), recovered.sequence, positions.clone(), (id, end)).unwrap();
        let sequence = wal.sequence();
        self.run =
            Some(ModelRun { file, wal, positions, repeats: recovered.repeats, sequence, synced: length, is_fresh });
        self.check();
        // Lines that only FILE itself proves are read again at once, before any other run.
        self.read_repeats();
    }

    fn read_repeats(&mut self) {
        for _ in 0..40 {
            if self.run.as_ref().and_then(|run| run.repeats.as_ref()).is_none_or(Repeats::is_over) {
                break;
            }
            (0..3).for_each(|container| self.write(container, 1, 100));
        }
    }

    fn save(&mut self, file: &File, length: u64, positions: &HashMap<String, Saved>, sequence: u64, is_closed: bool) {
        let id = file_ref(file).unwrap();
        let FileRef { device, id: FileId { inode, born, .. } } = id;
        let output = SavedOutput { device, inode, length, is_closed, born, sequence };
        self.backups.push(self.state.clone());
        self.state = (Some(output), positions.clone());
    }

    /// Returns the next lines of a container, and its position after them.
    fn next(&mut self, container: u64, count: u64) -> (String, HashMap<String, PositionChange>) {
        let (format, container) = (self.format, format!("c{container}"));
        let run = self.run.as_mut().unwrap();
        let from = seen(&run.positions, &container);
        let mut bytes = String::new();
        for number in from + 1..=from + count {
            let line = line(format, &container, number);
            let time = Timestamp(number.cast_signed());
            let is_repeat = run.repeats.as_mut().is_some_and(|repeats| repeats.take(line.trim_end().as_bytes(), time));
            if !is_repeat {
                bytes.push_str(&line);
            }
        }
        let change = PositionChange::Saved(saved(&container, from + count));
        (bytes, HashMap::from([(container, change)]))
    }

    fn write(&mut self, container: u64, count: u64, share: usize) {
        let (bytes, changes) = self.next(container, count);
        let run = self.run.as_mut().unwrap();
        if share > 100 {
            return;
        }
        let (id, end) = (file_ref(&run.file).unwrap(), run.file.metadata().unwrap().len());
        run.wal.append(id, end, &changes, bytes.as_bytes()).unwrap();
        (&run.file).write_all(&bytes.as_bytes()[..bytes.len() * share / 100]).unwrap();
        changes.iter().for_each(|(id, change)| apply(&mut run.positions, id, change));
        run.sequence = run.wal.sequence();
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Write(container, count) => {
                self.start();
                self.write(*container, *count, 100);
            }
            Op::Commit | Op::End => {
                self.start();
                let run = self.run.take().unwrap();
                let end = run.file.metadata().unwrap().len();
                self.save(&run.file, end, &run.positions, run.sequence, matches!(op, Op::End));
                let mut run = run;
                run.wal.commit(run.sequence).unwrap();
                if matches!(op, Op::End) {
                    run.wal.clear().unwrap();
                } else {
                    self.run = Some(run);
                    let run = self.run.as_mut().unwrap();
                    (run.synced, run.is_fresh) = (end, false);
                }
            }
            Op::Foreign => {
                self.foreign += 1;
                let line = match self.format {
                    OutputFormat::Json => format!("{{\"note\":{}}}\n", self.foreign),
                    _ => format!("note {}\n", self.foreign),
                };
                let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
                file.write_all(line.as_bytes()).unwrap();
            }
            Op::Kill(container, count, share) => {
                self.start();
                self.write(*container, *count, *share);
                self.run = None;
                self.is_unfinished = *share < 100;
            }
            Op::Move => self.is_moved = self.run.is_none() && self.state.0.is_some(),
            Op::CopyTruncate => {
                // Nothing shows that an empty file was truncated, since nothing of it was synced. Nor does anything
                // show how much of an unfinished write the truncated file contained.
                let is_known = self.state.0.is_some_and(|output| output.length > 0) && !self.is_unfinished;
                let is_stable = self.run.is_none() && !self.has_power_failed && !self.is_moved && !self.is_copied;
                if is_known && is_stable && self.lines().last().is_some() && self.ends_with_newline() {
                    self.is_copied = true;
                    self.copies += 1;
                    self.moves += 1;
                    let copy = self.folder.path().join(format!("out.{}", self.moves));
                    fs::copy(self.path(), copy).unwrap();
                    File::options().write(true).open(self.path()).unwrap().set_len(0).unwrap();
                }
            }
            Op::Restore(age) => {
                let known = self.backups.iter().rev().filter(|(known, _)| known.is_some()).nth(*age).cloned();
                // Without a log, nothing shows which program wrote a text line. And if the lines are only in a copy,
                // FILE shows nothing at all.
                let shows_writer = self.format == OutputFormat::Json && self.copies == 0;
                let can_tell = (!self.has_power_failed || shows_writer) && !self.is_copied;
                if let Some(state) = known.filter(|_| self.run.is_none() && can_tell) {
                    self.state = state;
                }
            }
            Op::PowerCut(share, has_nul, logs) => self.cut_power(*share, *has_nul, *logs),
        }
        self.remember_lines();
    }

    fn cut_power(&mut self, share: usize, has_nul: bool, logs: [usize; 2]) {
        // Only a power failure during a run loses data: after a run the kernel has written everything back. Recognised
        // text lines are committed within a fraction of a second, and no power failure is assumed before that.
        if self.format != OutputFormat::Json && self.run.as_ref().is_some_and(|run| run.is_fresh) {
            return;
        }
        let Some(run) = self.run.take() else { return };
        let length = run.file.metadata().unwrap().len();
        let synced = run.synced.min(length);
        let left = synced + (length - synced) * share as u64 / 100;
        run.file.set_len(left).unwrap();
        if has_nul {
            run.file.set_len(length).unwrap();
        }
        for (number, share) in logs.into_iter().enumerate() {
            let segment = File::options().write(true).open(wal::segment_path(&self.log(), number)).unwrap();
            segment.set_len(segment.metadata().unwrap().len() * share as u64 / 100).unwrap();
        }
        self.has_power_failed = true;
        let there: HashSet<String> = self.lines().into_iter().collect();
        self.ever.retain(|line| there.contains(line));
    }

    /// Checks that every line that was ever complete is there, that none is there twice, and that each container's
    /// lines up to its position are there.
    fn check(&self) {
        let lines = self.lines();
        for line in &self.ever {
            assert!(lines.contains(line), "lost {line:?}");
        }
        let intact: Vec<&String> = lines.iter().filter(|line| self.is_intact(line)).collect();
        let distinct: HashSet<&&String> = intact.iter().collect();
        assert_eq!(distinct.len(), intact.len(), "repeated lines: {lines:?}");
        let run = self.run.as_ref().unwrap();
        for container in ["c0", "c1", "c2"] {
            let seen = seen(&run.positions, container);
            for number in 1..=seen {
                let line = line(self.format, container, number);
                assert!(lines.contains(&line), "{container}: position {seen}, but line {number} is missing");
            }
            let is_beyond = lines.contains(&line(self.format, container, seen + 1));
            assert!(!is_beyond || run.repeats.is_some(), "{container}: line {} will be repeated", seen + 1);
        }
    }

    /// Writes each container up to the same line, as a next run would.
    fn finish(&mut self) {
        self.start();
        for container in 0..3 {
            let seen = seen(&self.run.as_ref().unwrap().positions, &format!("c{container}"));
            self.write(container, 400 - seen, 100);
        }
        self.remember_lines();
        self.check();
    }
}

fn play(format: OutputFormat, ops: &[Op]) {
    let mut model = Model::new(format);
    ops.iter().for_each(|op| model.play(op));
    model.finish();
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    // Each case syncs files dozens of times, so the default is low. PROPTEST_CASES overrides it.
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// JSON records identify their line by a cursor.
    #[test]
    fn never_loses_or_repeats_json_records(ops in ops()) {
        play(OutputFormat::Json, &ops);
    }

    /// Text lines do not identify themselves.
    #[test]
    fn never_loses_or_repeats_text_lines(ops in ops()) {
        play(OutputFormat::Text, &ops);
    }
}
