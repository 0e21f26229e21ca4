#!/usr/bin/env bash
# Runs the installation commands of README.md, and then the tests, in a fresh Debian with a clean clone of the last
# commit:
#
#   tests/fresh.sh [--only STEP]... [--binary FILE] bookworm|trixie [ARGUMENTS OF tests/run.sh]
#
# STEP is `demo`, `install` or `tests`; by default all three, in this order. With --binary, the first two do not build,
# which saves most of their time and proves less. It needs root, Debian or Ubuntu, and debootstrap. It uses the
# machine's mirror and Rust toolchain, without cargo-nextest. The new root is in target/fresh (FRESH_DIR names another
# folder) and takes about 8 GB.
#
# Everything runs in namespaces of its own: all processes and mounts end with this script, however it ends. The next run
# removes what a killed one left on disk.
# shellcheck disable=SC2317 # Steps and traps are called by name.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh
# shellcheck disable=SC2034 # Read by common.sh.
speaker='tests/fresh.sh: '

# --- inside the namespaces, before and after pivot_root

make_root() {
    local suite=$1 root=$2 mirror
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || fail "the apt sources of this machine contain no Debian mirror"
    say "making a fresh Debian $suite"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
        tail -n 5 "$root.log" >&2
        fail "debootstrap failed: see $root.log"
    }
    # How this machine reaches the mirror and the crate registry, and which checks it skips: a mirror may be a snapshot.
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    apt-config dump | grep -iE '^Acquire::(.*proxy|Check-|https?::)' >"$root/etc/apt/apt.conf.d/90machine" || true
    # A fresh machine has no package lists.
    rm -rf "$root"/var/lib/apt/lists/*
    mkdir -p "$root/root/.rustup" "$root/root/.cargo"
    cp -a "${CARGO_HOME:-$HOME/.cargo}/." "$root/root/.cargo/"
    rm -f "$root/root/.cargo/bin/cargo-nextest"
    [ -z "$3" ] || install -m 755 "$3" "$root/docker-logwatch"
    git -c safe.directory='*' clone -q "$PWD" "$root/logwatch"
}

mount_all() {
    local root=$1 line controllers
    mount --bind "$root" "$root"
    mount --bind "${RUSTUP_HOME:-$HOME/.rustup}" "$root/root/.rustup"
    mount -o remount,bind,ro "$root/root/.rustup"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs tmpfs "$root/run"
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        # A group that contains processes cannot pass controllers on.
        mkdir "$root/sys/fs/cgroup/init"
        echo 1 >"$root/sys/fs/cgroup/init/cgroup.procs"
        sed 's/^/+/; s/ / +/g' "$root/sys/fs/cgroup/cgroup.controllers" >"$root/sys/fs/cgroup/cgroup.subtree_control"
        return
    fi
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    while IFS=: read -r _ controllers _; do
        case $controllers in
            '') continue ;;
            name=*) line=none,$controllers controllers=${controllers#name=} ;;
            *) line=$controllers ;;
        esac
        mkdir "$root/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$line" cgroup "$root/sys/fs/cgroup/$controllers"
    done </proc/self/cgroup
}

inside() {
    local suite=$1 root=$2 steps=$3 given=$4
    shift 4
    make_root "$suite" "$root" "$given"
    binary=()
    [ -z "$given" ] || binary=(--binary /docker-logwatch)
    mount_all "$root"
    cd "$root"
    mkdir old
    pivot_root . old
    umount --lazy /old
    rmdir /old
    # As systemd leaves them on a real machine. On private mounts dockerd mounts its folder onto itself.
    mount --make-rshared /
    cd /logwatch
    export HOME=/root PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    unset CARGO_HOME RUSTUP_HOME CARGO_TARGET_DIR
    local step started
    for step in $steps; do
        started=$SECONDS
        say "$suite: $step"
        "step_$step" "$@" || fail "$suite: $step failed with exit code $?"
        say "$suite: $step took $((SECONDS - started)) s"
    done
}

# Without a terminal, the demo ends by itself.
step_demo() { ./install.sh --demo --yes "${binary[@]}" 2>&1 </dev/null | cat; }

step_install() {
    ./install.sh --yes "${binary[@]}" </dev/null && docker-logwatch --version &&
        ./install.sh --uninstall && [ ! -e /usr/local/bin/docker-logwatch ]
}

step_tests() { tests/run.sh "$@" </dev/null; }

# --- outside the namespaces

# Moves this shell into control groups of its own, which become the root groups of the namespace.
enter_cgroups() {
    local top file
    for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$top/cgroup.procs" ] || continue
        mkdir -p "$top/$cgroup"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$top/$cgroup/$file" ] || cat "$top/$file" >"$top/$cgroup/$file" 2>/dev/null || true
        done
        echo "$BASHPID" >"$top/$cgroup/cgroup.procs"
        # cgroup v2 has a single hierarchy; the folders below it are its groups.
        [ ! -e "$top/cgroup.controllers" ] || break
    done
}

clean_up() {
    trap '' HUP INT TERM QUIT PIPE
    set +e
    # Ends the first process of the namespace, and with it all others.
    [ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null
    local tries=0
    while find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup" 2>/dev/null | grep -q . && [ "$tries" -lt 100 ]; do
        find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || sleep 0.1
        tries=$((tries + 1))
    done
    rm -rf --one-file-system "$root"
}

usage="usage: tests/fresh.sh [--only demo|install|tests]... [--binary FILE] bookworm|trixie [ARGUMENTS OF tests/run.sh]"
if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi
steps=()
while [ "${1:-}" = --only ]; do
    case ${2:-} in
        demo | install | tests) steps+=("$2") ;;
        *) fail "$usage" ;;
    esac
    shift 2
done
[ "${#steps[@]}" != 0 ] || steps=(demo install tests)
given=
if [ "${1:-}" = --binary ]; then
    given=$(realpath -e "${2:-}") || fail "$usage"
    shift 2
fi
case ${1:-} in
    bookworm | trixie) suite=$1 ;;
    *) fail "$usage" ;;
esac
shift
[ "$(id -u)" = 0 ] || fail "this needs root"
for tool in debootstrap unshare setpriv pivot_root git; do
    has "$tool" || fail "$tool is missing"
done
folder=$(realpath -m "${FRESH_DIR:-target/fresh}")
root=$folder/$suite
cgroup=logwatch-fresh-$suite
child=
mkdir -p "$folder"
exec 8>"$folder/$suite.lock"
flock --nonblock 8 || fail "another run uses $folder/$suite"
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf --one-file-system "$root"
mkdir -p "$root"
(
    enter_cgroups
    exec setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL --mount-proc --ipc --uts --cgroup \
        "$PWD/tests/fresh.sh" --inside "$suite" "$root" "${steps[*]}" "$given" "$@"
) 8>&- &
child=$!
status=0
wait "$child" || status=$?
child=
exit "$status"
