# shellcheck shell=bash
# Shared by the measurements: building programs, a private Docker engine, CPU time from /proc, medians.
# Sourced by the other scripts. They need root, dockerd, the docker CLI, jq, GNU time and rustc; rest.sh also strace.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin
# Decimal points, whatever the user's language.
export LC_ALL=C

home=
daemon=
logwatch=
load=$(cut -d ' ' -f 1 /proc/loadavg)
# shellcheck disable=SC2034 # Used by the scripts that source this.
runs=${RUNS:-3}
# More options for dockerd, set before `up`.
dockerd_options=()

say() { printf '%s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is missing"
    done
}

# Builds the program under test (or uses LOGWATCH=FILE) and the gauge, then starts an engine and imports its image.
up() {
    [ "$(id -u)" = 0 ] || fail "this starts a Docker engine, which needs root"
    need dockerd docker rustc jq
    [ -x /usr/bin/time ] || fail "GNU time is missing: apt-get install time"
    logwatch=${LOGWATCH:-}
    if [ -z "$logwatch" ]; then
        cargo build --quiet --release --locked --manifest-path "$here/../Cargo.toml" --bin docker-logwatch
        logwatch=${CARGO_TARGET_DIR:-$here/../target}/release/docker-logwatch
    fi
    home=$(mktemp -d /tmp/lwb-XXXXXX)
    trap down EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    mkdir "$home/config" "$home/image"
    rustc --edition 2024 -O -C panic=abort "$here/gauge/main.rs" -o "$home/gauge"
    rustc --edition 2024 -O -C panic=abort -C strip=symbols -C target-feature=+crt-static \
        "$here/../tests/chatter/main.rs" -o "$home/image/chatter"
    unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    export DOCKER_CONFIG=$home/config DOCKER_HOST=unix://$home/docker.sock
    echo '{}' >"$home/daemon.json"
    TMPDIR=$home dockerd --config-file "$home/daemon.json" --data-root "$home/data" --exec-root "$home/exec" \
        --pidfile "$home/pid" -H "$DOCKER_HOST" --bridge=none --iptables=false --ip-forward=false \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${home##*/}" "${dockerd_options[@]}" >"$home/dockerd.log" 2>&1 &
    # shellcheck disable=SC2034 # Used by the scripts that source this.
    daemon=$!
    # Otherwise the shell would report that the job was killed.
    disown
    await "dockerd answers" docker version
    tar -C "$home/image" -cf - chatter | docker import --change 'ENTRYPOINT ["/chatter"]' - chatter >/dev/null
}

# Prints the engine's processes: its programs have its folder on their command line, containers are children of a shim.
family() {
    local dir pid command
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        command=$({ tr '\0' ' ' <"$dir/cmdline"; } 2>/dev/null) || continue
        case ${command%% *} in
            *dockerd | *containerd | *containerd-shim*) ;;
            *) continue ;;
        esac
        case $command in
            *"$home/"*) echo "$pid" && cat "$dir"/task/*/children 2>/dev/null | tr ' ' '\n' ;;
        esac
    done | grep . | sort -u
}

# Ends the engine and removes its traces. Processes are killed rather than stopped: the engine may hang.
down() {
    set +e
    trap '' INT TERM HUP
    local pids mounts group
    # shellcheck disable=SC2046 # Process ids are words.
    kill $(jobs -p) 2>/dev/null || true
    while pids=$(family); do
        # shellcheck disable=SC2086 # Process ids are words.
        kill -KILL $pids 2>/dev/null || true
        sleep 0.1
    done
    wait
    mounts=$(cut -d ' ' -f 5 /proc/self/mountinfo | grep "^$home/" | sort -r) || true
    # shellcheck disable=SC2086 # Paths below our own folder contain no spaces.
    [ -z "$mounts" ] || umount --lazy $mounts || true
    # A killed shim leaves its socket in a folder that all engines share.
    grep -roh --include address --include bootstrap.json '/run/containerd/s/[0-9a-f]*' "$home/exec" 2>/dev/null |
        xargs -r rm -f
    find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "${home##*/}" 2>/dev/null | while read -r group; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    rm -rf "$home"
}

# await WHAT COMMAND...: repeats the command until it succeeds, for at most 30 seconds.
await() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "timed out waiting: $what"
        sleep 0.1
    done
}

# start NAME [OPTIONS] -- ARGUMENTS: starts a container in the background.
start() {
    local name=$1 options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    docker run -d --network none --stop-signal KILL --name "$name" "${options[@]}" chatter "$@" >/dev/null
}

# drop_all: removes all containers.
drop_all() {
    local all
    all=$(docker ps -aq)
    # shellcheck disable=SC2086 # IDs are words.
    [ -z "$all" ] || docker rm -f $all >/dev/null
}

# cpu_ms PIDS: prints the CPU time of running processes in milliseconds, summed over their current threads.
cpu_ms() {
    local pid
    for pid in "$@"; do
        cat /proc/"$pid"/task/*/schedstat
    done | awk '{ sum += $1 } END { printf "%.3f\n", sum / 1e6 }'
}

minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f\n", a - b }'; }

# median FILE KEY COLUMN [FORMAT]: prints the median of a column over the lines that start with KEY.
median() {
    awk -v key="$2" -v column="$3" '$1 == key { print $column }' "$1" | sort -g |
        awk -v format="${4:-%.2f}" '{ v[NR] = $1 }
            END { if (!NR) print "-"; else printf format "\n", (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b + 0 > 0) printf "%.1f\n", a / b; else print "-" }'; }

# machine HOW: describes the machine and how the figures were measured.
machine() {
    printf '%s processors, Linux %s, dockerd %s; %s; load before: %s\n\n' "$(nproc)" "$(uname -r | cut -d - -f 1)" \
        "$(docker version --format '{{.Server.Version}}')" "$1" "$load"
}
