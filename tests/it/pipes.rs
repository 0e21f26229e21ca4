//! Readers of our output: one that leaves ends us, and one that does not read cannot block us.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::{Answer, Engine, Request, Script, Signal, Watch, eventually, process};

/// A run whose stdout the test reads or leaves.
struct Run {
    child: Child,
    notices: std::path::PathBuf,
}

impl Run {
    fn start(engine: &Engine, host: &str, args: &[&str], stdout: impl Into<Stdio>) -> Run {
        let notices = engine.home().join(format!("notices-{}", fastrand::u64(..)));
        let mut command = Watch::command();
        engine.configure(&mut command);
        command.env_remove("DOCKER_HOST").env("XDG_STATE_HOME", engine.home()).arg("-H").arg(host).args(args);
        let stderr = File::create(&notices).unwrap();
        Run { child: command.stdout(stdout).stderr(stderr).spawn().unwrap(), notices }
    }

    fn notices(&self) -> String {
        fs::read_to_string(&self.notices).unwrap()
    }

    fn wait_for_notice(&self, text: &str) {
        eventually(&format!("a notice says {text}"), || self.notices().contains(text));
    }

    /// Waits until a thread of this name is blocked in a write.
    fn wait_until_stuck(&self, thread: &str) {
        let write = if cfg!(target_arch = "x86_64") { "1 " } else { "64 " };
        let pid = self.child.id();
        eventually("it is stuck in a write", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            threads.map(|thread| thread.path()).any(|path| {
                let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
                read("comm").trim() == thread && read("syscall").starts_with(write)
            })
        });
    }

    fn signal(&self, signal: Signal) {
        process::signal(self.child.id(), signal);
    }

    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let mut code = None;
        eventually("it has ended", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As with `watch | grep -q`, the reader leaves though the container writes no more: we end with 0, both when idle and
/// while connecting.
#[test]
fn a_reader_that_leaves_ends_a_silent_run() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1", "--idle"]);
    let host = engine.host();
    for args in [&["watch"][..], &["watch", "--resume"], &["watch", "--source", "stream", "--format", "json"]] {
        let (reader, writer) = pipe().unwrap();
        let run = Run::start(&engine, &host, args, writer);
        run.wait_for_notice("+ web");
        drop(reader);
        assert_eq!(run.end(), Some(0), "{args:?}");
    }
    // The positions were stored.
    let (reader, writer) = pipe().unwrap();
    assert_eq!(Run::start(&engine, &host, &["watch", "--no-follow", "--resume"], writer).end(), Some(0));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    let (socket, theirs) = UnixStream::pair().unwrap();
    let run = Run::start(&engine, &host, &["watch"], OwnedFd::from(theirs));
    run.wait_for_notice("+ web");
    drop(socket);
    assert_eq!(run.end(), Some(0));
    // An engine that accepts the request and never answers, and one without events.
    let mute = Script::start(|_: &Request, answer: &mut Answer| answer.hold());
    let quiet = Script::start(|request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/events" => {
            answer.begin("application/json");
            answer.hold();
        }
        "/containers/json" => answer.json(200, "[]"),
        _ => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
    });
    for script in [&mute, &quiet] {
        for args in [&["watch"][..], &["events"]] {
            // One leaves at once, like `true`; the other while we wait.
            for is_there in [false, true] {
                let (reader, writer) = pipe().unwrap();
                let reader = Some(reader).filter(|_| is_there);
                let before = script.requests().len();
                let run = Run::start(&engine, &script.host(), args, writer);
                if let Some(reader) = reader {
                    eventually("the engine is asked", || script.requests().len() > before);
                    drop(reader);
                }
                assert_eq!(run.end(), Some(0), "{args:?} {is_there}");
            }
        }
    }
}

/// With `-o FILE`, and for a reconciliation, nobody needs to read stdout.
#[test]
fn with_an_output_file_stdout_does_not_matter() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let file = engine.home().join("out.log");
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let run = Run::start(&engine, &engine.host(), &["watch", "-o", file.to_str().unwrap()], writer);
    run.wait_for_notice("+ beacon");
    engine.run("web", &[], &["--count", "1"]);
    eventually("the line is in the file", || fs::read_to_string(&file).unwrap() == "web | line 000000001\n");
    run.signal(Signal::TERM);
    assert_eq!(run.end(), Some(0));
    engine.wait("web");
    // A requested reconciliation is completed.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(Run::start(&engine, &engine.host(), &["reconcile"], writer).end(), Some(0));
    let finished = Watch::spawn(Watch::command().env("XDG_STATE_HOME", engine.home()).args([
        "-H",
        &engine.host(),
        "reconcile",
        "--check",
    ]));
    assert_eq!(finished.finish().code, Some(0));
    // A stdout that is closed from the start becomes a file that accepts everything.
    let line = format!("exec {} -H {} watch >&-", env!("CARGO_BIN_EXE_docker-logwatch"), engine.host());
    let watch = Watch::spawn(Command::new("sh").args(["-c", &line]));
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), crate::support::PATIENCE);
    watch.signal(Signal::TERM);
    assert_eq!(watch.finish().code, Some(0));
}

/// A full pipe and its other end.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    // The capacity of a pipe on Linux.
    (&writer).write_all(&[b' '; 64 * 1024]).unwrap();
    (reader, writer)
}

/// After one signal the output may take some time; a second one ends every command at once, successfully.
#[test]
fn a_second_signal_ends_a_blocked_pipe() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "10", "--idle"]);
    let host = engine.host();
    for (args, thread) in [
        (&["watch"][..], "deliver"),
        (&["watch", "--resume=full", "--format", "json"], "deliver"),
        (&["events", "--since", "1h"], "output"),
        (&["watch", "--dry-run"], "output"),
        (&["pool"], "output"),
        (&["reconcile"], "output"),
    ] {
        for second in [Signal::TERM, Signal::INT] {
            let (reader, writer) = full_pipe();
            let run = Run::start(&engine, &host, &[args, &["-vv"]].concat(), writer);
            run.wait_until_stuck(thread);
            let begun = Instant::now();
            run.signal(Signal::TERM);
            // Two pending signals of one kind are merged.
            run.wait_for_notice("stopping: received a signal");
            run.signal(second);
            assert_eq!(run.end(), Some(0), "{args:?}");
            // Far below the five seconds after a single signal.
            assert!(begun.elapsed().as_secs() < 4, "{args:?}");
            drop(reader);
        }
    }
}
