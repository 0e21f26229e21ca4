//! `install.sh`: what it installs, with which modes, what it removes and what it refuses; and the demo, which leaves
//! nothing behind, however it ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{PATIENCE, Signal, Watch, eventually, process, watchdog};

const BINARY: &str = env!("CARGO_BIN_EXE_docker-logwatch");

/// User and group ID of an ordinary user.
const NOBODY: &str = "65534";

/// The script, without environment variables of the caller that would redirect it.
fn installer() -> Command {
    let mut command = Command::new(here("install.sh"));
    settle(&mut command);
    command
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn settle(command: &mut Command) {
    watchdog::mark(command);
    for variable in ["DOCKER_CONFIG", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_DIRS"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
}

/// The same in a shell that runs `before` first.
fn installer_after(before: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(here("install.sh"));
    settle(&mut shell);
    shell
}

fn install(command: &mut Command, prefix: &Path) -> Output {
    command.args(["--binary", BINARY, "--prefix"]).arg(prefix).output().unwrap()
}

fn uninstall(prefix: &Path) -> Output {
    installer().arg("--uninstall").arg("--prefix").arg(prefix).output().unwrap()
}

#[track_caller]
fn assert_done(output: &Output) -> String {
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {reported}", output.status);
    reported
}

#[track_caller]
fn assert_refused(output: &Output, args: &str) {
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && reported.contains(args), "{}: {reported}", output.status);
    // What a program prints that does not know of the problem.
    assert!(!reported.contains("rm: ") && !reported.contains("mkdir: "), "{reported}");
}

/// All files below a directory, without links.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all.retain(|path| !path.is_symlink());
    all.sort();
    all
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Files that root removes by a list, and programs that root runs, must not be writable by others.
#[test]
fn the_umask_does_not_change_modes() {
    for mask in ["0", "022", "077"] {
        let dir = TempDir::new().unwrap();
        let prefix = dir.path().join("new/prefix");
        assert_done(&install(&mut installer_after(&format!("umask {mask}")), &prefix));
        let all = below(dir.path());
        assert!(all.len() > 10, "{all:?}");
        for path in all {
            let is_program = path.ends_with("cli-plugins/docker-logwatch");
            let expected = if path.is_dir() || is_program { 0o755 } else { 0o644 };
            assert_eq!(mode(&path), expected, "umask {mask}: {}", path.display());
        }
        assert_done(&uninstall(&prefix));
        assert!(below(dir.path()).is_empty(), "umask {mask}: {:?}", below(dir.path()));
    }
}

/// What is not from the installation stays, and is named.
#[test]
fn uninstall_names_what_it_removes_and_leaves() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    fs::create_dir_all(state.join("docker-logwatch")).unwrap();
    let prefix = dir.path().join("prefix");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::write(prefix.join("bin/other"), "").unwrap();
    assert_done(&install(&mut installer(), &prefix));
    let mut command = installer();
    command.args(["--uninstall", "--prefix"]).arg(&prefix).env("XDG_STATE_HOME", &state);
    let reported = assert_done(&command.output().unwrap());
    let (removed, left) = reported.split_once("left, ").unwrap();
    for path in ["lib/docker/cli-plugins/docker-logwatch", "bin/docker-logwatch", "share/man/man1/docker-logwatch.1"] {
        assert!(removed.contains(&format!("  {}\n", prefix.join(path).display())), "{path}: {reported}");
    }
    assert!(left.contains(&format!("  {}\n", state.join("docker-logwatch").display())), "{reported}");
    assert!(left.contains("packages"), "{reported}");
    assert_eq!(below(&prefix), [prefix.join("bin"), prefix.join("bin/other")]);
    assert_refused(&uninstall(&prefix), "nothing to remove");
}

/// Whoever can write to the list, or replace it, could choose what root deletes.
#[test]
fn a_writable_manifest_is_ignored() {
    let dir = TempDir::new().unwrap();
    let prefix = dir.path().join("prefix");
    let manifest = prefix.join("share/docker-logwatch/installed");
    let folder = manifest.parent().unwrap();
    assert_done(&install(&mut installer(), &prefix));
    let installed = below(&prefix);
    let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let own = |path: &Path, id: u32| std::os::unix::fs::chown(path, Some(id), None).unwrap();
    for (path, loose, tight) in [(&*manifest, 0o666, 0o644), (&manifest, 0o664, 0o644), (folder, 0o777, 0o755)] {
        set(path, loose);
        assert_refused(&uninstall(&prefix), "is not trusted");
        assert_refused(&install(&mut installer(), &prefix), "is not trusted");
        set(path, tight);
    }
    for path in [&*manifest, folder] {
        own(path, 65534);
        assert_refused(&uninstall(&prefix), "is not trusted");
        own(path, 0);
    }
    let moved = dir.path().join("moved");
    for path in [&*manifest, folder] {
        fs::rename(path, &moved).unwrap();
        symlink(&moved, path).unwrap();
        assert_refused(&uninstall(&prefix), "is not trusted");
        fs::remove_file(path).unwrap();
        fs::rename(&moved, path).unwrap();
    }
    assert_eq!(below(&prefix), installed);
    assert_done(&uninstall(&prefix));
    assert!(!prefix.exists());
}

/// A manifest that was tampered with removes no file of others.
#[test]
fn a_manifest_removes_only_known_files() {
    let dir = TempDir::new().unwrap();
    let prefix = dir.path().join("prefix");
    assert_done(&install(&mut installer(), &prefix));
    let manifest = prefix.join("share/docker-logwatch/installed");
    let (file, folder) = (dir.path().join("precious"), dir.path().join("empty"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::create_dir(prefix.join("share/man/man1/docker-logwatch-x")).unwrap();
    let detour = prefix.join("share/man/man1/docker-logwatch-x/../../../../../precious");
    fs::write(prefix.join("bin/other"), "").unwrap();
    let lines = format!(
        "file {0}\nfile {1}\nfile {1}.1\nfile {2}/bin/other\ndir {3}\ndir /\n",
        file.display(),
        detour.display(),
        prefix.display(),
        folder.display()
    );
    fs::write(dir.path().join("precious.1"), "").unwrap();
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &lines).unwrap();
    let reported = assert_done(&uninstall(&prefix));
    assert_eq!(reported.matches("left alone: ").count(), 6, "{reported}");
    for path in [&file, &folder, &dir.path().join("precious.1"), &prefix.join("bin/other")] {
        assert!(path.exists(), "{}", path.display());
    }
    assert!(!prefix.join("lib").exists());
}

/// Debian 13 has the client in its own package, which docker.io only recommends. A machine whose package lists were
/// never fetched cannot know that before `apt-get update`. The test replaces apt by a script that knows a package only
/// after an update.
#[test]
fn the_docker_client_is_chosen_after_apt_update() {
    let dir = TempDir::new().unwrap();
    let tool = |name: &str, script: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool("apt-get", r#"case $* in update*) touch "$LISTS" ;; *) echo "$*" >>"$CALLS" ;; esac"#);
    tool("apt-cache", r#"[ -e "$LISTS" ] && [ "$RELEASE" = 13 ]"#);
    let alone = "docker-client-alone";
    for (release, asked, installed) in [
        ("13", "docker.io docker-client", Some("docker.io docker-cli")),
        ("12", "docker-client", Some("docker.io")),
        ("13", alone, Some("docker-cli")),
        // On that release it would install an engine, which nobody requested.
        ("12", alone, None),
        ("12", "gcc docker-client-alone", Some("gcc")),
    ] {
        let (lists, calls) = (dir.path().join("lists"), dir.path().join("calls"));
        let _ = (fs::remove_file(&lists), fs::remove_file(&calls));
        let mut shell = Command::new("bash");
        settle(&mut shell);
        shell.args(["-ec", &format!(". scripts/common.sh; install_packages {asked}")]).current_dir(here(""));
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        shell.env("PATH", path).env("LISTS", &lists).env("CALLS", &calls).env("RELEASE", release);
        assert_done(&shell.output().unwrap());
        let called = fs::read_to_string(&calls).ok();
        let packages = called.as_deref().and_then(|line| line.trim_end().split_once("--no-install-recommends "));
        assert_eq!(packages.map(|(_, packages)| packages), installed, "{release}: {asked}");
    }
}

/// Runs the script in its own mount namespace with another /usr/local.
fn apart(script: &str) -> Output {
    let mut command = Command::new("unshare");
    settle(&mut command);
    let begin =
        "mount -t tmpfs -o mode=755 none /usr/local && mkdir -p /etc/fish && mount -t tmpfs -o mode=755 none /etc/fish";
    command.args(["--mount", "bash", "-ec", &format!("{begin}; {script}")]);
    command.env("INSTALL", here("install.sh")).env("BINARY", BINARY).output().unwrap()
}

/// SSH sessions and services have no XDG_DATA_DIRS, and then fish searches nothing below /usr/local.
#[test]
fn fish_finds_system_completions() {
    let output = apart(
        r#""$INSTALL" --yes --system --binary "$BINARY" >&2
        env -i HOME=/nonexistent PATH=/usr/local/bin:/usr/bin:/bin fish -c 'complete -C "docker-logwatch wat"'
        "$INSTALL" --uninstall --system
        [ -z "$(find /usr/local /etc/fish -mindepth 1)" ]"#,
    );
    assert_done(&output);
    let offered = String::from_utf8_lossy(&output.stdout);
    assert!(offered.starts_with("watch\tFollow the logs"), "{offered}");
}

/// This is the case without sudo; with it, the script uses sudo to put the files in place.
#[test]
fn an_ordinary_user_cannot_install_for_all() {
    let user = format!(
        "setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups env HOME=/nonexistent PATH=/nonexistent:$PATH"
    );
    let hide = "for sudo in $(type -ap sudo); do mount --bind /dev/null \"$sudo\"; done";
    let output = apart(&format!("{hide}; {user} \"$INSTALL\" --system --binary \"$BINARY\""));
    assert_refused(&output, "only root can write to /usr/local");
    let output = apart(&format!(
        "{hide}; \"$INSTALL\" --yes --system --binary \"$BINARY\" 2>/dev/null; {user} \"$INSTALL\" --uninstall --system"
    ));
    assert_refused(&output, "only root can write to /usr/local");
}

/// A question on a terminal, answered with no; without a terminal, a failure where packages would be installed.
#[test]
fn nothing_is_done_before_somebody_has_agreed() {
    let dir = TempDir::new().unwrap();
    let prefix = dir.path().join("prefix");
    let line = format!("{} --binary {BINARY} --prefix {}", here("install.sh").display(), prefix.display());
    let mut shell = Command::new("bash");
    settle(&mut shell);
    let terminal = shell.args(["-c", "echo n | script -qec \"$0\" /dev/null", &line]).output().unwrap();
    let reported = String::from_utf8_lossy(&terminal.stdout);
    assert!(reported.contains("This is going to") && reported.contains("Go on? [Y/n]"), "{reported}");
    assert!(reported.contains("nothing was done") && !prefix.exists(), "{reported}");
    // A machine without a C compiler, according to PATH.
    let tools = dir.path().join("tools");
    fs::create_dir(&tools).unwrap();
    for tool in
        ["bash", "dirname", "id", "uname", "sort", "sed", "cut", "head", "apt-get", "nproc", "cargo", "rustc", "stat"]
    {
        let path = std::env::var("PATH").unwrap();
        let mut found = std::env::split_paths(&path).map(|folder| folder.join(tool));
        symlink(found.find(|path| path.exists()).unwrap(), tools.join(tool)).unwrap();
    }
    let mut command = Command::new("bash");
    settle(&mut command);
    command.arg(here("install.sh")).arg("--prefix").arg(&prefix).env("PATH", &tools);
    command.env("CARGO_TARGET_DIR", dir.path().join("target"));
    assert_refused(&command.output().unwrap(), "missing: gcc; run this again with --deps or --yes");
    assert!(!prefix.exists() && !dir.path().join("target").exists());
}

/// Starts a demo with the shell command `line`, where `$0` is the script with its arguments. Returns also the directory
/// of its engine, once the watch has printed something.
fn demo(line: &str) -> (Watch, PathBuf) {
    let args = format!("{} --demo --yes --binary {BINARY}", here("install.sh").display());
    let mut shell = Command::new("bash");
    settle(&mut shell);
    let demo = Watch::spawn(shell.args(["-c", line, &args]));
    let is_up = |lines: &[String]| lines.iter().any(|line| line.contains("steady 00000"));
    demo.wait_for(is_up, PATIENCE * 4);
    let all = [demo.lines(), demo.notices()].concat();
    let host = all.iter().find_map(|line| line.split("unix://").nth(1)).unwrap_or_else(|| panic!("{all:?}"));
    let home = Path::new(host.split("/docker.sock").next().unwrap()).to_owned();
    assert!(process::family(&home).len() > 6, "{}", home.display());
    (demo, home)
}

#[track_caller]
fn assert_gone(home: &Path, how: &str) {
    eventually(&format!("the demo's folder is gone after {how}"), || !home.exists());
    assert_eq!(process::family(home), [0; 0], "{how}");
    let socket = format!("unix://{}/", home.display());
    let names_it = |pid: &u32| process::command(*pid).contains(&socket);
    eventually(&format!("nothing names its socket after {how}"), || !process::all().any(|pid| names_it(&pid)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(home.to_str().unwrap()), "{how}: {mounts}");
    assert_eq!(cgroups(home), "", "{how}");
}

/// The control groups of the demo's engine, one per line.
fn cgroups(home: &Path) -> String {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name"]).arg(home.file_name().unwrap()).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

/// A demo without a terminal ends by itself and installs nothing.
#[test]
fn a_demo_without_terminal_installs_nothing() {
    let (demo, home) = demo("exec $0");
    demo.wait_for_notice(|lines| lines.iter().any(|line| line.contains("nothing was installed; ")), PATIENCE * 4);
    let finished = demo.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_gone(&home, "its end");
}

/// Root's engine must not outlive the demo, whatever happened to its terminal and outputs.
#[test]
fn an_interrupted_demo_leaves_no_process() {
    for signal in [Signal::HUP, Signal::TERM, Signal::QUIT, Signal::KILL] {
        let (demo, home) = demo("exec $0");
        demo.signal(signal);
        assert_gone(&home, &format!("{signal:?}"));
    }
    // From now on nobody reads its output, neither lines nor notices.
    let (_demo, home) = demo("$0 2>&1 | sed -u '/steady 000000012/q'");
    assert_gone(&home, "the end of its readers");
}

/// A hang-up ends the engine of a demo as well.
#[test]
fn closing_the_terminal_ends_a_demo() {
    // The terminal vanishes with the program that provides it.
    let (terminal, home) = demo("exec script -qfec \"exec $0\" /dev/null");
    terminal.signal(Signal::KILL);
    assert_gone(&home, "the end of the terminal");
}

/// When a shim is killed while runc starts its container, `runc init` remains: nothing names the demo's directory on its
/// command line, and its parent is gone.
#[test]
fn half_started_containers_end_with_a_demo() {
    let (demo, home) = demo("exec $0");
    let group = Path::new(cgroups(&home).lines().next().unwrap()).join("half-started");
    fs::create_dir(&group).unwrap();
    let mut stray = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), stray.id().to_string()).unwrap();
    demo.signal(Signal::TERM);
    assert_eq!(stray.wait().unwrap().signal(), Some(9));
    assert_gone(&home, "the death of a container that was just being started");
}

/// Ctrl-C reaches script, docker's CLI and plugin alike; the script continues with its cleanup.
#[test]
fn ctrl_c_ends_a_demo_well() {
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys");
    assert!(Command::new("mkfifo").arg(&keys).status().unwrap().success());
    // `exec`, because a shell in between that gets the signal as well may react on its own.
    let line = format!("exec script -qfec \"exec $0\" /dev/null <>'{}'", keys.display());
    let (terminal, home) = demo(&line);
    fs::write(&keys, "\u{3}").unwrap();
    terminal.wait_for(|lines| lines.iter().any(|line| line.contains("nothing was installed; ")), PATIENCE * 4);
    assert_gone(&home, "Ctrl-C");
    assert_eq!(terminal.finish().code, Some(0));
}
