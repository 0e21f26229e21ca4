//! A private Podman that serves Docker's API, with containers that write numbered lines.
//!
//! Each [`Podman`] is a `podman system service` with its own directories, socket and settings; it never touches the
//! machine's own. Dropping it ends it, as with [`super::Engine`].

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::engine::{clear, clear_orphans, image, new_home, others};
use super::{IMAGE, Signal, Watch, eventually, process};

/// A running service.
pub struct Podman {
    home: PathBuf,
    /// The root file system of another Debian suite in which it runs.
    root: Option<PathBuf>,
    service: Mutex<Option<Child>>,
    /// Locked while we live. A directory whose claim is not locked was abandoned and may be cleared.
    _claim: File,
}

impl Podman {
    /// Starts the machine's version with the test image.
    pub fn start() -> Self {
        Self::from(None)
    }

    /// Starts the version of a Debian suite.
    pub fn of(suite: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/podman.sh");
        let mut fetch = Command::new(script);
        let output = fetch.args(["fetch", suite]).arg(others()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the Podman of Debian {suite} is not to be had: {}", output.status);
        Self::from(Some(String::from_utf8(output.stdout).unwrap().trim().into()))
    }

    fn from(root: Option<PathBuf>) -> Self {
        let image = image();
        clear_orphans();
        let (home, claim) = new_home();
        let podman = Self { home, root, service: Mutex::default(), _claim: claim };
        fs::create_dir(podman.home.join("config")).unwrap();
        // The machine's hard limits may be below Podman's defaults, and `auto` would choose journald as the log driver.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\",\"nproc=1024:1024\"]\n\
                        log_driver = \"k8s-file\"\n[engine]\nevents_logger = \"file\"\n";
        fs::write(podman.home.join("containers.conf"), settings).unwrap();
        podman.up();
        podman.must(&["import", "--change", "ENTRYPOINT [\"/chatter\"]", image.to_str().unwrap(), IMAGE]);
        podman
    }

    fn socket(&self) -> PathBuf {
        self.home.join("podman.sock")
    }

    /// The directory that holds everything of this service.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The value for `-H` and `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The version of Podman, such as `4.3.1`.
    pub fn version(&self) -> String {
        self.must(&["version", "--format", "{{.Server.Version}}"])
    }

    /// Points `command` at this service, and keeps it out of the user's home.
    pub fn configure(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["DOCKER_", "XDG_", "LOGWATCH_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.home.join("config")).env("HOME", &self.home);
        command.stdin(Stdio::null());
    }

    /// Runs the docker CLI, whether or not it succeeds.
    pub fn docker(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        self.configure(&mut command);
        command.args(args).output().unwrap()
    }

    /// Runs the docker CLI, which must succeed, and returns what it printed, trimmed.
    #[track_caller]
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.docker(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {}\n{stdout}{stderr}", output.status);
        stdout.trim().to_owned()
    }

    /// Starts a container that runs `/chatter` with these arguments; returns its ID.
    #[track_caller]
    pub fn run(&self, name: &str, options: &[&str], args: &[&str]) -> String {
        let own = ["run", "--detach", "--name", name, "--network", "none", "--stop-signal", "KILL"];
        self.must(&[&own[..], options, &[IMAGE], args].concat())
    }

    /// Starts `docker-logwatch -H …` with these arguments.
    pub fn logwatch(&self, args: &[&str]) -> Watch {
        let mut command = Watch::command();
        self.configure(&mut command);
        Watch::spawn(command.args(args))
    }

    /// Waits until the container has ended.
    #[track_caller]
    pub fn wait(&self, container: &str) {
        eventually("the container ended", || {
            self.must(&["inspect", "--type", "container", "--format", "{{.State.Status}}", container]) == "exited"
        });
    }

    /// Kills the service; its containers live on. A service that is stopped gracefully omits lines of the logs that it
    /// is sending.
    pub fn kill(&self) {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
        process::signal(service.id(), Signal::KILL);
        service.wait().unwrap();
        let _ = fs::remove_file(self.socket());
    }

    /// Starts the service and waits until it answers.
    pub fn up(&self) {
        let log = File::options().create(true).append(true).open(self.home.join("podman.log")).unwrap();
        let home = self.home.display();
        let mut command = match &self.root {
            None => Command::new("podman"),
            Some(root) => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/podman.sh");
                let mut command = Command::new(script);
                command.arg("serve").arg(root).arg(&self.home);
                // The machine's root may lack the directories of the suite's root.
                command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
                command
            }
        };
        command.arg(format!("--root={home}/root")).arg(format!("--runroot={home}/run"));
        // Without this its events would be those of all Podmans on the machine.
        command.arg(format!("--tmpdir={home}/tmp"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=/usr/sbin/runc"]);
        command.args(["system", "service", "--time=0"]).arg(self.host());
        command.env("CONTAINERS_CONF", self.home.join("containers.conf")).env("HOME", &self.home);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let service =
            command.spawn().unwrap_or_else(|error| panic!("podman cannot be started: {error}; try tests/run.sh"));
        *self.service.lock().unwrap() = Some(service);
        eventually("podman answered", || {
            if let Some(status) = self.service.lock().unwrap().as_mut().unwrap().try_wait().unwrap() {
                let log = fs::read_to_string(self.home.join("podman.log")).unwrap_or_default();
                panic!("podman ended with {status}:\n{log}");
            }
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        let Ok(mut socket) = UnixStream::connect(self.socket()) else { return false };
        let mut answer = [0; 12];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(b"GET /_ping HTTP/1.0\r\nHost: podman\r\n\r\n").is_ok()
            && socket.read_exact(&mut answer).is_ok()
            && answer.ends_with(b" 200")
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Drop for Podman {
    fn drop(&mut self) {
        let containers = names_in(&self.home.join("root/vfs-containers"));
        clear(&self.home);
        // All Podmans share a directory for these, and a killed one leaves its own behind.
        for parent in names_in(Path::new("/sys/fs/cgroup")) {
            let parent = Path::new("/sys/fs/cgroup").join(parent).join("libpod_parent");
            for (id, kind) in containers.iter().flat_map(|id| [(id, "libpod"), (id, "libpod-conmon")]) {
                let _ = fs::remove_dir(parent.join(format!("{kind}-{id}")));
            }
        }
        if let Some(mut service) = self.service.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = service.wait();
        }
    }
}
