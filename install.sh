#!/usr/bin/env bash
# Builds docker-logwatch and installs it where the docker CLI, the shells and man find it. See `./install.sh --help`.
set -euo pipefail
# Regardless of the caller's mask: in a folder that others can write to, they could choose what root runs and removes.
umask 022
caller=$PWD
cd "$(dirname "$0")"
# shellcheck source=scripts/common.sh
. scripts/common.sh

usage() {
    cat <<'END'
Build docker-logwatch and install it as a plugin of the docker CLI

Usage: ./install.sh [OPTIONS]

  --system        Install for all users, below /usr/local [default for root]
  --user          Install for this user, in ${DOCKER_CONFIG:-~/.docker} and ~/.local [default for others]
  --prefix DIR    Install below DIR, with the layout of /usr/local
  --deps          Install missing build dependencies with apt-get (Debian and Ubuntu): a C compiler, and the
                  docker CLI where its package does not include the engine
  --binary FILE   Install FILE instead of building
  --uninstall     Remove the plugin, its link, completions and man pages; list what else is left
  --demo          Install nothing: build, then watch a few containers of a temporary Docker engine, which is
                  unpacked in target/ if Docker is missing; needs root or sudo
  -y, --yes       Do not ask, and install missing build dependencies with apt-get
  -h, --help      Print this text
END
}

absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$caller/$1" ;;
    esac
}

# --- target paths

# The docker CLI looks for plugins below /usr/local and in its configuration folder, not in PATH; the link in bin/ is
# for calling `docker-logwatch` directly.
lay_out() {
    if [ -n "$prefix" ]; then
        plugins=$prefix/lib/docker/cli-plugins
        bin=$prefix/bin
        share=$prefix/share
        zsh=$share/zsh/site-functions
        fish=$share/fish/vendor_completions.d
        # fish finds that folder only through XDG_DATA_DIRS, which ssh sessions and services lack.
        [ "$prefix" != /usr/local ] || fish=/etc/fish/completions
    else
        [ -n "${HOME:-}" ] || fail "HOME is not set: use --system or --prefix DIR"
        plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
        bin=$HOME/.local/bin
        share=${XDG_DATA_HOME:-$HOME/.local/share}
        zsh=$share/zsh/site-functions
        fish=${XDG_CONFIG_HOME:-$HOME/.config}/fish/completions
    fi
    case $plugins$share$fish in
        *[[:cntrl:]]*) fail "the path of a target folder contains a control character" ;;
    esac
    # Lists each installed file and created folder for --uninstall.
    manifest=$share/docker-logwatch/installed
    folders=("$plugins" "$bin" "$share/bash-completion/completions" "$zsh" "$fish" "$share/fish/vendor_completions.d"
        "$share/man/man1" "${manifest%/*}")
}

# Whether this script or an earlier version of it installs a file at this path.
could_install() {
    case $1 in
        "$plugins/docker-logwatch" | "$bin/docker-logwatch" | "$zsh/_docker-logwatch") ;;
        "$share/bash-completion/completions/docker-logwatch" | "$fish/docker-logwatch.fish") ;;
        "$share/fish/vendor_completions.d/docker-logwatch.fish") ;;
        "$share/man/man1/docker-logwatch"*.1) [ "${1%/*}" = "$share/man/man1" ] ;;
        *) false ;;
    esac
}

# Whether the folder is one that files are installed into, or a parent of one.
could_make() {
    local folder
    for folder in "${folders[@]}"; do
        case $folder/ in
            "$1"/*) return 0 ;;
        esac
    done
    return 1
}

# The paths in the manifest are deleted, possibly by root, so no other user may be able to write to it.
trust_manifest() {
    local path owner mode
    for path in "${manifest%/*}" "$manifest"; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        read -r owner mode < <(stat -c '%u %a' "$path")
        if [ -L "$path" ] || { [ "$owner" != 0 ] && [ "$owner" != "$(id -u)" ]; } || [ $((0$mode & 022)) != 0 ]; then
            fail "$path is not trusted to list what to remove, because other users can write to it: check its content, then" \
                "run \`chmod go-w\` and \`chown\` on it"
        fi
    done
    [ ! -e "$manifest" ] || [ -f "$manifest" ] || fail "$manifest is not a regular file"
}

# Prints the first target folder that is not writable.
unwritable() {
    local folder
    for folder in "${folders[@]}"; do
        while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
        if [ ! -w "$folder" ]; then
            echo "$folder"
            return
        fi
    done
}

# Sets `helper` to the command that grants the privileges to install files, if we lack them.
find_helper() {
    local folder
    helper=()
    folder=$(unwritable)
    [ -n "$folder" ] || return 0
    [ "$(id -u)" != 0 ] || fail "$folder is not writable"
    [ -n "$prefix" ] || fail "$folder is not writable by $(id -un)"
    has sudo || fail "only root can write to $folder, and there is no sudo: run this as root, or use --user"
    helper=(sudo)
}

# --- requirements

# Adds the folder in which rustup installs `cargo`: the PATH of root or of a script often lacks it.
find_tools() {
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin
}

# Prints the missing packages that the build and the demo's containers need, one per line.
missing() {
    if [ -z "$binary" ] || [ "$demo" = yes ]; then
        has cc || echo gcc
        [ -e /usr/include/stdio.h ] || [ "$(uname)" != Linux ] || echo libc6-dev
    fi
    [ "$demo" = yes ] || [ "$deps" = no ] || has docker || echo docker-client-alone
    if [ "$demo" = yes ]; then
        { has gcc && [ -e "$(gcc -print-file-name=libc.a)" ]; } || echo libc6-dev
    fi
}

check_rust() {
    local minimum found
    [ -z "$binary" ] || [ "$demo" = yes ] || return 0
    minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    { has cargo && has rustc; } || fail "Rust is missing (cargo and rustc $minimum or later): see https://rustup.rs"
    found=$(rustc --version | cut -d ' ' -f 2) || fail "rustc is installed but does not run: see above"
    [ "$(printf '%s\n' "$minimum" "$found" | sort -V | head -n 1)" = "$minimum" ] ||
        fail "rustc is $found, but $minimum or later is needed: run \`rustup update\`, or see https://rustup.rs"
}

# Checks everything that could make a later step fail, before the build takes minutes.
check() {
    mapfile -t packages < <(missing | sort -u)
    check_rust
    if [ "${#packages[@]}" != 0 ]; then
        has apt-get || fail "missing: ${packages[*]} (Debian package names); there is no apt-get to install them with"
        [ "$(id -u)" = 0 ] || has sudo || fail "missing: ${packages[*]}; installing them needs root or sudo"
    fi
    if [ "$demo" = no ]; then
        trust_manifest
        find_helper
        return
    fi
    [ "$(uname)" = Linux ] || fail "the demo starts a Docker engine, which needs Linux"
    [ "$(id -u)" = 0 ] || has sudo || fail "the demo starts a Docker engine, which needs root or sudo"
    has dockerd && has docker || has apt-get ||
        fail "the demo needs dockerd and docker, and there is no apt-get to fetch them with"
}

# --- announcement

# Estimates the minutes of a first build: most of it uses all processors, the last steps of the library and the link do
# not.
minutes() {
    local processors
    processors=$(nproc 2>/dev/null || echo 2)
    echo $(((serial_seconds + parallel_seconds / processors + 59) / 60))
}

announce() {
    say "This is going to"
    [ "${#packages[@]}" = 0 ] || say "  - install ${packages[*]} with apt-get, as root"
    if [ "$demo" = yes ] && [ -n "$(engine_missing)" ] && [ ! -d "$target/demo" ]; then
        say "  - fetch a Docker engine (about 100 MB) and unpack it in $target/demo, without installing it"
    fi
    if [ -n "$binary" ]; then
        :
    elif [ -e "$target/release/docker-logwatch" ]; then
        say "  - build what has changed of docker-logwatch in $target since the last build"
    else
        say "  - build docker-logwatch in $target (1 GB): about $(minutes) minutes on this machine if it is idle"
    fi
    if [ "$demo" = no ]; then
        say "  - install plugin, link, completions and man pages in ${prefix:-$bin, $plugins and $share}${helper:+, with sudo}"
    elif [ -t 1 ]; then
        say "  - start a private Docker engine as root with a few containers, watch them until you press Ctrl-C, and remove both"
    else
        say "  - start a private Docker engine as root with a few containers, watch them for ten seconds, and remove both"
    fi
}

confirm() {
    local answer
    [ "$yes" = no ] || return 0
    if [ -t 0 ] && [ -t 2 ]; then
        printf 'Go on? [Y/n] ' >&2
        read -r answer || answer=n
        case $answer in
            '' | [Yy]*) ;;
            *) say "nothing was done" && exit 1 ;;
        esac
    elif [ "${#packages[@]}" != 0 ] && [ "$deps" = no ]; then
        fail "missing: ${packages[*]}; run this again with --deps or --yes to install them, or install them yourself"
    fi
}

# Asks for the sudo password now rather than after the build.
authenticate() {
    [ "$(id -u)" != 0 ] || return 0
    [ "$demo" = yes ] || [ "${#packages[@]}" != 0 ] || [ "${#helper[@]}" != 0 ] || return 0
    sudo -v || fail "this needs root, and sudo failed"
}

# --- building

# Reports progress: near the end, cargo is silent for minutes.
report_progress() {
    local seconds=0
    while sleep 30 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 30))
        say "  building for $((seconds / 60)) min $((seconds % 60)) s; about $(minutes) min on an idle machine"
    done
}

build() {
    local ticker status=0
    [ -z "$binary" ] || return 0
    say "building"
    report_progress &
    ticker=$!
    CARGO_TARGET_DIR=$target cargo build --release --locked --bin docker-logwatch >&2 || status=$?
    kill "$ticker" 2>/dev/null || true
    [ "$status" = 0 ] || fail "the build failed: see above"
    binary=$target/release/docker-logwatch
}

# --- installing

# Creates a folder and records each level that did not exist before.
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
        # The folder of the manifest does not exist yet.
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
    remove_all >/dev/null
    pending=
    make_dir "${manifest%/*}"
    : >"$manifest" || fail "cannot write $manifest"
    say "installed:"
    put 755 "$binary" "$plugins/docker-logwatch"
    make_dir "$bin"
    if [ -e "$bin/docker-logwatch" ] || [ -L "$bin/docker-logwatch" ]; then
        say "  ($bin/docker-logwatch already exists and was not installed by this script: left alone)"
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

# --- removing

# Removes the files first, then the folders that we created and that are empty now. Prints what it removed. Ignores
# lines of the manifest that this script cannot have written.
remove_all() {
    local kind path at dirs=() strange=()
    [ -f "$manifest" ] || return 0
    trust_manifest
    while read -r kind path; do
        if [ "$kind" = file ] && could_install "$path"; then
            [ ! -e "$path" ] && [ ! -L "$path" ] || echo "$path"
            rm -f "$path" || fail "cannot remove $path"
        elif [ "$kind" = dir ] && could_make "$path"; then
            dirs+=("$path")
        else
            strange+=("$kind $path")
        fi
    done <"$manifest"
    rm -f "$manifest" || fail "cannot remove $manifest"
    for ((at = ${#dirs[@]} - 1; at >= 0; at--)); do
        rmdir "${dirs[at]}" 2>/dev/null || true
    done
    for path in "${strange[@]}"; do
        say "left alone: \"$path\", which is listed in $manifest but not something that this script installs"
    done
}

# Lists related files that stay.
list_left() {
    local path left=()
    for path in "${XDG_STATE_HOME:-${HOME:-/root}/.local/state}/docker-logwatch" /var/lib/docker-logwatch \
        "${DOCKER_CONFIG:-${HOME:-/root}/.docker}/logwatch.yaml" /etc/docker-logwatch \
        /etc/systemd/system/docker-logwatch.service /etc/cron.d/docker-logwatch /etc/logrotate.d/docker-logwatch \
        /var/log/docker-logwatch "$target"; do
        [ ! -e "$path" ] || left+=("$path")
    done
    if [ "${#left[@]}" != 0 ]; then
        say "left, because they contain your data, your settings or the build:"
        for path in "${left[@]}"; do say "  $path"; done
    fi
    say "packages that were installed for the build stay too: gcc, libc6-dev and docker-cli, if they were missing"
}

uninstall() {
    local path removed
    trust_manifest
    [ -f "$manifest" ] || fail "nothing to remove: $manifest does not exist; did you install with --user, --system or --prefix?"
    removed=$(remove_all)
    say "removed:"
    while read -r path; do say "  $path"; done <<<"$removed"
    list_left
}

suggest_next() {
    if ! has docker; then
        say "note: there is no docker CLI: use \`docker-logwatch\` instead of \`docker logwatch\`"
        say "next: $bin/docker-logwatch watch"
        return
    fi
    if [ -n "$prefix" ] && [ "$prefix" != /usr/local ]; then
        say "for the docker CLI to find the plugin, add \"cliPluginsExtraDirs\": [\"$plugins\"] to its config.json"
    fi
    if [ -z "$prefix" ] && has zsh; then
        say "for completion in zsh, add this to .zshrc before compinit: fpath=($zsh \$fpath)"
    fi
    say "next: docker logwatch watch"
}

# --- the demo

engine=
has_keeper=no
brief=
watch=

# Prints the packages of Docker that the demo needs and that are missing.
engine_missing() {
    has dockerd || echo docker.io
    has docker || echo docker-client
}

# Makes Docker's programs available; installed ones take precedence.
find_engine() {
    local missing folder libraries=
    mapfile -t missing < <(engine_missing)
    [ "${#missing[@]}" != 0 ] || return 0
    if [ ! -d "$target/demo" ]; then
        say "fetching a Docker engine"
        mkdir -p "$target"
        unpack_packages "$target/demo" "${missing[@]}"
    fi
    for folder in usr/sbin usr/bin sbin bin; do
        PATH=$PATH:$target/demo/$folder
    done
    for folder in "$target"/demo/usr/lib/*-linux-* "$target"/demo/lib/*-linux-*; do
        [ ! -d "$folder" ] || libraries=$libraries:$folder
    done
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}$libraries
    [ -z "$(engine_missing)" ] ||
        fail "$target/demo is incomplete: remove it and run this again"
}

demo_docker() { docker -H "unix://$engine/docker.sock" "$@" 9>&-; }

demo_up() {
    local tries=0
    engine=$(mktemp -d /tmp/lwd-XXXXXX)
    mkdir -p "$engine/config" "$engine/image" "$engine/plugins"
    export DOCKER_CONFIG=$engine/config
    unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    printf '{"cliPluginsExtraDirs":["%s"]}\n' "$engine/plugins" >"$engine/config/config.json"
    ln -s "$binary" "$engine/plugins/docker-logwatch"
    rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort \
        tests/chatter/main.rs -o "$engine/image/chatter" || fail "the demo's containers could not be built"
    mkfifo "$engine/alive"
    # When this descriptor closes, however we end, demo-engine.sh cleans up: no other process may inherit it.
    exec 9<>"$engine/alive"
    as_root env -i "PATH=$PATH" "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}" setsid --fork "$PWD/scripts/demo-engine.sh" \
        "$engine" "$(id -g)" </dev/null >"$engine/log" 2>&1 9>&- || {
        cat "$engine/log" >&2
        fail "the demo's Docker engine does not start"
    }
    has_keeper=yes
    until demo_docker version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" = 300 ] || [ -e "$engine/ended" ]; then
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
    # Lives for half a second, again and again: a poller would miss it.
    set -m
    (while demo_run "brief-$RANDOM" --rm chatter --count 5 --rate 10 --prefix "gone-in-half-a-second"; do sleep 1; done) \
        >/dev/null 2>&1 9>&- &
    brief=$!
    set +m
    disown
}

demo_watch() {
    local host=unix://$engine/docker.sock tenths=0
    say ""
    say "\$ docker -H $host logwatch watch"
    if [ -t 1 ]; then
        say "(Ctrl-C ends it)"
        # In the background, so that a signal to us interrupts the wait; Ctrl-C reaches it through the terminal.
        docker -H "$host" logwatch watch 9>&- &
        watch=$!
        trap : INT
        while kill -0 "$watch" 2>/dev/null; do wait "$watch" || true; done
        trap 'exit 130' INT
        watch=
        return
    fi
    # In a process group of its own, so that we can interrupt it as a terminal would.
    set -m
    docker -H "$host" logwatch watch 9>&- &
    watch=$!
    set +m
    while [ "$tenths" -lt 100 ]; do
        kill -0 "$watch" 2>/dev/null || { wait "$watch" || fail "watch ended with exit code $?"; fail "watch ended by itself"; }
        sleep 0.1
        tenths=$((tenths + 1))
    done
    kill -INT -- "-$watch"
    wait "$watch" || fail "watch ended with exit code $?"
    watch=
}

demo_down() {
    local tries=0
    # Try every step, even if a previous one failed or the terminal is gone.
    set +e
    trap '' HUP INT TERM QUIT PIPE
    [ -n "$engine" ] || return 0
    say "cleaning up"
    [ -z "$watch" ] || kill -KILL "$watch" 2>/dev/null
    [ -z "$brief" ] || kill -- "-$brief" 2>/dev/null
    exec 9>&-
    [ "$has_keeper" = yes ] || rm -rf "$engine"
    while [ -e "$engine" ] && [ "$tries" -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    [ ! -e "$engine" ] || say "warning: parts of the demo's engine are left: see $engine"
    engine=
}

demo() {
    trap demo_down EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 131' QUIT
    trap 'exit 143' TERM
    # A closed pipe is an error of a write, not a reason to skip the rest.
    trap '' PIPE
    say "starting a private Docker engine with a few containers"
    demo_up
    demo_containers
    demo_watch
    demo_down
    say "removed engine and containers; nothing was installed${packages[*]:+ except ${packages[*]}}; $target is left"
    say "next: ./install.sh"
}

deps=no
demo=no
yes=no
binary=
prefix=
where=
helper=()
[ "$(id -u)" != 0 ] || prefix=/usr/local
what=install
while [ $# -gt 0 ]; do
    case $1 in
        --system) prefix=/usr/local where=$1 ;;
        --user) prefix='' where=$1 ;;
        --prefix)
            [ -n "${2:-}" ] || fail "--prefix needs a folder"
            prefix=$(absolute "$2") where=$1
            shift
            ;;
        --binary)
            binary=$(absolute "${2:-}")
            [ -f "$binary" ] || fail "--binary needs a file"
            shift
            ;;
        --deps) deps=yes ;;
        -y | --yes) yes=yes ;;
        --uninstall) what=uninstall ;;
        --demo) demo=yes ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
if [ "$demo" = yes ] && [ -n "$where" ]; then
    fail "--demo installs nothing: $where has no effect with it"
fi

# Measured processor time of a first build: the library's own optimisation and the link, which use one processor, and
# the rest, which uses all.
serial_seconds=245
parallel_seconds=320
target=${CARGO_TARGET_DIR:-$PWD/target}
lay_out
if [ "$what" = uninstall ]; then
    trust_manifest
    if [ -f "$manifest" ]; then find_helper; fi
    [ "${#helper[@]}" = 0 ] || exec sudo "$PWD/install.sh" --uninstall --prefix "$prefix"
    uninstall
    exit
fi
find_tools
check
announce
confirm
authenticate
[ "${#packages[@]}" = 0 ] || install_packages "${packages[@]}"
if [ "$demo" = yes ]; then
    find_engine
    build
    demo
    exit
fi
build
if [ "${#helper[@]}" != 0 ]; then
    exec sudo "$PWD/install.sh" --yes --prefix "$prefix" --binary "$binary"
fi
install_all
suggest_next
