//! The file that lines are appended to is moved away, as logrotate does, or removed: another one takes its place, and all
//! of them together hold each line once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::life::messages;
use crate::resume::{Kept, lines};
use crate::support::{Engine, Finished, Numbers, PATIENCE, Signal, Watch, eventually};

const ROTATING: [&str; 4] = ["--log-opt", "max-size=200k", "--log-opt", "max-file=50"];

/// The name that the file gets when it is moved away for that time.
fn moved(file: &Path, turn: usize) -> PathBuf {
    file.with_extension(format!("jsonl.{turn}"))
}

/// What all of them hold, the oldest first.
fn all(file: &Path, turns: usize) -> Vec<String> {
    (1..=turns).map(|turn| lines(&moved(file, turn))).chain([lines(file)]).flatten().collect()
}

/// The numbers of the container's lines.
fn numbers(lines: &[String]) -> Vec<u64> {
    messages(lines, "web").iter().map(|message| message.trim_start_matches("line ").parse().unwrap()).collect()
}

/// In one step, or something could come between the two.
fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// A run without positions.
fn plain(engine: &Engine, file: &Path) -> Watch {
    Watch::start(engine, &["--format", "json", "-o", file.to_str().unwrap()])
}

fn told(watch: &Watch, text: &str) {
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains(text)), PATIENCE);
}

#[test]
fn moved_away_again_and_again_and_killed_before_it_is_noticed_all_files_together_hold_every_line_once_and_in_order() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    let words = ["--count", "24000", "--rate", "1500", "--stream", "alternating"];
    engine.run("json", &ROTATING, &words);
    engine.run("local", &[&ROTATING[..], &["--log-driver", "local"]].concat(), &words);
    let (mut watch, mut turns) = (kept.start(&engine, &[]), 0);
    while all(&kept.file, turns).len() < 40_000 {
        eventually("the new file is written to", || lines(&kept.file).len() > 100);
        turns += 1;
        fs::rename(&kept.file, moved(&kept.file, turns)).unwrap();
        if turns % 2 == 0 {
            watch.signal(Signal::KILL);
            watch.finish();
            watch = kept.start(&engine, &[]);
        }
    }
    eventually("all came", || all(&kept.file, turns).len() >= 48_000);
    assert_eq!(watch.stop().code, Some(0));
    assert!(turns > 10, "{turns} turns");
    let lines = all(&kept.file, turns);
    let numbers = Numbers::of_json(&lines);
    for name in ["json", "local"] {
        numbers.assert_whole(name, 1..=24_000);
    }
    assert!(lines.iter().all(|line| line.contains(r#""type":"log""#)), "no gap");
}

/// What a killed run left unfinished is finished in the file that it was moved to, or in the new one.
#[test]
fn a_file_moved_after_a_kill_is_found_and_left_whole() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let kill = || {
        let watch = kept.start(&engine, &[]);
        told(&watch, "+ web");
        watch.signal(Signal::KILL);
        watch.finish();
    };
    let watch = kept.start(&engine, &[]);
    eventually("all came", || kept.lines().len() == 50);
    watch.signal(Signal::KILL);
    watch.finish();
    // Killed in the middle of its last write, as it were.
    let whole = fs::read(&kept.file).unwrap();
    fs::write(&kept.file, &whole[..whole.len() - 5]).unwrap();
    let away = moved(&kept.file, 1);
    fs::rename(&kept.file, &away).unwrap();
    kept.read(&engine, &[]);
    let all = all(&kept.file, 1);
    Numbers::of_json(&all).assert_whole("web", 1..=50);
    // Moved after a run that ended well it is nobody's business any more.
    fs::rename(&kept.file, moved(&kept.file, 2)).unwrap();
    fs::write(moved(&kept.file, 2), "theirs\n").unwrap();
    assert_eq!(kept.read(&engine, &[]).stderr, "");
    assert_eq!(fs::read(moved(&kept.file, 2)).unwrap(), b"theirs\n");
    // One that is far away is not looked for: what was logged is taken for written.
    kill();
    let folder = engine.home().join("far");
    fs::create_dir(&folder).unwrap();
    fs::rename(&kept.file, folder.join("away")).unwrap();
    assert_eq!(kept.read(&engine, &[]).stderr, "");
    assert_eq!(kept.lines(), [""; 0]);
}

/// Whoever owns the folder could otherwise have root write where root alone may.
#[test]
fn a_link_planted_for_the_moved_file_is_not_followed() {
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
        eventually("it is written to", || lines(&file).len() > 20);
        let away = folder.join("away");
        // In one step, as an attacker who is fast enough.
        std::os::unix::fs::symlink(target, &away).unwrap();
        exchange(&file, &away);
        told(&watch, "cannot be reopened, so lines still go to the moved file: ");
        let before = lines(&away).len();
        eventually("it is gone on with", || lines(&away).len() > before + 20);
        assert_eq!(fs::read(&victim).unwrap(), b"secret\n");
        assert!(!new.exists());
        // Nor is a file of somebody else, who would read what root alone may.
        fs::remove_file(&file).unwrap();
        fs::write(&file, "").unwrap();
        chown(&file, Some(1000), Some(1000)).unwrap();
        let before = lines(&away).len();
        eventually("it is gone on with", || lines(&away).len() > before + 100);
        assert_eq!(fs::read(&file).unwrap(), b"");
        assert_eq!(watch.stop().code, Some(0));
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// The engine's logs are readable by root alone; so is what is made of them, whatever the umask.
#[test]
fn a_new_file_is_readable_by_its_owner_alone() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "3"]);
    engine.wait("web");
    for umask in ["000", "022", "077"] {
        let file = engine.home().join(umask);
        let mut command = Command::new("sh");
        engine.furnish(&mut command);
        let program = Watch::command().get_program().to_owned();
        let script = format!("umask {umask}; exec \"$0\" watch --no-follow -o {} web", file.display());
        assert!(command.args(["-c", &script]).arg(program).status().unwrap().success());
        assert_eq!((fs::metadata(&file).unwrap().mode() & 0o777, lines(&file).len()), (0o600, 3), "umask {umask}");
    }
}

#[test]
fn a_run_without_positions_follows_the_name_too_and_the_new_file_has_the_rights_and_the_owner_of_the_old_one() {
    let engine = Engine::start();
    let file = engine.home().join("out.jsonl");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o662)).unwrap();
    chown(&file, Some(1), Some(2)).unwrap();
    let watch = plain(&engine, &file);
    engine.run("web", &[], &["--count", "4000", "--rate", "1000"]);
    for turn in 1..=3 {
        eventually("it is written to", || lines(&file).len() > 100);
        fs::rename(&file, moved(&file, turn)).unwrap();
        told(&watch, "was moved away: continuing in a new file");
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

/// Of each run, with positions and without: what it wrote, and how it ended.
fn each(engine: &Engine, play: impl Fn(&Path, Watch) -> Finished) -> [(PathBuf, Finished); 2] {
    let kept = Kept { state: engine.home().join("state/state.db"), file: engine.home().join("kept.jsonl") };
    let file = engine.home().join("plain.jsonl");
    let runs = [(kept.file.clone(), kept.start(engine, &[])), (file.clone(), plain(engine, &file))];
    runs.map(|(file, watch)| {
        told(&watch, "+ web");
        let finished = play(&file, watch);
        (file, finished)
    })
}

#[test]
fn removed_it_is_made_anew_and_what_was_just_written_is_told_to_be_gone() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || lines(file).len() > 50);
        fs::remove_file(file).unwrap();
        told(&watch, "was removed");
        eventually("a new one is written to", || lines(file).len() > 50);
        watch.stop()
    });
    for (file, finished) in runs {
        assert_eq!(finished.code, Some(0));
        let name = file.canonicalize().unwrap();
        let told = finished.stderr.lines().find(|line| line.contains("was removed")).unwrap();
        let rest = told.strip_prefix(&format!("{} was removed", name.display())).unwrap();
        assert!(rest.ends_with(": continuing in a new file"), "{told}");
        if rest != ": continuing in a new file" {
            let lost: u64 =
                rest.strip_prefix(", and with it up to ").unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!((1..20_000).contains(&lost), "{told}");
        }
        let numbers = numbers(&lines(&file));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "whole from where it begins");
    }
}

#[test]
fn where_no_new_one_can_be_opened_the_moved_one_is_gone_on_with_and_a_removed_one_ends_the_run() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || lines(file).len() > 50);
        let away = moved(file, 1);
        fs::create_dir(&away).unwrap();
        exchange(&away, file);
        told(&watch, "so it is written to where it is now: it is no regular file any more");
        let before = lines(&away).len();
        eventually("it is gone on with", || lines(&away).len() > before + 100);
        fs::remove_dir(file).unwrap();
        told(&watch, "was moved away: continuing in a new file");
        eventually("the new one is written to", || lines(file).len() > 50);
        // The last line may be half there.
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
        let error = format!("error: cannot open {}\n  caused by: it is no regular file any more\n", name.display());
        assert!(finished.code == Some(1) && finished.stderr.contains(&error), "{}", finished.stderr);
        assert_eq!(finished.stderr.matches("where it is now").count(), 1, "{}", finished.stderr);
    }
}

/// The right to write goes with the name, so the moved file is free.
#[test]
fn the_new_file_belongs_to_its_run_like_the_old_one() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let watch = kept.start(&engine, &[]);
    eventually("it is written to", || kept.lines().len() > 50);
    fs::rename(&kept.file, moved(&kept.file, 1)).unwrap();
    told(&watch, "was moved away: continuing in a new file");
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
    told(&third, "+ web");
    assert_eq!(third.stop().code, Some(0));
    assert_eq!(watch.stop().code, Some(0));
}

#[test]
fn while_the_state_is_locked_the_moved_one_is_gone_on_with_until_the_new_one_counts() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "4500", "--rate", "500"]);
    let watch = kept.start(&engine, &[]);
    eventually("it is written to", || lines(&kept.file).len() > 100);
    let other = rusqlite::Connection::open(&kept.state).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    fs::rename(&kept.file, moved(&kept.file, 1)).unwrap();
    told(&watch, "is locked by another program");
    assert_eq!(kept.lines(), [""; 0], "nothing that no position tells of");
    other.execute_batch("ROLLBACK").unwrap();
    told(&watch, "was moved away: continuing in a new file");
    eventually("it is written to", || lines(&kept.file).len() > 100);
    watch.signal(Signal::KILL);
    watch.finish();
    engine.wait("web");
    kept.read(&engine, &[]);
    Numbers::of_json(&all(&kept.file, 1)).assert_whole("web", 1..=4500);
}

/// A flood leaves in large writes, so that a part of what was taken is in the moved file while the rest still waits.
#[test]
fn killed_in_a_flood_just_after_it_was_moved_away_no_line_is_in_both_files() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "100000"]);
    engine.wait("web");
    for turn in 0..3 {
        let home = engine.home().join(format!("{turn}"));
        fs::create_dir(&home).unwrap();
        let kept = Kept { state: home.join("state/state.db"), file: home.join("out.jsonl") };
        // A disk that takes its time, so that the move comes in the middle and no commit before the end.
        let mut command = Command::new("strace");
        engine.furnish(&mut command);
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

/// A removed file's inode number may be that of a file of others now; its birth tells.
#[test]
fn a_file_of_others_with_the_old_inode_number_is_left_alone() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let watch = kept.start(&engine, &[]);
    eventually("all came", || kept.lines().len() == 50);
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
    assert!(said.contains("is not the file that the last run wrote, which did not end well"), "{said}");
    assert!(fs::read(&kept.file).unwrap().starts_with(&text));
}

#[test]
fn removed_just_before_the_end_it_is_told_what_went_with_it() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let runs = each(&engine, |file, watch| {
        eventually("it is written to", || lines(file).len() >= 10);
        fs::remove_file(file).unwrap();
        watch.stop()
    });
    for (file, finished) in runs {
        assert_eq!(finished.code, Some(0));
        let told = finished.stderr.lines().find(|line| line.contains("was removed, and with it up to ")).unwrap();
        assert!(told.starts_with(&file.canonicalize().unwrap().display().to_string()), "{told}");
        assert_eq!(lines(&file), [""; 0]);
    }
}

#[test]
fn a_folder_that_is_moved_away_and_is_no_folder_any_more_is_told_and_its_file_gone_on_with() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let (folder, away) = (engine.home().join("logs"), engine.home().join("logs.old"));
    fs::create_dir(&folder).unwrap();
    let watch = plain(&engine, &folder.join("out.jsonl"));
    let written = |folder: &Path| lines(&folder.join("out.jsonl")).len();
    eventually("it is written to", || written(&folder) > 50);
    fs::write(&away, "").unwrap();
    exchange(&folder, &away);
    told(&watch, "so it is written to where it is now: Not a directory");
    let before = written(&away);
    eventually("it is gone on with", || written(&away) > before + 50);
    assert_eq!(watch.stop().code, Some(0));
}
