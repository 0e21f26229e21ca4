//! The state: what is kept between runs, in one SQLite file. The only room that speaks SQL.
//!
//! [`Store`] hands work to the one thread that owns the connection. [`Held`] is a resume NAME, which one run holds at a
//! time (`lock`): its positions and the length of its output (`positions`) are committed together. What each engine has
//! is beside them (`inventory`). `schema` opens a file and brings it to our schema (`migrations/`). Called by the engine
//! room; knows the shelf alone.
//!
//! A commit is on the disk when it is reported, so that a power cut takes nothing of it: the output is synced first, then
//! SQLite syncs its write-ahead log (`synchronous=FULL`, <https://sqlite.org/pragma.html#pragma_synchronous>).

mod error;
mod inventory;
mod location;
mod name_lock;
mod positions;
mod schema;

pub use error::{Error, Fault, Holder};
pub use inventory::Trigger;

use crate::model::inventory::{ChangeSummary, Update};
use crate::model::plan::{Observed, Plan};
use crate::model::position::Position;
use crate::model::time::Timestamp;
pub use location::open_beside;
use name_lock::Lock;
pub use name_lock::OutputLock;
use positions::Owner;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SendError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long to wait for another program that holds the lock of the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much work may wait for the thread before [`Held::commit`] waits too.
const QUEUE: usize = 64;

/// Work for the thread of the connection, which it does not get when the thread is gone.
type Work = Box<dyn FnOnce(Result<&mut Connection, Error>) + Send>;

/// A handle to the one thread that owns the connection to a state file; a clone is another handle to the same, and a
/// [`Held`] has one. The last that goes waits until all work is done and the file is closed.
#[derive(Clone)]
pub struct Store {
    owned: Arc<Owned>,
}

struct Owned {
    path: PathBuf,
    /// `None` once no more will come.
    works: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// A resume NAME of one engine, held against all other runs. It is free again when this is dropped, which waits for its
/// commits.
pub struct Held {
    store: Store,
    owner: Arc<Owner>,
    is_new: bool,
    lock: Option<Lock>,
}

/// What is known of a container from the last commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name then.
    pub name: String,
    /// How far its log was passed on.
    pub position: Position,
    /// It had stopped, and its log was read to the end.
    pub ended: bool,
}

/// What is known of an output from the last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The number of the device it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its bytes up to which the positions tell.
    pub length: u64,
    /// The run that wrote it has ended, and nothing of it stands behind them.
    pub is_closed: bool,
    /// When it was made, where its file system tells: its number may be another's by now.
    pub born: Option<Timestamp>,
    /// The last entry of the write-ahead log that the positions include.
    pub sequence: u64,
}

/// What to keep, all of it or nothing.
#[derive(Debug, Default)]
pub struct Commit {
    /// Container IDs and how far each is.
    pub positions: Vec<(String, Saved)>,
    /// IDs of containers that have stopped and were read to the end, as far as they were committed before.
    pub ended: Vec<String>,
    /// IDs of containers that are gone, forgotten even if they are among `positions`.
    pub removed: Vec<String>,
    /// What the positions were written to, where that is a file.
    pub output: Option<Written>,
}

/// An output as far as it was written.
#[derive(Debug)]
pub struct Written {
    /// What it is known by.
    pub path: PathBuf,
    /// Any descriptor of it; synced before the positions are committed.
    pub file: File,
    /// The number of the device it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// When it was made, where its file system tells.
    pub born: Option<Timestamp>,
    /// Bytes in it once all that the positions tell of is written.
    pub length: u64,
    /// Nothing more will be written to it.
    pub is_last: bool,
    /// The last entry of the write-ahead log that the positions include.
    pub sequence: u64,
}

impl Store {
    /// Opens a state file, made with mode 0600, in a folder of 0700, where missing. An older schema is brought to ours; a
    /// newer one, a damaged file and a database of another program are refused and left as they are.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Store::open_with(path, PATIENCE)
    }

    fn open_with(path: &Path, patience: Duration) -> Result<Self, Error> {
        // To SQLite `:memory:` and the empty path are no files, unless they are absolute.
        let path = std::path::absolute(path)
            .map_err(|source| Error::Unopened { path: path.to_owned(), source: source.into() })?;
        let connection = schema::open(&path, patience)?;
        Store::start(path, connection)
    }

    fn start(path: PathBuf, connection: Connection) -> Result<Self, Error> {
        let (works, queue) = mpsc::sync_channel(QUEUE);
        let serve = move || serve(connection, &queue);
        let thread = thread::Builder::new().name("state".into()).spawn(serve).map_err(Error::Thread)?;
        Ok(Store { owned: Arc::new(Owned { path, works: Some(works), thread: Some(thread) }) })
    }

    /// Opens a state file to look at it: it is neither made nor brought to our schema. `None` where there is none. What is
    /// refused is what [`Store::open`] refuses.
    pub fn look(path: &Path) -> Result<Option<Self>, Error> {
        let path = std::path::absolute(path)
            .map_err(|source| Error::Unopened { path: path.to_owned(), source: source.into() })?;
        let Some(connection) = schema::look(&path, PATIENCE)? else { return Ok(None) };
        Store::start(path, connection).map(Some)
    }

    /// Compares what is known of an engine with what was observed, in one transaction that leaves it in line unless the
    /// occasion is only to tell. `done` is called on the thread of the state, as by [`Held::commit`].
    pub fn reconcile(
        &self,
        engine_id: &str,
        observed: Observed,
        occasion: Trigger,
        done: impl FnOnce(Result<Plan, Error>) + Send + 'static,
    ) {
        let (engine_id, path) = (engine_id.to_owned(), self.owned.path.clone());
        self.give(Box::new(move |connection| {
            let is_held = |name: &str| name_lock::is_held(&path, &engine_id, name);
            done(connection.and_then(|connection| {
                let plan = inventory::reconcile(connection, &engine_id, &observed, occasion, is_held);
                plan.map_err(|error| Error::of(&path, error))
            }));
        }));
    }

    /// Takes what events told of an engine, in one transaction, and tells what that changed; `done` as above.
    pub fn hear(
        &self,
        engine_id: &str,
        told: Vec<Update>,
        done: impl FnOnce(Result<ChangeSummary, Error>) + Send + 'static,
    ) {
        let (engine_id, path) = (engine_id.to_owned(), self.owned.path.clone());
        self.give(Box::new(move |connection| {
            done(connection.and_then(|connection| {
                inventory::hear(connection, &engine_id, &told).map_err(|error| Error::of(&path, error))
            }));
        }));
    }

    /// Takes a resume NAME for an engine. [`Error::Held`] when another run has it, [`Error::BadName`] when it is none.
    pub fn hold(&self, engine_id: &str, name: &str) -> Result<Held, Error> {
        let lock = Lock::take(&self.owned.path, engine_id, name)?;
        let owner = Arc::new(Owner { engine_id: engine_id.to_owned(), name: name.to_owned() });
        let known = Arc::clone(&owner);
        let is_new = !self.ask(move |connection| positions::is_known(connection, &known))?;
        Ok(Held { store: self.clone(), owner, is_new, lock: Some(lock) })
    }

    /// Has the thread answer a question, after all work before it.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = mpsc::sync_channel(1);
        let path = self.owned.path.clone();
        self.give(Box::new(move |connection| {
            let answer = connection.and_then(|connection| question(connection).map_err(|e| Error::of(&path, e)));
            // Whoever asked waits for it.
            let _ = reply.send(answer);
        }));
        answer.recv().unwrap_or(Err(Error::Closed))
    }

    fn give(&self, work: Work) {
        let refused = match &self.owned.works {
            Some(works) => works.send(work).err(),
            None => Some(SendError(work)),
        };
        if let Some(SendError(work)) = refused {
            work(Err(Error::Closed));
        }
    }

    /// Whether we are on the thread of the connection, which cannot wait for itself.
    fn is_here(&self) -> bool {
        self.owned.is_here()
    }
}

impl Owned {
    fn is_here(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.works = None;
        let is_here = self.is_here();
        if let Some(thread) = self.thread.take().filter(|_| !is_here) {
            // A panic was told of when it happened.
            let _ = thread.join();
        }
    }
}

/// The thread: works, then closes the file.
fn serve(mut connection: Connection, queue: &Receiver<Work>) {
    for work in queue {
        work(Ok(&mut connection));
    }
    // Closing would do it too, but only where no other process has the file open. What stays in the log is no less safe.
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = checkpoint.and_then(|()| connection.close().map_err(|(_, error)| error)) {
        tracing::debug!(%error, "the state was closed without a checkpoint");
    }
}

impl Held {
    /// Of which engine it is.
    pub fn engine_id(&self) -> &str {
        &self.owner.engine_id
    }

    /// The NAME.
    pub fn name(&self) -> &str {
        &self.owner.name
    }

    /// Whether nothing was ever committed under this NAME for this engine before it was taken.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What was committed last, by container ID.
    pub fn positions(&self) -> Result<HashMap<String, Saved>, Error> {
        let owner = Arc::clone(&self.owner);
        self.store.ask(move |connection| positions::read(connection, &owner))
    }

    /// What was committed last of an output, by the path it was committed with; `None` when nothing was.
    pub fn output(&self, path: &Path) -> Result<Option<Output>, Error> {
        let (owner, path) = (Arc::clone(&self.owner), path.to_owned());
        self.store.ask(move |connection| positions::read_output(connection, &owner, &path))
    }

    /// Has it all committed, in this order: the output is synced, one transaction keeps everything, `done` is called. Does
    /// not wait, unless dozens of others wait already. `done` is called on the thread of the state: it must be quick and
    /// ask for nothing here. After an error nothing of it is kept and the state works on; what is committed next may
    /// include it.
    pub fn commit(&self, commit: Commit, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let (owner, path) = (Arc::clone(&self.owner), self.store.owned.path.clone());
        self.store.give(Box::new(move |connection| {
            let synced =
                connection.and_then(|connection| commit.output.as_ref().map_or(Ok(()), sync).map(|()| connection));
            done(synced.and_then(|connection| {
                positions::commit(connection, &owner, &commit).map_err(|error| Error::of(&path, error))
            }));
        }));
    }

    /// Forgets the containers that are not among these, and returns their IDs and what was known of them: one that had
    /// not ended was lost sight of.
    pub fn forget_all_but<'a>(
        &self,
        container_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<(String, Saved)>, Error> {
        let owner = Arc::clone(&self.owner);
        let container_ids: HashSet<String> = container_ids.into_iter().map(str::to_owned).collect();
        self.store.ask(move |connection| positions::forget_all_but(connection, &owner, &container_ids))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Behind the commits: whoever holds the NAME next has to find them.
        let lock = self.lock.take();
        let (reply, answer) = mpsc::sync_channel(1);
        self.store.give(Box::new(move |_| {
            drop(lock);
            let _ = reply.send(());
        }));
        if !self.store.is_here() {
            let _ = answer.recv();
        }
    }
}

fn sync(output: &Written) -> Result<(), Error> {
    output.file.sync_data().map_err(|source| Error::Output { path: output.path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::Route;
    use crate::model::file_id::FileId;
    use crate::model::position::{FilePosition, Mark, TimePosition};
    use rustix::process::{Pid, Signal, kill_process};
    use std::ffi::OsStr;
    use std::fs;
    use std::io::{BufRead, BufReader, Lines, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    const ENGINE: &str = "ABCD:EFGH";

    /// The test that also is the child process of the others.
    const CHILD: &str = "state::tests::a_held_name_is_refused_with_its_holder_and_free_once_that_is_killed";

    /// Set in a child: what it does.
    const ROLE: &str = "LOGWATCH_TEST_ROLE";

    /// Set in a child: the state file.
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

    /// Commits, and waits until it is done.
    fn commit(held: &Held, commit: Commit) -> Result<(), Error> {
        let (done, result) = mpsc::channel();
        held.commit(commit, move |answer| done.send(answer).unwrap());
        result.recv().unwrap()
    }

    fn offset(held: &Held, container_id: &str) -> Option<u64> {
        held.positions().unwrap().get(container_id)?.position.place.map(|place| place.offset)
    }

    const BORN: Timestamp = Timestamp(1_795_215_653_037_882_171);

    /// An output of so many bytes, known by a path of its own.
    fn written(path: &Path, file: File, length: u64) -> Written {
        let metadata = file.metadata().unwrap();
        Written {
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
    fn what_was_committed_is_there_in_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        // Linux file names are bytes.
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
            let expected = Output { device, inode, born, length, is_closed, sequence: length };
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
            "all were removed, not forgotten"
        );
    }

    #[test]
    fn engines_and_names_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let keys = [(ENGINE, "default"), (ENGINE, "other"), ("7f3a", "default")];
        let held: Vec<Held> = keys.iter().map(|(engine, name)| store.hold(engine, name).unwrap()).collect();
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
    fn all_files_are_for_their_owner_alone() {
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
        // The hash is that of nothing.
        let expected = [
            "100600 state.db",
            "100600 state.db-shm",
            "100600 state.db-wal",
            "100600 state.db.resume-default-e3b0c44298fc1c14.lock",
        ];
        assert_eq!(modes, expected);
        drop(held);
        assert!(!folder.join("state.db-wal").exists(), "closing takes the log into the file");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let error = store.hold(ENGINE, "../x").err().unwrap();
        assert_eq!(
            error.to_string(),
            "invalid resume name \"../x\": it takes 1 to 64 letters, digits, `_`, `.` and `-`"
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

        /// Reads on to a line that begins so, and returns the rest of it.
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

    /// What a child does.
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
    fn a_held_name_is_refused_with_its_holder_and_free_once_that_is_killed() {
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
        assert!(!refused.is_passing());
        store.hold("another engine", "default").unwrap();
        other.kill();
        let held = store.hold(ENGINE, "default").unwrap();
        let refused = store.hold(ENGINE, "default").err().unwrap();
        assert!(refused.to_string().contains(&format!("by process {} since", std::process::id())), "{refused}");
        drop(held);
        store.hold(ENGINE, "default").unwrap();
    }

    #[test]
    fn a_name_is_free_again_only_behind_the_commits_of_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        for at in 1..=50 {
            let held = store.hold(ENGINE, "default").unwrap();
            assert_eq!(offset(&held, "a"), (at > 1).then(|| at - 1));
            held.commit(one("a", at), |answer| answer.unwrap());
        }
    }

    #[test]
    fn processes_that_make_a_state_at_once_all_can_use_it() {
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
    fn two_processes_commit_in_turns_and_both_are_right() {
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
    fn what_was_reported_outlives_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        for _ in 0..3 {
            let mut other = Other::start("commit on and on", &path);
            let told = (0..20).map(|_| other.wait_for("committed ").parse::<u64>().unwrap()).last().unwrap();
            other.kill();
            let kept = offset(&Store::open(&path).unwrap().hold(ENGINE, "default").unwrap(), "a").unwrap();
            assert!(kept >= told, "{told} was reported, {kept} is there");
        }
    }

    #[test]
    fn the_output_is_synced_then_the_positions_then_it_is_reported() {
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
        // The output is synced, the log written, the log synced, and that reported.
        let step = |line: &str| match line {
            line if line.contains("committed") => Some('r'),
            line if line.contains("sync(") && line.contains("/out.log>") => Some('o'),
            line if line.contains("pwrite64(") && line.contains("/state.db-wal>") => Some('w'),
            line if line.contains("sync(") && line.contains("/state.db-wal>") => Some('s'),
            _ => None,
        };
        let mut steps: Vec<char> = lines.filter_map(step).collect();
        steps.dedup();
        // What follows is the checkpoint of the closing.
        assert!(steps.starts_with(&['o', 'w', 's', 'r']), "{steps:?}:\n{trace}");
    }

    #[test]
    fn an_output_that_does_not_reach_its_disk_moves_no_position() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        commit(&held, one("a", 1)).unwrap();
        let path = Path::new("/log/out");
        // A pipe has no disk to reach.
        let pipe = File::from(OwnedFd::from(std::io::pipe().unwrap().1));
        let error = commit(&held, Commit { output: Some(written(path, pipe, 5)), ..one("a", 2) }).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /log/out to its disk");
        assert!(std::error::Error::source(&error).is_some() && !error.is_passing());
        assert_eq!((offset(&held, "a"), held.output(path).unwrap()), (Some(1), None));
        commit(&held, one("a", 3)).unwrap();
        assert_eq!(offset(&held, "a"), Some(3));
    }

    #[test]
    fn a_locked_file_passes_and_the_next_commit_goes_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let patience = Duration::from_millis(50);
        let store = Store::open_with(&path, patience).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        commit(&held, one("a", 1)).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; DELETE FROM positions").unwrap();
        let begun = Instant::now();
        let error = commit(&held, one("a", 2)).unwrap_err();
        assert!(begun.elapsed() >= patience);
        assert_eq!(error.to_string(), format!("the state in {} is locked by another program", path.display()));
        assert!(error.is_passing());
        assert!(held.forget_all_but([]).unwrap_err().is_passing());
        assert_eq!(offset(&held, "a"), Some(1), "reading waits for nobody");
        other.execute_batch("ROLLBACK").unwrap();
        commit(&held, one("a", 3)).unwrap();
        assert_eq!(offset(&held, "a"), Some(3));
    }

    /// A small disk of its own.
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

        fn run(&self, program: &str, words: &[&str]) {
            assert!(Command::new(program).args(words).arg(self.0.path()).status().unwrap().success());
        }

        /// Leaves no room.
        fn fill(&self) {
            let mut ballast = File::create(self.path("ballast")).unwrap();
            while ballast.write_all(&[0; 512]).is_ok() {}
        }

        fn make_room(&self) {
            fs::remove_file(self.path("ballast")).unwrap();
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        }
    }

    #[test]
    fn a_full_disk_is_told_leaves_the_last_commit_and_works_again_with_room() {
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
            assert_eq!(error.to_string(), format!("no room is left for the state in {}", path.display()));
            assert!(matches!(error, Error::Full { .. }) && !error.is_passing());
            assert_eq!(held.positions().unwrap(), HashMap::from([("a".into(), saved("web", 1))]));
        }
        disk.make_room();
        commit(&held, many()).unwrap();
        assert_eq!(held.positions().unwrap().len(), 100);
        drop((held, store));
        disk.fill();
        let another = disk.path("another.db");
        let error = Store::open(&another).err().unwrap();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        disk.make_room();
        Store::open(&another).unwrap();
        assert_eq!(Store::open(&path).unwrap().hold(ENGINE, "default").unwrap().positions().unwrap().len(), 100);
    }

    #[test]
    fn a_disk_that_is_read_only_is_told() {
        let disk = Disk::mount();
        let (path, missing) = (disk.path("state.db"), disk.path("missing.db"));
        drop(Store::open(&path).unwrap());
        disk.run("mount", &["-o", "remount,ro"]);
        for path in [path, missing] {
            let error = Store::open(&path).err().unwrap();
            let words = format!("the state in {} cannot be written: it is read-only", path.display());
            assert_eq!(error.to_string(), words, "{error:?}");
        }
    }

    #[test]
    fn a_store_that_is_dropped_does_what_it_was_given_first() {
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
        assert!(!dir.path().join("state.db-wal").exists(), "it is closed");
        assert_eq!(offset(&Store::open(&path).unwrap().hold(ENGINE, "default").unwrap(), "a"), Some(200));
    }

    #[test]
    fn the_last_handle_may_go_on_the_thread_itself() {
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
    fn ten_thousand_containers_that_are_gone_are_forgotten_in_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        let ids: Vec<String> = (0..10_100).map(|number| format!("{number:064x}")).collect();
        let positions = ids.iter().zip(0..).map(|(id, at)| (id.clone(), saved("web", at))).collect();
        commit(&held, Commit { positions, ..Commit::default() }).unwrap();
        let (gone, there) = ids.split_at(10_000);
        let begun = Instant::now();
        let mut forgotten = held.forget_all_but(there.iter().map(String::as_str)).unwrap();
        let took = begun.elapsed();
        forgotten.sort_by(|a, b| a.0.cmp(&b.0));
        let expected: Vec<_> = gone.iter().zip(0..).map(|(id, at)| (id.clone(), saved("web", at))).collect();
        assert!(forgotten == expected);
        let left: HashSet<String> = held.positions().unwrap().into_keys().collect();
        assert_eq!(left, HashSet::from_iter(there.iter().cloned()));
        assert!(held.forget_all_but(there.iter().map(String::as_str)).unwrap().is_empty());
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn the_table_reads_well_in_sqlites_own_shell() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let held = store.hold(ENGINE, "default").unwrap();
        let begun = Timestamp::now();
        commit(&held, one("a", 812)).unwrap();
        let (row, updated) = store
            .ask(|connection| {
                let sql = "SELECT engine_id || '|' || name || '|' || container_id || '|' || container_name || '|' ||
                    route || '|' || ended || '|' || offset || '|' || stdout_time || '|' || datetime(stdout_time),
                    updated_at FROM positions";
                connection.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Timestamp>(1)?)))
            })
            .unwrap();
        assert_eq!(row, "ABCD:EFGH|default|a|web|file|0|812|2026-11-20T23:00:53.037882171Z|2026-11-20 23:00:53");
        assert!(begun <= updated && updated <= Timestamp::now());
    }
}
