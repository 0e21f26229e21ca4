//! The output file is moved away, as logrotate does, or removed: a new one takes its place, and all files together hold
//! each line once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{
    Engine, Finished, Kept, Numbers, PATIENCE, Signal, Watch, count_lines, eventually, lines, messages,
};

const ROTATING: [&str; 4] = ["--log-opt", "max-size=200k", "--log-opt", "max-file=50"];

/// The name to which the file is moved in this turn.
fn moved(file: &Path, turn: usize) -> PathBuf {
    file.with_extension(format!("jsonl.{turn}"))
}

/// The lines of all files, the oldest first.
fn all(file: &Path, turns: usize) -> Vec<String> {
    (1..=turns).map(|turn| lines(&moved(file, turn))).chain([lines(file)]).flatten().collect()
}

/// How many lines all files have.
fn count_all(file: &Path, turns: usize) -> usize {
    (1..=turns).map(|turn| count_lines(&moved(file, turn))).sum::<usize>() + count_lines(file)
}

/// The numbers of the container's lines.
fn numbers(lines: &[String]) -> Vec<u64> {
    messages(lines, "web").iter().map(|message| message.trim_start_matches("line ").parse().unwrap()).collect()
}

/// Swaps two files atomically, so that nothing can come between.
fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// A run without positions.
fn plain(engine: &Engine, file: &Path) -> Watch {
    Watch::start(engine, &["--format", "json", "-o", file.to_str().unwrap()])
}

fn reported(watch: &Watch, text: &str) {
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains(text)), PATIENCE);
}

/// All files together hold every line once and in order.
#[test]
fn repeated_moves_and_kills_lose_nothing() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    let args = ["--count", "15000", "--rate", "1500", "--stream", "alternating"];
    engine.run("json", &ROTATING, &args);
    engine.run("local", &[&ROTATING[..], &["--log-driver", "local"]].concat(), &args);
    let (mut watch, mut turns) = (kept.start(&engine, &[]), 0);
    while count_all(&kept.file, turns) < 24_000 {
        eventually("the new file is written to", || count_lines(&kept.file) > 100);
        turns += 1;
        fs::rename(&kept.file, moved(&kept.file, turns)).unwrap();
        if turns % 2 == 0 {
            watch.signal(Signal::KILL);
            watch.finish();
            watch = kept.start(&engine, &[]);
        }
    }
    eventually("all came", || count_all(&kept.file, turns) >= 30_000);
    assert_eq!(watch.stop().code, Some(0));
    assert!(turns > 10, "{turns} turns");
    let lines = all(&kept.file, turns);
    let numbers = Numbers::of_json(&lines);
    for name in ["json", "local"] {
        numbers.assert_whole(name, 1..=15_000);
    }
    assert!(lines.iter().all(|line| line.contains(r#""type":"log""#)), "no gap");
}

/// What a killed run left unfinished is completed in the file that was moved away, or in the new one.
#[test]
fn a_file_moved_after_a_kill_stays_whole() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let kill = || {
        let watch = kept.start(&engine, &[]);
        reported(&watch, "+ web");
        watch.signal(Signal::KILL);
        watch.finish();
    };
    let watch = kept.start(&engine, &[]);
    eventually("all came", || kept.count() == 50);
    watch.signal(Signal::KILL);
    watch.finish();
    // As if the run had been killed in the middle of its last write.
    let whole = fs::read(&kept.file).unwrap();
    fs::write(&kept.file, &whole[..whole.len() - 5]).unwrap();
    let away = moved(&kept.file, 1);
    fs::rename(&kept.file, &away).unwrap();
    kept.read(&engine, &[]);
    let all = all(&kept.file, 1);
    Numbers::of_json(&all).assert_whole("web", 1..=50);
    // A file that is moved after a run has ended properly is ignored from then on.
    fs::rename(&kept.file, moved(&kept.file, 2)).unwrap();
    fs::write(moved(&kept.file, 2), "theirs\n").unwrap();
    assert_eq!(kept.read(&engine, &[]).stderr, "");
    assert_eq!(fs::read(moved(&kept.file, 2)).unwrap(), b"theirs\n");
    // A file in another place is not searched for: what was logged counts as written.
    kill();
    let folder = engine.home().join("far");
    fs::create_dir(&folder).unwrap();
    fs::rename(&kept.file, folder.join("away")).unwrap();
    assert_eq!(kept.read(&engine, &[]).stderr, "");
    assert_eq!(kept.lines(), [""; 0]);
}

/// Otherwise the owner of the directory could make root write where only root may.
#[test]
fn a_planted_link_is_not_followed() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let (victim, new) = (engine.home().join("victim"), engine.home().join("new"));
    fs::write(&victim, "secret\n").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    for target in [&victim, &new] {
        let folder = engine.home().join("theirs");
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(1000), Some(1000)).unwrap();
        let file = folder.join("out");
        let watch = plain(&engine, &file);
        eventually("it is written to", || count_lines(&file) > 20);
        let away = folder.join("away");
        // Swapped atomically, as by an attacker who is fast enough.
        std::os::unix::fs::symlink(target, &away).unwrap();
        exchange(&file, &away);
        reported(&watch, "cannot be reopened, so lines still go to the moved file: ");
        let before = count_lines(&away);
        eventually("it is gone on with", || count_lines(&away) > before + 20);
        assert_eq!(fs::read(&victim).unwrap(), b"secret\n");
        assert!(!new.exists());
        // Nor is another user's file used, because its owner could read what only root may.
        fs::remove_file(&file).unwrap();
        fs::write(&file, "").unwrap();
        chown(&file, Some(1000), Some(1000)).unwrap();
        let before = count_lines(&away);
        eventually("it is gone on with", || count_lines(&away) > before + 100);
        assert_eq!(fs::read(&file).unwrap(), b"");
        assert_eq!(watch.stop().code, Some(0));
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// Only root can read the engine's logs, so only root can read the output, whatever the umask.
#[test]
fn a_new_file_is_private() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "3"]);
    engine.wait("web");
    for umask in ["000", "022", "077"] {
        let file = engine.home().join(umask);
        let mut command = Command::new("sh");
        engine.configure(&mut command);
        let program = Watch::command().get_program().to_owned();
        let script = format!("umask {umask}; exec \"$0\" watch --no-follow -o {} web", file.display());
        assert!(command.args(["-c", &script]).arg(program).status().unwrap().success());
        assert_eq!((fs::metadata(&file).unwrap().mode() & 0o777, lines(&file).len()), (0o600, 3), "umask {umask}");
    }
}

/// The new file has the rights and the owner of the old one.
#[test]
fn without_positions_the_name_is_followed_too() {
    let engine = Engine::start();
    let file = engine.home().join("out.jsonl");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o662)).unwrap();
    chown(&file, Some(1), Some(2)).unwrap();
    let watch = plain(&engine, &file);
    engine.run("web", &[], &["--count", "4000", "--rate", "1000"]);
    for turn in 1..=3 {
        eventually("it is written to", || count_lines(&file) > 100);
        fs::rename(&file, moved(&file, turn)).unwrap();
        reported(&watch, "was moved away: continuing in a new file");
    }
    watch.wait_for_ends(1);
    let name = file.canonicalize().unwrap();
    let finished = watch.stop();
    let notice = format!("{} was moved away: continuing in a new file\n", name.display());
    assert_eq!(finished.stderr.matches(&notice).count(), 3, "{}", finished.stderr);
    Numbers::of_json(&all(&file, 3)).assert_whole("web", 1..=4000);
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid(), metadata.gid()), (0o662, 1, 2));
}

/// For the runs with and without positions: what it wrote, and how it ended.
fn each(engine: &Engine, play: impl Fn(&Path, Watch) -> Finished) -> [(PathBuf, Finished); 2] {
    let kept = Kept { state: engine.home().join("state/state.db"), file: engine.home().join("kept.jsonl") };
    let file = engine.home().join("plain.jsonl");
    let runs = [(kept.file.clone(), kept.start(engine, &[])), (file.clone(), plain(engine, &file))];
    runs.map(|(file, watch)| {
        reported(&watch, "+ web");
        let finished = play(&file, watch);
        (file, finished)
    })
}

/// A new file takes its place, and what was written just before is reported as lost.
#[test]
fn a_removed_file_is_replaced() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || count_lines(file) > 50);
        fs::remove_file(file).unwrap();
        reported(&watch, "was removed");
        eventually("a new one is written to", || count_lines(file) > 50);
        watch.stop()
    });
    for (file, finished) in runs {
        assert_eq!(finished.code, Some(0));
        let name = file.canonicalize().unwrap();
        let reported = finished.stderr.lines().find(|line| line.contains("was removed")).unwrap();
        let rest = reported.strip_prefix(&format!("{} was removed", name.display())).unwrap();
        assert!(rest.ends_with(": continuing in a new file"), "{reported}");
        if rest != ": continuing in a new file" {
            let lost: u64 =
                rest.strip_prefix(", and with it up to ").unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!((1..20_000).contains(&lost), "{reported}");
        }
        let numbers = numbers(&lines(&file));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "whole from where it begins");
    }
}

/// If no new file can be opened, a moved one is still written to, and a removed one ends the run.
#[test]
fn without_a_new_file_the_old_one_continues() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || count_lines(file) > 50);
        let away = moved(file, 1);
        fs::create_dir(&away).unwrap();
        exchange(&away, file);
        reported(&watch, "so lines still go to the moved file: it is no longer a regular file");
        let before = count_lines(&away);
        eventually("it is gone on with", || count_lines(&away) > before + 100);
        fs::remove_dir(file).unwrap();
        reported(&watch, "was moved away: continuing in a new file");
        eventually("the new one is written to", || count_lines(file) > 50);
        // The last line may be incomplete.
        let (first, second) = (numbers(&lines(&away)), numbers(&lines(file)[..50]));
        assert_eq!(second[0], first.last().unwrap() + 1);
        let spare = engine.home().join(format!("{}.spare", watch.pid()));
        fs::create_dir(&spare).unwrap();
        exchange(&spare, file);
        fs::remove_file(&spare).unwrap();
        watch.finish()
    });
    for (file, finished) in runs {
        let name = file.canonicalize().unwrap();
        let error = format!("error: cannot open {}\n  caused by: it is no longer a regular file\n", name.display());
        assert!(finished.code == Some(1) && finished.stderr.contains(&error), "{}", finished.stderr);
        assert_eq!(finished.stderr.matches("still go to the moved file").count(), 1, "{}", finished.stderr);
    }
}

/// The lock belongs to the name of the file, so the moved file is not locked.
#[test]
fn the_new_file_belongs_to_its_run() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let watch = kept.start(&engine, &[]);
    eventually("it is written to", || kept.count() > 50);
    fs::rename(&kept.file, moved(&kept.file, 1)).unwrap();
    reported(&watch, "was moved away: continuing in a new file");
    let beside = |file: &Path| {
        Watch::start(
            &engine,
            &["--state", kept.state.to_str().unwrap(), "--format", "json", "-o", file.to_str().unwrap()],
        )
    };
    let second = beside(&kept.file).finish();
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("is being written to by another docker-logwatch"), "{}", second.stderr);
    let third = beside(&moved(&kept.file, 1));
    reported(&third, "+ web");
    assert_eq!(third.stop().code, Some(0));
    assert_eq!(watch.stop().code, Some(0));
}

/// While another program locks the state, the moved file is written on; positions are written later, and a killed run
/// resumes from them.
#[test]
fn a_locked_state_delays_the_new_file() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "4500", "--rate", "500"]);
    let watch = kept.start(&engine, &[]);
    eventually("it is written to", || count_lines(&kept.file) > 100);
    let other = rusqlite::Connection::open(&kept.state).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    fs::rename(&kept.file, moved(&kept.file, 1)).unwrap();
    reported(&watch, "is locked by another program");
    assert_eq!(kept.lines(), [""; 0], "nothing without a position");
    other.execute_batch("ROLLBACK").unwrap();
    reported(&watch, "was moved away: continuing in a new file");
    eventually("it is written to", || count_lines(&kept.file) > 100);
    watch.signal(Signal::KILL);
    watch.finish();
    engine.wait("web");
    kept.read(&engine, &[]);
    Numbers::of_json(&all(&kept.file, 1)).assert_whole("web", 1..=4500);
}

/// A flood is written in large blocks, so a part of what was read is in the moved file while the rest still waits.
#[test]
fn a_kill_after_a_move_repeats_nothing() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "100000"]);
    engine.wait("web");
    for turn in 0..3 {
        let home = engine.home().join(format!("{turn}"));
        fs::create_dir(&home).unwrap();
        let kept = Kept { state: home.join("state/state.db"), file: home.join("out.jsonl") };
        // A slow disk, so that the move comes in the middle of a write and no commit comes before the end.
        let mut command = Command::new("strace");
        engine.configure(&mut command);
        command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,write"]);
        command.args(["-e", "inject=fdatasync:delay_enter=300000", "-e", "inject=write:delay_enter=20000"]);
        command.arg(Watch::command().get_program());
        let (state, file) = (kept.state.to_str().unwrap(), kept.file.to_str().unwrap());
        let watch =
            Watch::spawn(command.args(["watch", "web", "--state", state, "--resume", "--format", "json", "-o", file]));
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        eventually("it is written to", || size(&kept.file) > 3_000_000);
        fs::rename(&kept.file, moved(&kept.file, 1)).unwrap();
        eventually("the new file is written to", || size(&kept.file) > 0);
        watch.signal(Signal::KILL);
        watch.finish();
        kept.read(&engine, &["web"]);
        let all = all(&kept.file, 1);
        Numbers::of_json(&all).assert_whole("web", 1..=100_000);
    }
}

/// The inode number of a removed file may belong to another file now; the creation time shows it.
#[test]
fn a_reused_inode_number_is_not_our_file() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let watch = kept.start(&engine, &[]);
    eventually("all came", || kept.count() == 50);
    watch.signal(Signal::KILL);
    watch.finish();
    let text = [fs::read(&kept.file).unwrap(), b"theirs\n".to_vec()].concat();
    fs::write(&kept.file, &text).unwrap();
    for file in fs::read_dir(kept.state.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains(".wal") {
            fs::remove_file(path).unwrap();
        }
    }
    let state = rusqlite::Connection::open(&kept.state).unwrap();
    state.execute("UPDATE outputs SET born = '2020-01-01T00:00:00.000000000Z'", []).unwrap();
    let said = kept.read(&engine, &[]).stderr;
    assert!(said.contains("is not the file that the last run wrote when it was interrupted"), "{said}");
    assert!(fs::read(&kept.file).unwrap().starts_with(&text));
}

/// A file that was removed just before the run ends is reported with what it held.
#[test]
fn a_removal_before_the_end_is_reported() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || count_lines(file) >= 10);
        fs::remove_file(file).unwrap();
        watch.stop()
    });
    for (file, finished) in runs {
        assert_eq!(finished.code, Some(0));
        let reported = finished.stderr.lines().find(|line| line.contains("was removed, and with it up to ")).unwrap();
        assert!(reported.starts_with(&file.canonicalize().unwrap().display().to_string()), "{reported}");
        assert_eq!(lines(&file), [""; 0]);
    }
}

/// When the folder is gone, a notice reports it, and the file that was moved with it is still written to.
#[test]
fn a_lost_folder_keeps_the_old_file() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let (folder, away) = (engine.home().join("logs"), engine.home().join("logs.old"));
    fs::create_dir(&folder).unwrap();
    let watch = plain(&engine, &folder.join("out.jsonl"));
    let written = |folder: &Path| count_lines(&folder.join("out.jsonl"));
    eventually("it is written to", || written(&folder) > 50);
    fs::write(&away, "").unwrap();
    exchange(&folder, &away);
    reported(&watch, "so lines still go to the moved file: Not a directory");
    let before = written(&away);
    eventually("it is gone on with", || written(&away) > before + 50);
    assert_eq!(watch.stop().code, Some(0));
}
