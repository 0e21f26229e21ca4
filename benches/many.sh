#!/usr/bin/env bash
# Follows ten thousand silent containers, with real files and a scripted engine: the cost at rest.
# Usage: benches/many.sh [SECONDS]; CONTAINERS=10000, RUNS=3, LOGWATCH=FILE, BEFORE=FILE to compare with another build.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
window=${1:-60}
containers=${CONTAINERS:-10000}
need python3
logwatch=${LOGWATCH:-}
if [ -z "$logwatch" ]; then
    cargo build --quiet --release --locked --manifest-path "$here/../Cargo.toml" --bin docker-logwatch
    logwatch=${CARGO_TARGET_DIR:-$here/../target}/release/docker-logwatch
fi
home=$(mktemp -d /tmp/lwb-XXXXXX)
# There is no real engine that `down` would clean up, only a script, a watch and files.
stop() {
    # shellcheck disable=SC2046 # Process ids are words.
    kill $(jobs -p) 2>/dev/null || true
    wait || true
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Files as `json-file` writes them, and an engine that lists these containers and sends no events.
cat >"$home/engine.py" <<'PYTHON'
import json, os, socketserver, sys, threading
from http.server import BaseHTTPRequestHandler

home, count = sys.argv[1], int(sys.argv[2])
listing = []
for number in range(count):
    name, identity = f"web-{number}", f"{number:064x}"
    folder = f"{home}/data/containers/{identity}"
    os.makedirs(folder)
    record = {"log": f"{number}\n", "stream": "stdout", "time": f"2026-01-01T00:00:00.{number:09}Z"}
    with open(f"{folder}/{identity}-json.log", "w") as log:
        log.write(json.dumps(record, separators=(",", ":")) + "\n")
    listing.append({"Id": identity, "Names": [f"/{name}"], "Image": "web", "Labels": {}, "State": "running",
                    "Status": "Up", "Created": 1, "HostConfig": {"NetworkMode": "none"}})
listing = json.dumps(listing)
info = json.dumps({"ID": "many", "ServerVersion": "20.10.24", "OSType": "linux", "DockerRootDir": f"{home}/data",
                   "LoggingDriver": "json-file", "Driver": "overlay2"})
version = json.dumps({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux"})


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *words):
        pass

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.endswith("/_ping"):
            self.answer("OK")
        elif path.endswith("/info"):
            self.answer(info)
        elif path.endswith("/version"):
            self.answer(version)
        elif path.endswith("/containers/json"):
            self.answer("[]" if "limit=1" in self.path else listing)
        elif path.endswith("/events") and "until" not in self.path:
            self.send_response(200)
            self.send_header("Api-Version", "1.41")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            threading.Event().wait()
        elif path.endswith("/events"):
            self.answer("")
        else:
            self.answer('{"message":"no such thing"}', 404)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


Server(f"{home}/docker.sock", Engine).serve_forever()
PYTHON
python3 "$home/engine.py" "$home" "$containers" &
await "the scripted engine serves" test -S "$home/docker.sock"
ulimit -n $((containers + 1000)) || fail "cannot raise the limit of open files"

switches() { awk '/ctxt_switches/ { sum += $2 } END { print sum }' /proc/"$1"/task/*/status; }

opened() { [ "$(find "/proc/$watch/fd" -lname '*-json.log' 2>/dev/null | wc -l)" -ge "$containers" ]; }

# at_rest NAME PROGRAM: measures one window and appends NAME, CPU ms per second, wake-ups per second, MiB, and CPU ms
# until all files are open.
at_rest() {
    local name=$1 program=$2 watch cpu woken start
    DOCKER_HOST=unix://$home/docker.sock DOCKER_CONFIG=$home HOME=$home "$program" watch --tail 0 \
        >/dev/null 2>"$home/notices" &
    watch=$!
    await "all files are open" opened
    start=$(cpu_ms "$watch")
    # Until memory and timers have settled.
    sleep 10
    cpu=$(cpu_ms "$watch")
    woken=$(switches "$watch")
    sleep "$window"
    cpu=$(minus "$(cpu_ms "$watch")" "$cpu")
    woken=$(($(switches "$watch") - woken))
    awk -v name="$name" -v cpu="$cpu" -v woken="$woken" -v window="$window" -v start="$start" '$1 == "VmRSS:" {
        printf "%s %.3f %.2f %.1f %.0f\n", name, cpu / window, woken / window, $2 / 1024, start }' \
        "/proc/$watch/status" >>"$home/results"
    kill "$watch"
    wait "$watch" || true
}

: >"$home/results"
for ((run = 1; run <= runs; run++)); do
    say "run $run of $runs"
    [ -z "${BEFORE:-}" ] || at_rest before "$BEFORE"
    at_rest ours "$logwatch"
done
printf '%s processors, Linux %s; medians of %s runs; load before: %s\n\n' "$(nproc)" "$(uname -r | cut -d - -f 1)" \
    "$runs" "$load"
printf '%s containers at rest, %s s\n\n' "$containers" "$window"
printf '| | CPU ms/s | ratio | wake-ups/s | RSS MiB | CPU ms until all are open |\n|---|---|---|---|---|---|\n'
ours=$(median "$home/results" ours 2 %.3f)
for name in before ours; do
    grep -q "^$name " "$home/results" || continue
    cpu=$(median "$home/results" "$name" 2 %.3f)
    printf '| %s | %s | %s | %s | %s | %s |\n' "$name" "$cpu" "$(ratio "$cpu" "$ours")" \
        "$(median "$home/results" "$name" 3)" "$(median "$home/results" "$name" 4 %.1f)" \
        "$(median "$home/results" "$name" 5 %.0f)"
done
