#!/usr/bin/env bash
# Installs what the tests need and runs the whole suite; on Debian or Ubuntu, as root.
#
#   tests/run.sh [--engines all] [--client SUITE] [ARGUMENTS OF THE TEST RUNNER]
#   tests/run.sh --fast [ARGUMENTS OF THE TEST RUNNER]
#
# With `--fast` it runs the tests that need neither root nor Docker, and installs nothing. All others start private Docker
# engines and leave the machine's alone. With `--engines all`, the suite runs once for each of three engines: the machine's,
# and those of Debian 13 and Debian unstable, which are unpacked and not installed. `--client` uses the docker CLI of a Debian
# suite instead of the machine's: bookworm has 20.10, unstable the newest.
#
# With cargo-nextest, each test runs in a process of its own; otherwise `cargo test` runs three at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/common.sh
. scripts/common.sh
# shellcheck disable=SC2034 # Read by common.sh.
speaker='tests/run.sh: '

# Prints the missing packages, one per line.
missing() {
    has dockerd || echo docker.io
    has docker || echo docker-client
    has gcc || echo gcc
    # The only program in the containers is linked statically.
    { has gcc && [ -e "$(gcc -print-file-name=libc.a)" ]; } || echo libc6-dev
    local tool
    for tool in jq tmux openssl strace logrotate zsh fish; do
        has "$tool" || echo "$tool"
    done
    has systemd-analyze || echo systemd
    # For the tests that mount a file system from a loop device.
    has mkfs.ext4 || echo e2fsprogs
    # For the Podman tests; Podman's package depends on the rest.
    for tool in podman runc; do
        has "$tool" || echo "$tool"
    done
    [ -e /usr/share/zoneinfo/Europe/Amsterdam ] || echo tzdata
}

# Unpacks promtool next to the build, where the tests look for it: installing its package would start a server.
fetch_promtool() {
    has promtool && return
    local tools
    tools=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)/tools
    [ -x "$tools/usr/bin/promtool" ] && return
    has apt-get || fail "promtool is missing: install it, there is no apt-get to do it with"
    say "fetching promtool"
    mkdir -p "$tools"
    (
        cd "$tools"
        # Without package lists, there is nothing to download.
        apt-cache show prometheus >/dev/null 2>&1 || as_root apt-get update -qq >&2
        # Since Debian 13, promtool has its own package.
        package=promtool
        apt-cache show "$package" >/dev/null 2>&1 || package=prometheus
        # Lists that are old may name a version that the mirror no longer has.
        apt-get download -qq "$package" >&2 || { as_root apt-get update -qq >&2 && apt-get download -qq "$package" >&2; }
        dpkg -x "$package"_*.deb .
        rm "$package"_*.deb
        [ -x usr/bin/promtool ]
    ) || fail "cannot fetch promtool: see above"
}

install_missing() {
    # Debian's default PATH for users lacks the folders of daemons.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    local packages
    mapfile -t packages < <(missing | sort -u)
    [ "${#packages[@]}" = 0 ] && return
    install_packages "${packages[@]}"
}

# The profile `fast` of .config/nextest.toml, which explains what it leaves out.
run_fast() {
    if has cargo-nextest; then
        cargo nextest run --profile fast "$@"
        return
    fi
    NEXTEST_PROFILE=fast cargo test --bins --test chatter --test gauge --test model "$@"
    cargo test --lib "$@" -- \
        --skip state::place::tests::a_link_of_others --skip state::place::tests::a_lock_that_belongs \
        --skip state::place::tests::a_state_of_another_user --skip state::tests::a_disk_that_is_read_only \
        --skip state::tests::a_full_disk --skip state::tests::the_output_is_synced_then
    cargo test --test it "$@" -- no_engine::
}

run_suite() {
    local runner
    say "engine: $(dockerd --version), client: $(docker --version)"
    if has cargo-nextest; then
        cargo nextest run "$@"
        return
    fi
    # Tests that start engines have a time limit of their own (tests/it/support/watchdog.rs). For all others, each test
    # program has one.
    runner=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${runner}_RUNNER=timeout --foreground --kill-after=60 7200"
    # As many engines at a time as in .config/nextest.toml; and as there, the tests that measure run alone.
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
fast=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --engines) engines=${2:-}; shift ;;
        --engines=*) engines=${1#--engines=} ;;
        --fast) fast=yes ;;
        --client) client=${2:-}; shift ;;
        --client=*) client=${1#--client=} ;;
        *) arguments+=("$1") ;;
    esac
    shift || fail "--engines takes first or all, --client a Debian suite"
done

# The PATH of a root shell often lacks rustup's folder.
PATH=$PATH:$HOME/.cargo/bin
has cargo || fail "cargo is missing: install Rust, see https://rustup.rs"
if [ -n "$fast" ]; then
    run_fast "${arguments[@]}"
    exit
fi
install_missing
fetch_promtool
[ "$(id -u)" = 0 ] || fail "the tests start Docker engines, which needs root: sudo env \"PATH=\$PATH\" $0 ${arguments[*]}"

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
