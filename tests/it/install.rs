//! `install.sh`: what it installs, with which modes, what it removes and what it refuses to; and the demo, which leaves
//! nothing behind, whatever ends it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{PATIENCE, Signal, Watch, eventually, process, watchdog};

const BINARY: &str = env!("CARGO_BIN_EXE_docker-logwatch");

/// An ordinary user's and group's id.
const NOBODY: &str = "65534";

/// The script, with nothing of the caller's environment that would lead it elsewhere.
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

/// The same under a shell that runs `before` first.
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
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {told}", output.status);
    told
}

#[track_caller]
fn assert_refused(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains(words), "{}: {told}", output.status);
    // What a program that was not told of the trouble says.
    assert!(!told.contains("rm: ") && !told.contains("mkdir: "), "{told}");
}

/// Everything below a folder, without links.
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

/// What root removes by a list must not be in the hands of others, and what it runs neither.
#[test]
fn no_umask_changes_the_modes_of_what_is_installed() {
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

#[test]
fn uninstall_names_what_it_removes_and_what_it_leaves() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    fs::create_dir_all(state.join("docker-logwatch")).unwrap();
    let prefix = dir.path().join("prefix");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::write(prefix.join("bin/other"), "").unwrap();
    assert_done(&install(&mut installer(), &prefix));
    let mut command = installer();
    command.args(["--uninstall", "--prefix"]).arg(&prefix).env("XDG_STATE_HOME", &state);
    let told = assert_done(&command.output().unwrap());
    let (removed, left) = told.split_once("left, ").unwrap();
    for path in ["lib/docker/cli-plugins/docker-logwatch", "bin/docker-logwatch", "share/man/man1/docker-logwatch.1"] {
        assert!(removed.contains(&format!("  {}\n", prefix.join(path).display())), "{path}: {told}");
    }
    assert!(left.contains(&format!("  {}\n", state.join("docker-logwatch").display())), "{told}");
    assert!(left.contains("packages"), "{told}");
    assert_eq!(below(&prefix), [prefix.join("bin"), prefix.join("bin/other")]);
    assert_refused(&uninstall(&prefix), "nothing to remove");
}

/// Whoever could write to the list, or put another in its place, would choose what root deletes.
#[test]
fn a_list_that_others_could_write_is_not_followed() {
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

#[test]
fn a_list_leads_to_nothing_that_the_script_does_not_install() {
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
    let told = assert_done(&uninstall(&prefix));
    assert_eq!(told.matches("left alone: ").count(), 6, "{told}");
    for path in [&file, &folder, &dir.path().join("precious.1"), &prefix.join("bin/other")] {
        assert!(path.exists(), "{}", path.display());
    }
    assert!(!prefix.join("lib").exists());
}

/// Debian 13 has the client in a package of its own, which docker.io only recommends; a machine that has never been told of
/// its packages cannot know before `apt-get update`. apt is played here, and knows a package only once it was updated.
#[test]
fn the_docker_client_is_chosen_once_apt_has_its_lists() {
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
        // There it would bring an engine along, which nobody asked for.
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

/// Runs the script in a mount namespace of its own, where /usr/local is another.
fn apart(script: &str) -> Output {
    let mut command = Command::new("unshare");
    settle(&mut command);
    let begin =
        "mount -t tmpfs -o mode=755 none /usr/local && mkdir -p /etc/fish && mount -t tmpfs -o mode=755 none /etc/fish";
    command.args(["--mount", "bash", "-ec", &format!("{begin}; {script}")]);
    command.env("INSTALL", here("install.sh")).env("BINARY", BINARY).output().unwrap()
}

/// An ssh session and a service have no XDG_DATA_DIRS, and then fish looks nowhere below /usr/local.
#[test]
fn fish_finds_the_completion_of_a_system_without_xdg_data_dirs() {
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

/// Without sudo, that is; with it the script asks that to put the files in place.
#[test]
fn an_ordinary_user_is_told_that_a_system_takes_root() {
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

/// A question on a terminal, answered with no, and without one a failure where packages would be installed.
#[test]
fn nothing_is_done_before_somebody_has_agreed() {
    let dir = TempDir::new().unwrap();
    let prefix = dir.path().join("prefix");
    let line = format!("{} --binary {BINARY} --prefix {}", here("install.sh").display(), prefix.display());
    let mut shell = Command::new("bash");
    settle(&mut shell);
    let terminal = shell.args(["-c", "echo n | script -qec \"$0\" /dev/null", &line]).output().unwrap();
    let told = String::from_utf8_lossy(&terminal.stdout);
    assert!(told.contains("This is going to") && told.contains("Go on? [Y/n]"), "{told}");
    assert!(told.contains("nothing was done") && !prefix.exists(), "{told}");
    // A machine without a C compiler, as far as PATH can tell.
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

/// A demo, started by a shell as `line` says where `$0` is the script with its words; and the folder of its engine, once
/// its watch has said something.
fn demo(line: &str) -> (Watch, PathBuf) {
    let words = format!("{} --demo --yes --binary {BINARY}", here("install.sh").display());
    let mut shell = Command::new("bash");
    settle(&mut shell);
    let demo = Watch::spawn(shell.args(["-c", line, &words]));
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
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name"]).arg(home.file_name().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{how}");
}

#[test]
fn a_demo_without_a_terminal_ends_by_itself_and_installs_nothing() {
    let (demo, home) = demo("exec $0");
    demo.wait_for_notice(|lines| lines.iter().any(|line| line.contains("nothing was installed; ")), PATIENCE * 4);
    let finished = demo.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_gone(&home, "its end");
}

/// Root's engine must not outlive the demo, whatever its terminal and its outputs came to.
#[test]
fn a_demo_that_is_cut_short_leaves_nothing_running() {
    for signal in [Signal::HUP, Signal::TERM, Signal::QUIT, Signal::KILL] {
        let (demo, home) = demo("exec $0");
        demo.signal(signal);
        assert_gone(&home, &format!("{signal:?}"));
    }
    // Nobody reads what it says any more, neither lines nor notices.
    let (_demo, home) = demo("$0 2>&1 | sed -u '/steady 000000012/q'");
    assert_gone(&home, "the end of its readers");
}

#[test]
fn closing_the_terminal_of_a_demo_leaves_nothing_running() {
    // The terminal is gone with the program that plays it.
    let (terminal, home) = demo("exec script -qfec \"exec $0\" /dev/null");
    terminal.signal(Signal::KILL);
    assert_gone(&home, "the end of the terminal");
}

/// Ctrl-C reaches script, docker CLI and plugin alike; the script goes on to clear up.
#[test]
fn ctrl_c_ends_a_demo_well() {
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys");
    assert!(Command::new("mkfifo").arg(&keys).status().unwrap().success());
    // script(1) starts it by way of a shell. One that stays in between gets the signal too, and may answer with its own code.
    let line = format!("exec script -qfec \"exec $0\" /dev/null <>'{}'", keys.display());
    let (terminal, home) = demo(&line);
    fs::write(&keys, "\u{3}").unwrap();
    terminal.wait_for(|lines| lines.iter().any(|line| line.contains("nothing was installed; ")), PATIENCE * 4);
    assert_gone(&home, "Ctrl-C");
    assert_eq!(terminal.finish().code, Some(0));
}
