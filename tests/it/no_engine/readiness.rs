//! What a service manager learns over `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex};

use tempfile::TempDir;

use crate::support::{Answer, PATIENCE, Request, Script, Watch, eventually};

/// Whether the engine answers requests for containers and events.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }
}

/// An engine without containers.
fn engine(gate: &Arc<Gate>) -> Script {
    let gate = Arc::clone(gate);
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
        "/containers/json" => {
            gate.pass();
            answer.json(200, "[]");
        }
        "/events" => {
            answer.begin("application/json");
            answer.hold();
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    })
}

fn start(script: &Script, socket: &std::path::Path, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_API_VERSION").env("DOCKER_CONFIG", "/nowhere").env("NOTIFY_SOCKET", socket);
    Watch::spawn(command.args(["-H", &script.host()]).args(args))
}

#[test]
fn a_service_manager_learns_of_readiness_and_stop() {
    for (args, request) in [(&["watch"][..], "/containers/json?"), (&["events"], "/events?")] {
        let (dir, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let script = engine(&gate);
        let run = start(&script, &path, args);
        let report = |expected: &str| {
            let mut buffer = [0; 64];
            let received = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{args:?}, {expected}: {error}"));
            assert_eq!(std::str::from_utf8(&buffer[..received]).unwrap().trim_end(), expected, "{args:?}");
        };
        eventually("the request arrives", || script.requests().iter().any(|sent| sent.contains(request)));
        if args == ["watch"] {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 64]).is_err(), "ready before the first listing");
            socket.set_nonblocking(false).unwrap();
        }
        gate.open();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        report("READY=1");
        let finished = run.stop();
        report("STOPPING=1");
        assert_eq!((finished.code, finished.stderr.contains("service manager")), (Some(0), false), "{args:?}");
    }
}

/// Logs are followed even if nobody can be told.
#[test]
fn an_unreachable_service_manager_is_only_reported() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let script = engine(&gate);
    let watch = start(&script, "/nowhere/notify".as_ref(), &["watch"]);
    let warning = "cannot report READY=1 to the service manager";
    watch.wait_for_notice(|notices| notices.iter().any(|notice| notice.contains(warning)), PATIENCE);
    assert_eq!(watch.stop().code, Some(0));
}
