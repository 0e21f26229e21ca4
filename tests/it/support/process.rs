//! Facts about processes from `/proc`: costs, children, environment. A process that has ended costs nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The length of a tick in `/proc/PID/stat`: the kernel's USER_HZ, 100 wherever Docker runs.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all threads since the start. `stat` includes ended threads but counts in ticks; `schedstat` counts
/// nanoseconds but only of live threads. So the larger one is closer.
pub fn cpu(pid: u32) -> Duration {
    let ticks = stat(pid).map_or(0, |fields| fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let exact: u64 = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    (TICK * ticks).max(Duration::from_nanos(exact))
}

/// Its peak memory in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Its resident memory in bytes.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The targets of its open descriptors.
pub fn open_files(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned())).collect()
}

pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Whether it runs; a zombie does not.
pub fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// Its command line, arguments separated by spaces.
pub fn command(pid: u32) -> String {
    let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&args).replace('\0', " ").trim_end().to_owned()
}

pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = kill_process(pid, signal);
    }
}

/// The processes whose environment has an entry that starts with `begin`.
pub fn with_variable(begin: &str) -> impl Iterator<Item = u32> {
    let has = move |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(begin.as_bytes()))
    };
    all().filter(has)
}

/// Whether this process ignores SIGHUP (proc(5), `SigIgn`).
pub fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 1 == 1
}

/// The engine's programs that were started for the directory `home`, and all their descendants. `containerd` and its
/// shims have the directory on their command line, and a container is a child of its shim; so does `conmon`, whose
/// child is a container of Podman.
pub fn family(home: &Path) -> Vec<u32> {
    let home = format!("{}/", home.display());
    let all = parents();
    let mut family: Vec<u32> = Vec::new();
    for (pid, _) in &all {
        let command = command(*pid);
        let program = command.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        if (matches!(program, "dockerd" | "podman" | "conmon") || program.starts_with("containerd"))
            && command.contains(&home)
        {
            family.push(*pid);
        }
    }
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        for (pid, ppid) in &all {
            if *ppid == parent && !family.contains(pid) {
                family.push(*pid);
            }
        }
        next += 1;
    }
    family
}

/// Its children that still run.
pub fn children(pid: u32) -> Vec<u32> {
    parents().into_iter().filter(|(child, parent)| *parent == pid && lives(*child)).map(|(child, _)| child).collect()
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    all().filter_map(|pid| Some((pid, stat(pid)?[1].parse().ok()?))).collect()
}

/// Every process.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` from the state on. The name before it may contain spaces and parentheses.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
