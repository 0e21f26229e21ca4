//! A private Docker engine with containers that write numbered lines.
//!
//! Each [`Engine`] is a `dockerd` with its own directory, socket, containerd and cgroup; it never touches the machine's
//! own engine, and any number can run at once. Dropping it ends it, also when the test fails; what a killed test
//! process leaves behind is cleared by the next one that starts an engine. `dockerd` starts its own `containerd` below
//! `--exec-root`. That dies with it, but shims, containers and mounts survive a killed `dockerd`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logwatch::internals::docker::Version;
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::{Signal, eventually, process, watchdog};

/// The image that holds `/chatter` and nothing else.
pub const IMAGE: &str = "logwatch-test";

/// Every engine's directory starts with this. It is short because a socket path is limited to 108 bytes and containerd
/// appends its own part.
const HOME: &str = "/tmp/lw-";

/// A running engine, or one that the test has stopped or killed.
pub struct Engine {
    home: PathBuf,
    options: Vec<String>,
    /// The value of `TZ`; empty for UTC.
    zone: &'static str,
    /// Where its programs are found, in the form of `PATH`.
    path: Mutex<String>,
    daemon: Mutex<Option<Child>>,
    /// Locked while we live. An engine whose claim is not locked was abandoned and may be cleared.
    _claim: File,
}

impl Engine {
    /// Starts an engine that has the test image.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same with additional `dockerd` options such as `--live-restore`.
    pub fn with(options: &[&str]) -> Self {
        Self::from(std::env::var("PATH").unwrap_or_default(), options, "")
    }

    /// The same in a time zone such as `Europe/Amsterdam`.
    pub fn in_zone(zone: &'static str) -> Self {
        Self::from(std::env::var("PATH").unwrap_or_default(), &[], zone)
    }

    /// Starts the machine's own version, also when the tests run with another one.
    pub fn of_the_machine(options: &[&str]) -> Self {
        Self::from(machines_path(), options, "")
    }

    fn from(path: String, options: &[&str], zone: &'static str) -> Self {
        assert!(geteuid().is_root(), "these tests start a Docker engine of their own, so they must run as root");
        let image = image();
        clear_orphans();
        let (home, claim) = new_home();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        watchdog::watch_engine(&home);
        // From here on Drop cleans up, also when starting fails.
        let engine = Self { home, options, zone, path: Mutex::new(path), daemon: Mutex::default(), _claim: claim };
        fs::create_dir(engine.config_dir()).unwrap();
        engine.up();
        let change = "ENTRYPOINT [\"/chatter\"]";
        engine.must(&["import", "--change", change, image.to_str().unwrap(), IMAGE]);
        engine
    }

    /// The directory that holds everything of this engine.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The data root of `dockerd`.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("docker.sock")
    }

    /// The value for `-H` and `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A value for `DOCKER_CONFIG`: without contexts, plugins or the user's settings.
    pub fn config_dir(&self) -> PathBuf {
        self.home.join("config")
    }

    /// The docker CLI of a Debian suite, unpacked outside the system's own directories.
    pub fn client_of(&self, suite: &str) -> PathBuf {
        Path::new(&unpacked(&["--client", suite])).join("docker")
    }

    /// Stops it as a service manager does, and starts the version of a Debian suite on the same data.
    pub fn become_that_of(&self, suite: &str) {
        let folders = unpacked(&[suite]);
        self.stop();
        *self.path.lock().unwrap() = format!("{folders}:{}", machines_path());
        self.up();
    }

    /// The version of `dockerd`, such as `20.10.24`.
    pub fn version(&self) -> String {
        self.must(&["version", "--format", "{{.Server.Version}}"])
    }

    /// The docker CLI for this engine, without environment variables of the caller that would lead it to another one.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        self.configure(&mut command);
        command
    }

    /// Points `command` at this engine, and keeps it out of the user's home.
    pub fn configure(&self, command: &mut Command) {
        watchdog::mark(command);
        let strays = std::env::vars_os().map(|(name, _)| name);
        for name in strays.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("DOCKER_") || name.starts_with("XDG_") || name.starts_with("LOGWATCH_")
        }) {
            command.env_remove(name);
        }
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.config_dir()).env("HOME", &self.home);
        command.stdin(Stdio::null());
    }

    /// Runs the docker CLI, whether or not it succeeds.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the docker CLI is needed: apt-get install docker.io")
    }

    /// Runs the docker CLI, which must succeed, and returns what it printed, trimmed.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.docker(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {}\n{stdout}{stderr}", output.status);
        stdout.trim().to_owned()
    }

    /// The API version that we speak with this engine: its newest, limited to the newest we know.
    pub fn spoken(&self) -> Version {
        let newest: Version = self.must(&["version", "--format", "{{.Server.APIVersion}}"]).parse().unwrap();
        newest.min(Version { major: 1, minor: 44 })
    }

    /// Starts a container that runs `/chatter` with these arguments; returns its ID.
    pub fn run(&self, name: &str, options: &[&str], args: &[&str]) -> String {
        self.must(&[&["run", "--detach"], self.container(name).as_slice(), options, &[IMAGE], args].concat())
    }

    /// The same without starting it.
    pub fn create(&self, name: &str, options: &[&str], args: &[&str]) -> String {
        self.must(&[&["create"], self.container(name).as_slice(), options, &[IMAGE], args].concat())
    }

    /// As PID 1 the program ignores SIGTERM, and the engine has no network to offer.
    fn container<'a>(&self, name: &'a str) -> [&'a str; 6] {
        ["--name", name, "--network", "none", "--stop-signal", "KILL"]
    }

    /// Waits until the container has ended; returns its exit code.
    pub fn wait(&self, container: &str) -> i64 {
        self.must(&["wait", container]).parse().unwrap()
    }

    /// The full ID of a container.
    pub fn id(&self, container: &str) -> String {
        self.must(&["inspect", "--type", "container", "--format", "{{.Id}}", container])
    }

    /// The directory where the engine keeps a container's files, logs included.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        let id = if id.len() == 64 { id.to_owned() } else { self.id(id) };
        self.data().join("containers").join(id)
    }

    /// The current `json-file` log of a container.
    pub fn log_path(&self, id: &str) -> PathBuf {
        let dir = self.container_dir(id);
        let name = format!("{}-json.log", dir.file_name().unwrap().to_str().unwrap());
        dir.join(name)
    }

    /// The body of `GET path`, requested without the docker CLI.
    pub fn get(&self, path: &str) -> io::Result<String> {
        self.ask("GET", path)
    }

    /// `POST path` without a body.
    pub fn post(&self, path: &str) -> io::Result<String> {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> io::Result<String> {
        let mut socket = UnixStream::connect(self.socket())?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        // After an HTTP/1.0 request the engine closes the connection, so everything up to its end is the answer.
        write!(socket, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") || head.contains(" 204 ") => Ok(body.to_owned()),
            _ => Err(io::Error::other(answer)),
        }
    }

    /// The process ID of `dockerd`.
    pub fn pid(&self) -> u32 {
        self.daemon().as_ref().expect("the engine is down").id()
    }

    /// CPU time of `dockerd`, without containerd and the containers.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }

    /// Open descriptors of `dockerd`.
    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }

    /// Stops the engine as a service manager does. Its containers stop as well, except with `--live-restore`.
    pub fn stop(&self) {
        self.down(Signal::TERM);
    }

    /// Kills `dockerd` with SIGKILL. Its containers keep writing into their pipes.
    pub fn kill(&self) {
        self.down(Signal::KILL);
    }

    /// Starts a stopped or killed engine again and waits until it answers.
    pub fn up(&self) {
        let log = File::options().create(true).append(true).open(self.home.join("dockerd.log")).unwrap();
        let mut command = self.dockerd();
        command.args(self.daemon_options()).args(&self.options);
        // When the machine is busy, `dockerd` replaces a containerd that starts slowly; that one's last output goes
        // there.
        command.env("TMPDIR", &self.home);
        command.env("TZ", self.zone);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("these tests start a Docker engine of their own, and dockerd cannot be started: {error}; try tests/run.sh")
        });
        *self.daemon() = Some(child);
        eventually("dockerd answered", || {
            if let Some(status) = self.daemon().as_mut().unwrap().try_wait().unwrap() {
                panic!("dockerd ended with {status}:\n{}", self.last_words());
            }
            self.get("/_ping").is_ok()
        });
    }

    /// `stop` and `up`.
    pub fn restart(&self) {
        self.stop();
        self.up();
    }

    fn down(&self, signal: Signal) {
        let mut child = self.daemon().take().expect("the engine is down already");
        let containerd = process::children(child.id());
        process::signal(child.id(), signal);
        child.wait().unwrap();
        // The kernel kills containerd with its parent. Until it is reaped, the next `dockerd` would take its process ID
        // for a running containerd and wait for it forever.
        eventually("containerd ended", || !containerd.iter().any(|pid| process::lives(*pid)));
        let _ = fs::remove_file(self.home.join("exec/containerd/containerd.pid"));
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic elsewhere must not keep Drop from cleaning up.
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daemon_options(&self) -> Vec<String> {
        let home = self.home.display();
        // Without this file `dockerd` would read the machine's. Docker 20.10 reads its identity from /etc/docker unless
        // configured otherwise, so all engines would have the same ID; later versions keep it in their data and refuse
        // the key.
        let config = match self.is_20() {
            true => format!("{{\"deprecated-key-path\":\"{home}/key.json\"}}"),
            false => "{}".to_owned(),
        };
        fs::write(self.home.join("daemon.json"), config).unwrap();
        vec![
            format!("--config-file={home}/daemon.json"),
            format!("--data-root={home}/data"),
            format!("--exec-root={home}/exec"),
            format!("--pidfile={home}/pid"),
            format!("--host={}", self.host()),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip-forward=false".to_owned(),
            // Its own cgroup, so that it can be removed after the engine was killed.
            "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
            format!("--cgroup-parent=/{}", self.home.file_name().unwrap().to_str().unwrap()),
        ]
    }

    fn dockerd(&self) -> Command {
        let mut command = Command::new("dockerd");
        command.env("PATH", &*self.path.lock().unwrap_or_else(PoisonError::into_inner));
        command
    }

    /// Its version is asked for once and kept next to the image: that takes `dockerd` a tenth of its start.
    fn is_20(&self) -> bool {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let metadata = path.split(':').find_map(|folder| fs::metadata(Path::new(folder).join("dockerd")).ok());
        let cache = metadata.map(|file| {
            let name = format!("dockerd-{}-{}-{}.version", file.dev(), file.ino(), file.mtime());
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
        });
        let kept = cache.as_ref().and_then(|cache| fs::read_to_string(cache).ok());
        let version = kept.unwrap_or_else(|| {
            let output = self.dockerd().arg("--version").output();
            let output = output.unwrap_or_else(|error| panic!("dockerd cannot be started: {error}; try tests/run.sh"));
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            if let Some(cache) = cache {
                let partial = cache.with_extension(format!("{}", std::process::id()));
                fs::write(&partial, &version).unwrap();
                fs::rename(&partial, &cache).unwrap();
            }
            version
        });
        version.starts_with("Docker version 20.")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.home.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        clear(&self.home);
        if let Some(mut child) = self.daemon().take() {
            let _ = child.wait();
        }
    }
}

/// Ends all processes of the engine in `home`, then removes its mounts, cgroups and directory. Killing works for a
/// healthy engine as well as for a dead one, and takes a tenth of the time of stopping it.
pub fn clear(home: &Path) {
    // The daemon first, because it would restart containers that have a restart policy.
    let mut family = process::family(home);
    while !family.is_empty() {
        kill(home);
        eventually("the engine's processes ended", || family.iter().all(|pid| !process::lives(*pid)));
        family = process::family(home);
        family.retain(|pid| process::lives(*pid));
    }
    let mounts = mounts(home);
    if !mounts.is_empty() {
        let _ = Command::new("umount").arg("--lazy").args(&mounts).stderr(Stdio::null()).status();
    }
    for socket in shim_sockets(home) {
        let _ = fs::remove_file(socket);
    }
    cgroups(home).for_each(|cgroup| remove_cgroup(&cgroup));
    if let Err(error) = fs::remove_dir_all(home) {
        eprintln!("{} stays behind: {error}", home.display());
    }
}

/// Kills all processes of the engine in `home`.
pub fn kill(home: &Path) {
    for pid in process::family(home) {
        process::signal(pid, Signal::KILL);
    }
    // Paused processes die only after they are thawed.
    cgroups(home).for_each(|cgroup| thaw(&cgroup));
}

/// The mount points below `home`, innermost first.
pub fn mounts(home: &Path) -> Vec<String> {
    let home = format!("{}/", home.display());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<String> = points.filter(|point| point.starts_with(&home)).map(str::to_owned).collect();
    points.sort();
    points.reverse();
    points
}

/// The sockets of shims that may be left. They are in a directory that all engines share, and only the shim itself
/// removes its own. The path is in `address`, from containerd 2 on in `bootstrap.json`.
pub fn shim_sockets(home: &Path) -> Vec<PathBuf> {
    let tasks = home.join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
    let bundles = fs::read_dir(tasks).into_iter().flatten().flatten();
    let texts = bundles.flat_map(|bundle| ["address", "bootstrap.json"].map(|name| bundle.path().join(name)));
    let texts = texts.filter_map(|path| fs::read_to_string(path).ok());
    texts
        .filter_map(|text| {
            let path = &text[text.find("/run/containerd/s/")?..];
            Some(PathBuf::from(path.split(['"', '\n']).next()?))
        })
        .collect()
}

/// Where the engine's cgroup may be: in each hierarchy of version 1, or in the only one of version 2.
fn cgroups(home: &Path) -> impl Iterator<Item = PathBuf> {
    let name = home.file_name().unwrap();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(move |hierarchy| hierarchy.join(name))
}

fn thaw(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            thaw(&entry.path());
        }
    }
    // The files of cgroup versions 1 and 2. Writing to a file that does not exist creates none.
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let _ = File::options().write(true).open(dir.join(file)).and_then(|mut file| file.write_all(word.as_bytes()));
    }
}

/// The files of a cgroup belong to the kernel: only its directories can be removed, innermost first.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

pub(super) fn new_home() -> (PathBuf, File) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(format!("{HOME}{}-{number}", std::process::id()));
        match fs::create_dir(&home) {
            Ok(()) => {
                // It gets its final name only once it is locked, or another process might take it for abandoned.
                let unlocked = home.join("claim.new");
                let claim = File::create(&unlocked).unwrap();
                flock(&claim, FlockOperation::NonBlockingLockExclusive).unwrap();
                fs::rename(unlocked, home.join("claim")).unwrap();
                return (home, claim);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot create {}: {error}", home.display()),
        }
    }
}

/// Clears the engines of test processes that were killed before they could.
pub(super) fn clear_orphans() {
    let (parent, prefix) = HOME.rsplit_once('/').unwrap();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // A directory without a claim is still being created.
        let Ok(claim) = File::open(entry.path().join("claim")) else { continue };
        if flock(&claim, FlockOperation::NonBlockingLockExclusive).is_ok() {
            clear(&entry.path());
        }
    }
}

/// The program directories that `tests/engines.sh` unpacks for these arguments.
fn unpacked(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines.sh");
    let output = Command::new(script).args(args).arg(others()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cannot unpack Debian's programs for {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where `tests/run.sh` unpacks other engines.
pub(super) fn others() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("engines")
}

fn machines_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let others = others();
    path.split(':').filter(|folder| !Path::new(folder).starts_with(&others)).collect::<Vec<_>>().join(":")
}

/// The archive of the image. It is kept between runs under a name derived from the program's source. Nextest starts one
/// process per test; a lock lets one of them compile while the others wait.
pub(super) fn image() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chatter/main.rs");
    let mut hasher = DefaultHasher::new();
    fs::read(&source).unwrap().hash(&mut hasher);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(cache).unwrap();
    let image = cache.join(format!("chatter-{:016x}.tar", hasher.finish()));
    let lock = File::create(cache.join("chatter.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if image.exists() {
        return image;
    }
    let root = cache.join("chatter");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-Cpanic=abort"]);
    succeed(rustc.arg("-o").arg(root.join("chatter")).arg(&source));
    // `--health-cmd` runs its command in a shell.
    std::os::unix::fs::symlink("/chatter", root.join("bin/sh")).unwrap();
    let partial = image.with_extension("partial");
    succeed(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&partial).arg("."));
    fs::rename(&partial, &image).unwrap();
    image
}

/// What `/chatter` writes when it runs with these arguments outside a container.
pub fn chatter(args: &[&str]) -> Output {
    image();
    Command::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("chatter/chatter")).args(args).output().unwrap()
}

fn succeed(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
