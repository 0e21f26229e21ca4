#!/usr/bin/env bash
# Runs the whole test suite and installs what it needs, on Debian or Ubuntu, as root.
#
#   tests/run.sh [--engines all] [--client SUITE] [ARGUMENTS OF THE TEST RUNNER]
#
# The tests start Docker engines of their own and leave the machine's alone. With `--engines all` the suite runs once
# for each engine: the machine's, and those of Debian 13 and of Debian's unstable, unpacked beside it. `--client` takes the
# docker CLI of a Debian suite instead of the machine's: bookworm has 20.10, unstable the newest.
#
# With cargo-nextest each test has a process of its own; without it `cargo test` runs them, three at once.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/common.sh
. scripts/common.sh
# shellcheck disable=SC2034 # Read by common.sh.
speaker='tests/run.sh: '

# The packages that are missing, one a line.
missing() {
    has dockerd || echo docker.io
    has docker || echo docker-client
    has gcc || echo gcc
    # The containers' only program is linked statically.
    { has gcc && [ -e "$(gcc -print-file-name=libc.a)" ]; } || echo libc6-dev
    local tool
    for tool in jq tmux openssl strace logrotate zsh fish; do
        has "$tool" || echo "$tool"
    done
    has systemd-analyze || echo systemd
    # File systems of their own, behind loop devices.
    has mkfs.ext4 || echo e2fsprogs
    # The Podman tests; what else Podman needs comes with it.
    for tool in podman runc; do
        has "$tool" || echo "$tool"
    done
    [ -e /usr/share/zoneinfo/Europe/Amsterdam ] || echo tzdata
}

# One program of a package that would start a server: unpacked beside the build, where the tests look for it.
fetch_promtool() {
    has promtool && return
    local tools
    tools=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)/tools
    [ -x "$tools/usr/bin/promtool" ] && return
    has apt-get || fail "promtool is missing: install it, this machine has no apt-get to do it with"
    say "fetching promtool"
    mkdir -p "$tools"
    (
        cd "$tools"
        # A machine that has never fetched its package lists has nothing to download.
        apt-cache show prometheus >/dev/null 2>&1 || as_root apt-get update -qq >&2
        # Since Debian 13 it has a package of its own.
        package=promtool
        apt-cache show "$package" >/dev/null 2>&1 || package=prometheus
        # Lists that are old may name a version that the mirror no longer has.
        apt-get download -qq "$package" >&2 || { as_root apt-get update -qq >&2 && apt-get download -qq "$package" >&2; }
        dpkg -x "$package"_*.deb .
        rm "$package"_*.deb
        [ -x usr/bin/promtool ]
    ) || fail "promtool cannot be fetched: see above"
}

install_missing() {
    # Debian keeps the daemons out of a user's PATH.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    local packages
    mapfile -t packages < <(missing | sort -u)
    [ "${#packages[@]}" = 0 ] && return
    install_packages "${packages[@]}"
}

run_suite() {
    local runner
    say "engine: $(dockerd --version), client: $(docker --version)"
    if has cargo-nextest; then
        cargo nextest run "$@"
        return
    fi
    # The tests that start engines end themselves when they take too long (tests/it/support/watchdog.rs). For all others
    # there is a limit on the whole of each program.
    runner=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${runner}_RUNNER=timeout --foreground --kill-after=60 7200"
    # As many engines side by side as .config/nextest.toml allows; and what measures runs alone, as it says there.
    if [ $# != 0 ]; then
        RUST_TEST_THREADS=${RUST_TEST_THREADS:-3} cargo test --no-fail-fast "$@"
        return
    fi
    local failed=0
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-3} cargo test --no-fail-fast -- --skip load:: || failed=$?
    RUST_TEST_THREADS=1 cargo test --no-fail-fast --test it -- load:: || failed=$?
    return "$failed"
}

engines=first
client=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --engines) engines=${2:-}; shift ;;
        --engines=*) engines=${1#--engines=} ;;
        --client) client=${2:-}; shift ;;
        --client=*) client=${1#--client=} ;;
        *) arguments+=("$1") ;;
    esac
    shift || fail "--engines takes first or all, --client a Debian suite"
done

# rustup's own place, which a root shell often lacks in its PATH.
PATH=$PATH:$HOME/.cargo/bin
has cargo || fail "cargo is missing: install Rust as https://rustup.rs tells"
install_missing
fetch_promtool
[ "$(id -u)" = 0 ] || fail "the tests start Docker engines, which only root can: sudo env \"PATH=\$PATH\" $0 ${arguments[*]}"

cache=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)/engines
if [ -n "$client" ]; then
    folder=$(tests/engines.sh --client "$client" "$cache")
    PATH=$folder:$PATH
fi
case $engines in
    first) run_suite "${arguments[@]}" ;;
    all)
        failed=0
        (run_suite "${arguments[@]}") || failed=$?
        for suite in trixie unstable; do
            folders=$(tests/engines.sh "$suite" "$cache")
            (PATH=$folders:$PATH run_suite "${arguments[@]}") || failed=$?
        done
        exit "$failed"
        ;;
    *) fail "--engines takes first or all, not '$engines'" ;;
esac
