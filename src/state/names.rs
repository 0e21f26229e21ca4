//! A resume name while a run holds it: the access to its positions.
//!
//! In: an engine, a name, and what to commit. Out: what was committed before. Made by [`super::Store::hold`]. The lock
//! of the name (`name_lock`) keeps other runs out from the moment it is taken until the last commit is done.

use super::error::Error;
use super::name_lock::NameLock;
use super::positions::{self, Commit, OutputProgress, Owner, Saved, SavedOutput};
use super::thread::Thread;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, mpsc};

/// A resume name of one engine, held against all other runs. Dropping it waits for its commits, then releases the name.
pub(crate) struct HeldName {
    thread: Arc<Thread>,
    owner: Arc<Owner>,
    is_new: bool,
    lock: Option<NameLock>,
}

impl HeldName {
    /// Takes a resume name for an engine. Fails with [`Error::Held`] if another run holds it, and with
    /// [`Error::BadName`] if the name is invalid.
    pub(super) fn take(thread: &Arc<Thread>, engine_id: &str, name: &str) -> Result<Self, Error> {
        let lock = NameLock::take(thread.path(), engine_id, name)?;
        let owner = Arc::new(Owner { engine_id: engine_id.to_owned(), name: name.to_owned() });
        let known = Arc::clone(&owner);
        let is_new = !thread.query(move |connection| positions::is_known(connection, &known))?;
        Ok(HeldName { thread: Arc::clone(thread), owner, is_new, lock: Some(lock) })
    }

    pub(crate) fn engine_id(&self) -> &str {
        &self.owner.engine_id
    }

    pub(crate) fn name(&self) -> &str {
        &self.owner.name
    }

    /// Whether nothing was committed under this name for this engine before it was taken.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The committed positions, by container ID.
    pub(crate) fn positions(&self) -> Result<HashMap<String, Saved>, Error> {
        let owner = Arc::clone(&self.owner);
        self.thread.query(move |connection| positions::read(connection, &owner))
    }

    /// The committed progress of the output file with this path. `None` if nothing was committed for the path.
    pub(crate) fn output(&self, path: &Path) -> Result<Option<SavedOutput>, Error> {
        let (owner, path) = (Arc::clone(&self.owner), path.to_owned());
        self.thread.query(move |connection| positions::read_output(connection, &owner, &path))
    }

    /// Commits in this order: the output file is synced, one transaction stores everything, `done` is called. Does not
    /// block unless dozens of requests wait already. `done` runs on the thread of the state: it must be quick and must
    /// not query the state. After an error nothing of this commit is stored, but the state stays usable, and the next
    /// commit may contain the same data again.
    pub(crate) fn commit(&self, commit: Commit, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let (owner, path) = (Arc::clone(&self.owner), self.thread.path().to_owned());
        self.thread.send(move |connection| {
            let synced =
                connection.and_then(|connection| commit.output.as_ref().map_or(Ok(()), sync).map(|()| connection));
            done(synced.and_then(|connection| {
                positions::commit(connection, &owner, &commit).map_err(|error| Error::of(&path, error))
            }));
        });
    }

    /// Deletes the positions of all containers except these, and returns the deleted ones with their IDs. The log of a
    /// deleted container that had not ended was not read to its end.
    pub(crate) fn forget_all_but<'a>(
        &self,
        container_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<(String, Saved)>, Error> {
        let owner = Arc::clone(&self.owner);
        let container_ids: HashSet<String> = container_ids.into_iter().map(str::to_owned).collect();
        self.thread.query(move |connection| positions::forget_all_but(connection, &owner, &container_ids))
    }
}

impl Drop for HeldName {
    fn drop(&mut self) {
        // Released after all commits, because the next holder has to find them.
        let lock = self.lock.take();
        let (reply, answer) = mpsc::sync_channel(1);
        self.thread.send(move |_| {
            drop(lock);
            let _ = reply.send(());
        });
        if !self.thread.is_current() {
            let _ = answer.recv();
        }
    }
}

fn sync(output: &OutputProgress) -> Result<(), Error> {
    output.file.sync_data().map_err(|source| Error::Output { path: output.path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_id::FileId;
    use crate::model::line_id::Route;
    use crate::model::position::{FilePosition, Mark, Position, TimePosition};
    use crate::model::time::Timestamp;
    use crate::state::Store;
    use crate::state::error::Holder;
    use rusqlite::Connection;
    use rustix::process::{Pid, Signal, kill_process};
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader, Lines, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    const ENGINE: &str = "ABCD:EFGH";

    /// The test that also runs in the child processes of the other tests.
    const CHILD: &str = "state::names::tests::a_held_name_names_its_holder_and_is_freed_by_a_kill";

    /// Set in a child process: what it does.
    const ROLE: &str = "LOGWATCH_TEST_ROLE";

    /// Set in a child process: the state file.
    const STATE: &str = "LOGWATCH_TEST_STATE";

    fn saved(name: &str, offset: u64) -> Saved {
        let time = Timestamp(1_795_215_653_037_882_171);
        let seen = [Some(Mark { time, ordinal: 0, high: time }), None];
        let before = [Some((time, 0)), None];
        let file = FileId { filesystem: Some(u64::MAX), inode: u64::MAX, born: Some(Timestamp(1)) };
        let place = FilePosition { device: 1, file, fingerprint: Some(1 << 63), offset, before, passed: [0; 2] };
        let position = Position { route: Route::File, resume: TimePosition { since: None, seen }, place: Some(place) };
        Saved { name: name.into(), position, ended: false }
    }

    fn one(container_id: &str, offset: u64) -> Commit {
        Commit { positions: vec![(container_id.into(), saved("web", offset))], ..Commit::default() }
    }

    /// Commits and waits for the result.
    fn commit(held: &HeldName, commit: Commit) -> Result<(), Error> {
        let (done, result) = mpsc::channel();
        held.commit(commit, move |answer| done.send(answer).unwrap());
        result.recv().unwrap()
    }

    fn offset(held: &HeldName, container_id: &str) -> Option<u64> {
        held.positions().unwrap().get(container_id)?.position.place.map(|place| place.offset)
    }

    const BORN: Timestamp = Timestamp(1_795_215_653_037_882_171);

    /// An output file of this length. Only a length above 812 has a birth time and is final.
    fn written(path: &Path, file: File, length: u64) -> OutputProgress {
        let metadata = file.metadata().unwrap();
        OutputProgress {
            path: path.to_owned(),
            file,
            device: metadata.dev(),
            inode: metadata.ino(),
            born: (length > 812).then_some(BORN),
            length,
            is_last: length > 812,
            sequence: length,
        }
    }

    #[test]
    fn committed_data_is_read_back_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        // Linux file names need not be UTF-8.
        let outputs = [dir.path().join("out.log"), dir.path().join(OsStr::from_bytes(b"out\xff.log"))];
        let store = Store::open(&path).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        assert!(held.is_new());
        for (output, length) in outputs.iter().zip([812, u64::MAX]) {
            let output = written(output, File::create(output).unwrap(), length);
            let positions =
                vec![("a".into(), saved("web", 812)), ("b".into(), Saved { ended: true, ..saved("db", 0) })];
            commit(&held, Commit { positions, output: Some(output), ..Commit::default() }).unwrap();
        }
        drop((held, store));
        let held = Store::open(&path).unwrap().hold(ENGINE, "default").unwrap();
        assert!(!held.is_new());
        let expected = [("a".into(), saved("web", 812)), ("b".into(), Saved { ended: true, ..saved("db", 0) })];
        assert_eq!(held.positions().unwrap(), HashMap::from(expected));
        for (output, length) in outputs.iter().zip([812, u64::MAX]) {
            let metadata = fs::metadata(output).unwrap();
            let is_closed = length > 812;
            let (device, inode, born) = (metadata.dev(), metadata.ino(), is_closed.then_some(BORN));
            let expected = SavedOutput { device, inode, born, length, is_closed, sequence: length };
            assert_eq!(held.output(output).unwrap(), Some(expected));
        }
        assert_eq!(held.output(&dir.path().join("other.log")).unwrap(), None);
        let removed = vec!["b".into(), "never there".into()];
        commit(&held, Commit { positions: vec![("a".into(), saved("web-1", 900))], removed, ..Commit::default() })
            .unwrap();
        assert_eq!(held.positions().unwrap(), HashMap::from([("a".into(), saved("web-1", 900))]));
        let ended = vec!["a".into(), "never there".into()];
        commit(&held, Commit { ended, ..Commit::default() }).unwrap();
        let expected = Saved { ended: true, ..saved("web-1", 900) };
        assert_eq!(held.positions().unwrap(), HashMap::from([("a".into(), expected)]));
        commit(&held, Commit { removed: vec!["a".into()], ..one("a", 901) }).unwrap();
        assert_eq!(held.positions().unwrap(), HashMap::new());
        drop(held);
        assert!(
            !Store::open(&path).unwrap().hold(ENGINE, "default").unwrap().is_new(),
            "the name stays known without positions"
        );
    }

    #[test]
    fn engines_and_names_are_independent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let keys = [(ENGINE, "default"), (ENGINE, "other"), ("7f3a", "default")];
        let held: Vec<HeldName> = keys.iter().map(|(engine, name)| store.hold(engine, name).unwrap()).collect();
        for (held, at) in held.iter().zip(1..) {
            assert!(held.is_new());
            commit(held, one("a", at)).unwrap();
        }
        for (held, at) in held.iter().zip(1..) {
            assert_eq!(offset(held, "a"), Some(at));
        }
        assert_eq!(held[0].forget_all_but([]).unwrap(), [("a".into(), saved("web", 1))]);
        assert_eq!(held.iter().map(|held| offset(held, "a")).collect::<Vec<_>>(), [None, Some(2), Some(3)]);
    }

    #[test]
    fn all_files_are_accessible_only_to_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("docker-logwatch");
        let held = Store::open(&folder.join("state.db")).unwrap().hold("", "default").unwrap();
        commit(&held, one("a", 1)).unwrap();
        let mut modes: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                format!("{:o} {}", entry.metadata().unwrap().permissions().mode(), entry.file_name().display())
            })
            .collect();
        modes.sort();
        // The hash of the empty engine ID.
        let expected = [
            "100600 state.db",
            "100600 state.db-shm",
            "100600 state.db-wal",
            "100600 state.db.resume-default-e3b0c44298fc1c14.lock",
        ];
        assert_eq!(modes, expected);
        drop(held);
        assert!(!folder.join("state.db-wal").exists(), "closing removes the write-ahead log");
    }

    #[test]
    fn an_invalid_name_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let error = store.hold(ENGINE, "../x").err().unwrap();
        assert_eq!(
            error.to_string(),
            "invalid resume name \"../x\": expected 1 to 64 letters, digits, `_`, `.` and `-`"
        );
    }

    /// Another process with the same state file.
    struct Other {
        child: Child,
        input: ChildStdin,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl Other {
        fn start(role: &str, state: &Path) -> Other {
            Other::start_under(Command::new(std::env::current_exe().unwrap()), role, state)
        }

        fn start_under(mut command: Command, role: &str, state: &Path) -> Other {
            command.args(["--exact", CHILD, "--nocapture"]).env(ROLE, role).env(STATE, state);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            Other { child, input, lines: BufReader::new(output).lines() }
        }

        /// Reads up to a line that starts with `start`, and returns the rest of that line.
        fn wait_for(&mut self, start: &str) -> String {
            let rest = self.lines.find_map(|line| line.unwrap().strip_prefix(start).map(str::to_owned));
            rest.unwrap_or_else(|| panic!("ended without {start:?}"))
        }

        fn go(&mut self) {
            self.input.write_all(b"go\n").unwrap();
        }

        fn kill(mut self) {
            kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
            self.child.wait().unwrap();
        }

        fn end(mut self) {
            drop(self.input);
            assert!(self.child.wait().unwrap().success());
        }
    }

    /// The body of a child process.
    fn play(role: &str) {
        let wait = || std::io::stdin().lines().next();
        let path = PathBuf::from(std::env::var_os(STATE).unwrap());
        let report = |line: String| move |answer: Result<(), Error>| println!("\n{line} {answer:?}");
        match role {
            "hold" => {
                let _held = Store::open(&path).unwrap().hold(ENGINE, "default").unwrap();
                println!("\nholds");
                wait();
            }
            "open at once" => {
                println!("\nready");
                wait();
                let id = std::process::id().to_string();
                let held = Store::open(&path).unwrap().hold(ENGINE, &id).unwrap();
                commit(&held, one("a", id.parse().unwrap())).unwrap();
            }
            "commit a hundred" => {
                let held = Store::open(&path).unwrap().hold(ENGINE, "other").unwrap();
                println!("\nready");
                wait();
                for at in 1..=100 {
                    commit(&held, one("a", at)).unwrap();
                }
            }
            "commit on and on" => {
                let held = Store::open(&path).unwrap().hold(ENGINE, "default").unwrap();
                for at in 1.. {
                    commit(&held, one("a", at)).unwrap();
                    println!("\ncommitted {at}");
                }
            }
            "commit an output" => {
                let held = Store::open(&path).unwrap().hold(ENGINE, "default").unwrap();
                let output = path.with_file_name("out.log");
                let mut file = File::create(&output).unwrap();
                file.write_all(b"line\n").unwrap();
                println!("\nbegins");
                let output = Some(written(&output, file, 5));
                held.commit(Commit { output, ..one("a", 5) }, report("committed".into()));
            }
            role => panic!("{role:?} is no role"),
        }
    }

    #[test]
    fn a_held_name_names_its_holder_and_is_freed_by_a_kill() {
        if let Ok(role) = std::env::var(ROLE) {
            return play(&role);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let begun = Timestamp::now();
        let mut other = Other::start("hold", &path);
        other.wait_for("holds");
        let store = Store::open(&path).unwrap();
        let refused = store.hold(ENGINE, "default").err().unwrap();
        let Error::Held { holder: Some(Holder { pid, since }), .. } = refused else { panic!("{refused:?}") };
        assert_eq!(pid, other.child.id());
        assert!(begun <= since && since <= Timestamp::now(), "{since}");
        let seconds = &since.to_string()[..19];
        assert_eq!(refused.to_string(), format!("\"default\" is in use by process {pid} since {seconds}Z"));
        assert!(!refused.is_temporary());
        store.hold("another engine", "default").unwrap();
        other.kill();
        let held = store.hold(ENGINE, "default").unwrap();
        let refused = store.hold(ENGINE, "default").err().unwrap();
        assert!(refused.to_string().contains(&format!("by process {} since", std::process::id())), "{refused}");
        drop(held);
        store.hold(ENGINE, "default").unwrap();
    }

    #[test]
    fn a_name_is_released_after_its_commits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        for at in 1..=50 {
            let held = store.hold(ENGINE, "default").unwrap();
            assert_eq!(offset(&held, "a"), (at > 1).then(|| at - 1));
            held.commit(one("a", at), |answer| answer.unwrap());
        }
    }

    #[test]
    fn concurrent_processes_can_create_one_state_file() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..5 {
            let path = dir.path().join(format!("{round}/new/state.db"));
            let mut others: Vec<Other> = (0..6).map(|_| Other::start("open at once", &path)).collect();
            others.iter_mut().for_each(|other| drop(other.wait_for("ready")));
            others.iter_mut().for_each(Other::go);
            let pids: Vec<u32> = others.iter().map(|other| other.child.id()).collect();
            others.into_iter().for_each(Other::end);
            let store = Store::open(&path).unwrap();
            for pid in pids {
                assert_eq!(offset(&store.hold(ENGINE, &pid.to_string()).unwrap(), "a"), Some(pid.into()));
            }
        }
    }

    #[test]
    fn two_processes_can_commit_alternately() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = Store::open(&path).unwrap();
        let held = [store.hold(ENGINE, "default").unwrap(), Store::open(&path).unwrap().hold(ENGINE, "third").unwrap()];
        let mut other = Other::start("commit a hundred", &path);
        other.wait_for("ready");
        other.go();
        for at in 1..=100 {
            for held in &held {
                commit(held, one("a", at)).unwrap();
                assert_eq!(offset(held, "a"), Some(at));
            }
        }
        other.end();
        assert_eq!(offset(&store.hold(ENGINE, "other").unwrap(), "a"), Some(100));
    }

    #[test]
    fn reported_commits_survive_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        for _ in 0..3 {
            let mut other = Other::start("commit on and on", &path);
            let reported = (0..20).map(|_| other.wait_for("committed ").parse::<u64>().unwrap()).last().unwrap();
            other.kill();
            let kept = offset(&Store::open(&path).unwrap().hold(ENGINE, "default").unwrap(), "a").unwrap();
            assert!(kept >= reported, "{reported} was reported, {kept} is stored");
        }
    }

    #[test]
    fn no_position_is_committed_if_the_output_cannot_be_synced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        commit(&held, one("a", 1)).unwrap();
        let path = Path::new("/log/out");
        // A pipe cannot be synced.
        let pipe = File::from(OwnedFd::from(std::io::pipe().unwrap().1));
        let error = commit(&held, Commit { output: Some(written(path, pipe, 5)), ..one("a", 2) }).unwrap_err();
        assert_eq!(error.to_string(), "cannot sync /log/out to its disk");
        assert!(std::error::Error::source(&error).is_some() && !error.is_temporary());
        assert_eq!((offset(&held, "a"), held.output(path).unwrap()), (Some(1), None));
        commit(&held, one("a", 3)).unwrap();
        assert_eq!(offset(&held, "a"), Some(3));
    }

    #[test]
    fn commits_succeed_again_after_a_lock_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let timeout = Duration::from_millis(50);
        let store = Store::open_with(&path, timeout).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        commit(&held, one("a", 1)).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; DELETE FROM positions").unwrap();
        let start = Instant::now();
        let error = commit(&held, one("a", 2)).unwrap_err();
        assert!(start.elapsed() >= timeout);
        assert_eq!(error.to_string(), format!("the state in {} is locked by another program", path.display()));
        assert!(error.is_temporary());
        assert!(held.forget_all_but([]).unwrap_err().is_temporary());
        assert_eq!(offset(&held, "a"), Some(1), "reads do not wait for the lock");
        other.execute_batch("ROLLBACK").unwrap();
        commit(&held, one("a", 3)).unwrap();
        assert_eq!(offset(&held, "a"), Some(3));
    }

    #[test]
    fn dropping_the_store_finishes_all_requests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let done = Arc::new(AtomicU64::new(0));
        let held = Store::open(&path).unwrap().hold(ENGINE, "default").unwrap();
        for at in 1..=200 {
            let done = Arc::clone(&done);
            held.commit(one("a", at), move |answer| {
                answer.unwrap();
                done.store(at, Ordering::SeqCst);
            });
        }
        drop(held);
        assert_eq!(done.load(Ordering::SeqCst), 200);
        assert!(!dir.path().join("state.db-wal").exists(), "the file was not closed");
        assert_eq!(offset(&Store::open(&path).unwrap().hold(ENGINE, "default").unwrap(), "a"), Some(200));
    }

    #[test]
    fn the_last_handle_can_be_dropped_on_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let held = Arc::new(Store::open(&path).unwrap().hold(ENGINE, "default").unwrap());
        let (done, result) = mpsc::channel();
        let last = Arc::clone(&held);
        let (release, released) = mpsc::channel::<()>();
        held.commit(one("a", 1), move |answer| {
            released.recv().unwrap_err();
            drop(last);
            done.send(answer).unwrap();
        });
        drop(held);
        drop(release);
        result.recv().unwrap().unwrap();
    }

    #[test]
    fn ten_thousand_removed_containers_are_forgotten_in_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        let ids: Vec<String> = (0..10_100).map(|number| format!("{number:064x}")).collect();
        let positions = ids.iter().zip(0..).map(|(id, at)| (id.clone(), saved("web", at))).collect();
        commit(&held, Commit { positions, ..Commit::default() }).unwrap();
        let (gone, there) = ids.split_at(10_000);
        let mut forgotten = held.forget_all_but(there.iter().map(String::as_str)).unwrap();
        forgotten.sort_by(|a, b| a.0.cmp(&b.0));
        let expected: Vec<_> = gone.iter().zip(0..).map(|(id, at)| (id.clone(), saved("web", at))).collect();
        assert!(forgotten == expected);
        let left: HashSet<String> = held.positions().unwrap().into_keys().collect();
        assert_eq!(left, HashSet::from_iter(there.iter().cloned()));
        assert!(held.forget_all_but(there.iter().map(String::as_str)).unwrap().is_empty());
    }

    #[test]
    fn positions_are_readable_in_the_sqlite_shell() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        let begun = Timestamp::now();
        commit(&held, one("a", 812)).unwrap();
        let (row, updated) = store
            .thread
            .query(|connection| {
                let sql = "SELECT engine_id || '|' || name || '|' || container_id || '|' || container_name || '|' ||
                    route || '|' || ended || '|' || offset || '|' || stdout_time || '|' || datetime(stdout_time),
                    updated_at FROM positions";
                connection.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Timestamp>(1)?)))
            })
            .unwrap();
        assert_eq!(row, "ABCD:EFGH|default|a|web|file|0|812|2026-11-20T23:00:53.037882171Z|2026-11-20 23:00:53");
        assert!(begun <= updated && updated <= Timestamp::now());
    }

    /// Tests that need root: they mount a small disk, or trace a child process. Profile `fast` skips
    /// modules of this name.
    mod as_root {
        use super::*;

        /// A small file system that only this test uses.
        struct Disk(tempfile::TempDir);

        impl Disk {
            fn mount() -> Disk {
                let dir = tempfile::tempdir().unwrap();
                let disk = Disk(dir);
                disk.run("mount", &["-t", "tmpfs", "-o", "size=512k", "tmpfs"]);
                disk
            }

            fn path(&self, name: &str) -> PathBuf {
                self.0.path().join(name)
            }

            fn run(&self, program: &str, args: &[&str]) {
                assert!(Command::new(program).args(args).arg(self.0.path()).status().unwrap().success());
            }

            /// Writes until no space is left.
            fn fill(&self) {
                let mut ballast = File::create(self.path("ballast")).unwrap();
                while ballast.write_all(&[0; 512]).is_ok() {}
            }

            fn free_space(&self) {
                fs::remove_file(self.path("ballast")).unwrap();
            }
        }

        impl Drop for Disk {
            fn drop(&mut self) {
                let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
            }
        }

        #[test]
        fn a_full_disk_is_reported_and_loses_no_earlier_commit() {
            let disk = Disk::mount();
            let path = disk.path("state.db");
            let store = Store::open(&path).unwrap();
            let held = store.hold(ENGINE, "default").unwrap();
            commit(&held, one("a", 1)).unwrap();
            disk.fill();
            let many = || {
                let positions = (0..100).map(|number| (format!("{number:064}"), saved("web", 2))).collect();
                Commit { positions, removed: vec!["a".into()], ..Commit::default() }
            };
            for _ in 0..3 {
                let error = commit(&held, many()).unwrap_err();
                assert_eq!(error.to_string(), format!("no space left for the state in {}", path.display()));
                assert!(matches!(error, Error::Full { .. }) && !error.is_temporary());
                assert_eq!(held.positions().unwrap(), HashMap::from([("a".into(), saved("web", 1))]));
            }
            disk.free_space();
            commit(&held, many()).unwrap();
            assert_eq!(held.positions().unwrap().len(), 100);
            drop((held, store));
            disk.fill();
            let another = disk.path("another.db");
            let error = Store::open(&another).err().unwrap();
            assert!(matches!(error, Error::Full { .. }), "{error:?}");
            disk.free_space();
            Store::open(&another).unwrap();
            assert_eq!(Store::open(&path).unwrap().hold(ENGINE, "default").unwrap().positions().unwrap().len(), 100);
        }

        #[test]
        fn a_read_only_disk_is_reported() {
            let disk = Disk::mount();
            let (path, missing) = (disk.path("state.db"), disk.path("missing.db"));
            drop(Store::open(&path).unwrap());
            disk.run("mount", &["-o", "remount,ro"]);
            for path in [path, missing] {
                let error = Store::open(&path).err().unwrap();
                let expected = format!("the state in {} cannot be written: it is read-only", path.display());
                assert_eq!(error.to_string(), expected, "{error:?}");
            }
        }

        #[test]
        fn a_commit_syncs_output_then_positions_then_reports() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let trace = dir.path().join("trace");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-y", "-e", "trace=write,pwrite64,fdatasync,fsync", "-o"]).arg(&trace);
            strace.arg(std::env::current_exe().unwrap());
            let mut other = Other::start_under(strace, "commit an output", &path);
            assert_eq!(other.wait_for("committed "), "Ok(())");
            other.end();
            let trace = fs::read_to_string(trace).unwrap();
            let lines = trace.lines().skip_while(|line| !line.contains("begins"));
            // Output synced, write-ahead log written, write-ahead log synced, success reported.
            let step = |line: &str| match line {
                line if line.contains("committed") => Some('r'),
                line if line.contains("sync(") && line.contains("/out.log>") => Some('o'),
                line if line.contains("pwrite64(") && line.contains("/state.db-wal>") => Some('w'),
                line if line.contains("sync(") && line.contains("/state.db-wal>") => Some('s'),
                _ => None,
            };
            let mut steps: Vec<char> = lines.filter_map(step).collect();
            steps.dedup();
            // The remaining steps belong to the checkpoint on closing.
            assert!(steps.starts_with(&['o', 'w', 's', 'r']), "{steps:?}:\n{trace}");
        }
    }
}
