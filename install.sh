#!/usr/bin/env bash
# Builds docker-logwatch and puts it where the docker CLI, the shells and man look. See `./install.sh --help`.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")"

usage() {
    cat <<'END'
Build docker-logwatch and install it as a plugin of the docker CLI

Usage: ./install.sh [OPTIONS]

  --system        For every user, below /usr/local [default for root]
  --user          For this user, in ${DOCKER_CONFIG:-~/.docker} and ~/.local [default for others]
  --prefix DIR    Below DIR, laid out as below /usr/local
  --deps          Install what is missing: C compiler, docker CLI (Debian and Ubuntu)
  --binary FILE   Install FILE instead of building
  --uninstall     Remove what was installed, and nothing else
  --demo          Install, then watch a few containers of a Docker engine that lives for that long only
  -h, --help      This text
END
}

say() { printf '%s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$caller/$1" ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Where everything goes. The docker CLI looks for plugins below /usr/local and in its configuration, nowhere in PATH;
# the link in bin/ is for `docker-logwatch` on its own.
lay_out() {
    if [ -n "$prefix" ]; then
        plugins=$prefix/lib/docker/cli-plugins
        bin=$prefix/bin
        share=$prefix/share
        zsh=$share/zsh/site-functions
        fish=$share/fish/vendor_completions.d
    else
        [ -n "${HOME:-}" ] || fail "HOME is not set: use --system or --prefix DIR"
        plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
        bin=$HOME/.local/bin
        share=${XDG_DATA_HOME:-$HOME/.local/share}
        zsh=$share/zsh/site-functions
        fish=${XDG_CONFIG_HOME:-$HOME/.config}/fish/completions
    fi
    # What we put where, so that all of it can be taken away again.
    manifest=$share/docker-logwatch/installed
}

# `cargo` may lie where rustup puts it, which the PATH of root or of a script often lacks.
find_tools() {
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin
}

# The packages that are missing, one a line.
missing() {
    has cc || echo gcc
    [ -e /usr/include/stdio.h ] || [ "$(uname)" != Linux ] || echo libc6-dev
    # Up to Debian 12 the client comes with docker.io.
    has docker || { apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli || echo docker.io; }
    if [ "$demo" = yes ]; then
        has dockerd || echo docker.io
        { has gcc && [ -e "$(gcc -print-file-name=libc.a)" ]; } || echo libc6-dev
    fi
}

check_deps() {
    local packages minimum found
    packages=$(missing | sort -u | tr '\n' ' ')
    if [ -n "$packages" ] && [ "$deps" = yes ]; then
        has apt-get || fail "missing: $packages(names as in Debian); this machine has no apt-get to install them with"
        [ "$(id -u)" = 0 ] || has sudo || fail "missing: $packages; installing them needs root or sudo"
        say "installing $packages"
        as_root apt-get update -qq >&2 || fail "apt-get update failed, so these cannot be installed: $packages"
        # shellcheck disable=SC2086 # The packages are words.
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2 ||
            fail "apt-get could not install $packages"
    fi
    has docker || say "note: there is no docker CLI here: docker-logwatch will work on its own, not as \`docker logwatch\`"
    [ -z "$binary" ] || [ "$demo" = yes ] || return 0
    minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    { has cargo && has rustc; } || fail "Rust is missing (cargo and rustc $minimum or later): install it as https://rustup.rs tells"
    found=$(rustc --version | cut -d ' ' -f 2) || fail "rustc is there but does not run: see above"
    [ "$(printf '%s\n' "$minimum" "$found" | sort -V | head -n 1)" = "$minimum" ] ||
        fail "rustc is $found, but $minimum or later is needed: run \`rustup update\`, or install it as https://rustup.rs tells"
    has cc || fail "a C compiler is missing: run this again with --deps, or install gcc and libc6-dev"
}

build() {
    [ -z "$binary" ] || return 0
    local target=${CARGO_TARGET_DIR:-$PWD/target}
    say "building (the first time takes some minutes)"
    CARGO_TARGET_DIR=$target cargo build --release --locked --bin docker-logwatch >&2 || fail "the build failed: see above"
    binary=$target/release/docker-logwatch
}

# Makes a folder and notes each level that was not there before.
make_dir() {
    [ -d "$1" ] && return
    make_dir "$(dirname "$1")"
    mkdir "$1" || fail "cannot create $1"
    note "dir $1"
}

note() {
    if [ -f "$manifest" ]; then
        printf '%s\n' "$pending$*" >>"$manifest"
        pending=
    else
        # The manifest's own folder is not there yet.
        pending="$pending$*
"
    fi
}

put() {
    local mode=$1 from=$2 to=$3
    make_dir "$(dirname "$to")"
    install -m "$mode" "$from" "$to" || fail "cannot write $to"
    note "file $to"
    say "  $to"
}

install_all() {
    remove_all
    pending=
    make_dir "$(dirname "$manifest")"
    : >"$manifest" || fail "cannot write $manifest"
    say "installed:"
    put 755 "$binary" "$plugins/docker-logwatch"
    make_dir "$bin"
    if [ -e "$bin/docker-logwatch" ] || [ -L "$bin/docker-logwatch" ]; then
        say "  ($bin/docker-logwatch is there already and not ours: left alone)"
    else
        ln -s "$plugins/docker-logwatch" "$bin/docker-logwatch"
        note "file $bin/docker-logwatch"
        say "  $bin/docker-logwatch"
    fi
    local file
    for file in completions/* man/*; do
        case $file in
            *.bash) put 644 "$file" "$share/bash-completion/completions/docker-logwatch" ;;
            *.fish) put 644 "$file" "$fish/$(basename "$file")" ;;
            completions/_*) put 644 "$file" "$zsh/$(basename "$file")" ;;
            man/*.1) put 644 "$file" "$share/man/man1/$(basename "$file")" ;;
        esac
    done
}

# Files first, then those folders that we made and that nobody else uses by now.
remove_all() {
    [ -f "$manifest" ] || return 0
    local kind path dirs=()
    while read -r kind path; do
        case $kind in
            file) rm -f "$path" ;;
            dir) dirs+=("$path") ;;
        esac
    done <"$manifest"
    rm -f "$manifest"
    local at
    for ((at = ${#dirs[@]} - 1; at >= 0; at--)); do
        rmdir "${dirs[at]}" 2>/dev/null || true
    done
}

tell_next() {
    if ! has docker; then
        say "next: $bin/docker-logwatch watch"
        return
    fi
    if [ -n "$prefix" ] && [ "$prefix" != /usr/local ]; then
        say "the docker CLI looks there once its config.json says \"cliPluginsExtraDirs\": [\"$plugins\"]"
    fi
    if [ -z "$prefix" ] && has zsh; then
        say "zsh looks for its completion once .zshrc says, before compinit: fpath=($zsh \$fpath)"
    fi
    say "next: docker logwatch watch"
}

# --- the demo

engine=
brief=
watch=

demo_docker() { docker -H "unix://$engine/docker.sock" "$@"; }

demo_up() {
    engine=$(mktemp -d /tmp/lwd-XXXXXX)
    mkdir "$engine/config" "$engine/image"
    export DOCKER_CONFIG=$engine/config
    unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    printf '{"cliPluginsExtraDirs":["%s"]}\n' "$plugins" >"$engine/config/config.json"
    echo '{}' >"$engine/daemon.json"
    rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort \
        tests/chatter/main.rs -o "$engine/image/chatter" || fail "the demo's containers could not be built"
    as_root true
    # Ctrl-C is for the watch: what it must not reach has a process group of its own.
    set -m
    as_root env TMPDIR="$engine" dockerd --config-file "$engine/daemon.json" --data-root "$engine/data" --exec-root "$engine/exec" \
        --pidfile "$engine/pid" -H "unix://$engine/docker.sock" --group "$(id -g)" \
        --bridge=none --iptables=false --ip-forward=false \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${engine##*/}" >"$engine/log" 2>&1 &
    set +m
    local dockerd=$! tries=0
    # Killed in the end, it would be reported as a job.
    disown
    until demo_docker version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" = 300 ] || [ ! -d "/proc/$dockerd" ]; then
            tail -n 5 "$engine/log" >&2
            fail "the demo's Docker engine does not start"
        fi
        sleep 0.1
    done
    tar -C "$engine/image" -cf - chatter | demo_docker import --change 'ENTRYPOINT ["/chatter"]' - chatter >/dev/null
}

demo_run() {
    local name=$1
    shift
    demo_docker run --network none --stop-signal KILL --name "$name" "$@" >/dev/null
}

demo_containers() {
    demo_run steady -d chatter --forever --rate 4 --prefix steady
    demo_run complains -d chatter --forever --rate 2 --stream alternating --shape text --prefix complains
    demo_run local -d --log-driver local chatter --forever --rate 2 --prefix "kept-by-the-local-driver"
    demo_run phoenix -d --restart always chatter --count 6 --rate 4 --resume --exit 1 --prefix "restarted-by-policy"
    # Lives for half a second, again and again: what a poller misses.
    set -m
    (while demo_run "brief-$RANDOM" --rm chatter --count 5 --rate 10 --prefix "gone-in-half-a-second" 2>/dev/null; do sleep 1; done) &
    brief=$!
    set +m
    disown
}

demo_watch() {
    local host=unix://$engine/docker.sock
    say ""
    say "\$ docker -H $host logwatch watch"
    if [ -t 1 ]; then
        say "(Ctrl-C ends it)"
        # Ctrl-C reaches the docker CLI and the plugin by the terminal; we go on to clear up.
        trap : INT
        docker -H "$host" logwatch watch || true
        trap 'exit 130' INT
        return
    fi
    # A process group of its own, so that it can be interrupted as a terminal would.
    set -m
    docker -H "$host" logwatch watch &
    watch=$!
    set +m
    local tenths=0
    while [ "$tenths" -lt 100 ]; do
        kill -0 "$watch" 2>/dev/null || { wait "$watch" || fail "watch ended with exit code $?"; fail "watch ended by itself"; }
        sleep 0.1
        tenths=$((tenths + 1))
    done
    kill -INT -- "-$watch"
    wait "$watch" || fail "watch ended with exit code $?"
    watch=
}

# The engine's own programs name its folder on their command line; a container is the child of its shim.
demo_processes() {
    local dir pid command
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        command=$({ tr '\0' ' ' <"$dir/cmdline"; } 2>/dev/null) || continue
        case ${command%% *} in
            dockerd | */dockerd | containerd* | */containerd*) ;;
            *) continue ;;
        esac
        case $command in
            *"$engine/"*) echo "$pid" && cat "$dir"/task/*/children 2>/dev/null | tr ' ' '\n' ;;
        esac
    done | sort -u
}

demo_down() {
    [ -n "$engine" ] || return 0
    trap '' INT TERM HUP
    [ -z "$watch" ] || kill -KILL -- "-$watch" 2>/dev/null || true
    [ -z "$brief" ] || kill -- "-$brief" 2>/dev/null || true
    say "clearing up"
    local pids tries=0
    # Killed rather than stopped: that serves an engine that hangs as well.
    while pids=$(demo_processes | grep .) && [ "$tries" -lt 100 ]; do
        # shellcheck disable=SC2086 # Process ids are words.
        as_root kill -KILL $pids 2>/dev/null || true
        sleep 0.1
        tries=$((tries + 1))
    done
    wait 2>/dev/null || true
    local mounts
    mounts=$(cut -d ' ' -f 5 /proc/self/mountinfo | grep "^$engine/" | sort -r) || true
    # shellcheck disable=SC2086 # Paths below our own folder have no blanks.
    [ -z "$mounts" ] || as_root umount --lazy $mounts || true
    # A killed shim leaves its socket in a folder that all engines share.
    as_root find "$engine/exec" \( -name address -o -name bootstrap.json \) \
        -exec grep -oh '/run/containerd/s/[0-9a-f]*' {} + 2>/dev/null | while read -r socket; do
        as_root rm -f "$socket"
    done
    find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "${engine##*/}" 2>/dev/null | while read -r group; do
        as_root find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    as_root rm -rf "$engine"
    engine=
}

demo() {
    [ "$(uname)" = Linux ] || fail "the demo starts a Docker engine, which needs Linux"
    [ "$(id -u)" = 0 ] || has sudo || fail "the demo starts a Docker engine, which needs root or sudo"
    trap demo_down EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    say "starting a Docker engine of its own, with a few containers"
    demo_up
    demo_containers
    demo_watch
    demo_down
}

deps=no
demo=no
binary=
prefix=
[ "$(id -u)" != 0 ] || prefix=/usr/local
what=install
while [ $# -gt 0 ]; do
    case $1 in
        --system) prefix=/usr/local ;;
        --user) prefix= ;;
        --prefix)
            [ -n "${2:-}" ] || fail "--prefix needs a folder"
            prefix=$(absolute "$2")
            shift
            ;;
        --binary)
            binary=$(absolute "${2:-}")
            [ -f "$binary" ] || fail "--binary needs a file"
            shift
            ;;
        --deps) deps=yes ;;
        --uninstall) what=uninstall ;;
        --demo) demo=yes deps=yes ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

lay_out
if [ "$what" = uninstall ]; then
    [ -f "$manifest" ] || fail "nothing to remove: $manifest does not exist; was it installed with --user, --system or --prefix?"
    remove_all
    say "removed"
    exit
fi
find_tools
check_deps
build
install_all
if [ "$demo" = yes ]; then
    demo
fi
tell_next
