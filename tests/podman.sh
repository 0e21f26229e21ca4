#!/usr/bin/env bash
# Runs the Podman of a Debian suite without installing it.
#
#   tests/podman.sh fetch SUITE FOLDER     unpacks it with all dependencies and prints the path of its root file system
#   tests/podman.sh serve ROOT HOME ...    runs podman with the given arguments in that root, with HOME at its usual path
#
# What FOLDER already contains is not fetched again. The mounts of `serve` are in a namespace of their own and end with
# it.
set -euo pipefail

fail() { printf 'tests/podman.sh: %s\n' "$*" >&2; exit 1; }

unpack() {
    local apt=$into.apt mirror deb name
    # shellcheck disable=SC2016 # apt expands $(REPO_URI).
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | grep -v security | head -n 1)
    [ -n "$mirror" ] || fail "cannot fetch the Podman of Debian $suite: the apt sources of this machine contain no Debian mirror"
    printf 'tests/podman.sh: fetching the Podman of Debian %s\n' "$suite" >&2
    rm -rf "$into" "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
    local options=(
        -qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
        -o "Dir::State=$apt" -o "Dir::State::Lists=$apt/lists" -o "Dir::State::Status=$apt/status"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
    )
    # With an empty package status, apt downloads every dependency, down to the C library.
    if ! {
        apt-get "${options[@]}" update &&
            apt-get "${options[@]}" install -y --no-install-recommends --download-only podman runc
    } >&2; then
        fail "cannot fetch podman and runc of Debian $suite: see above"
    fi
    mkdir -p "$into"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,run,tmp,var/tmp,etc/containers}
    for name in bin sbin lib lib64; do
        ln -s "usr/$name" "$into/$name"
    done
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg -x "$deb" "$into"
    done
    chmod 1777 "$into/tmp" "$into/var/tmp"
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$into/etc/containers/policy.json"
    rm -rf "$apt"
}

is_there() { [ -x "$into/usr/bin/podman" ] && [ ! -e "$into.apt" ]; }

fetch() {
    mkdir -p "$2"
    suite=$1 into=$(realpath -m "$2")/podman-$1
    # Several tests may call this at the same time.
    exec 9>"$into.lock"
    flock 9
    is_there || unpack
    echo "$into"
}

serve() {
    local root=$1 home=$2 name
    shift 2
    # Podman remounts its root, so the root must be a mount point.
    mount --bind "$root" "$root"
    for name in proc sys dev; do
        mount --rbind "/$name" "$root/$name"
    done
    mount -t tmpfs none "$root/run"
    mount -t tmpfs none "$root/tmp"
    mkdir -p "$root$home"
    mount --rbind "$home" "$root$home"
    exec chroot "$root" /usr/bin/podman "$@"
}

case ${1:-} in
    fetch)
        [ $# = 3 ] || fail "usage: tests/podman.sh fetch SUITE FOLDER"
        fetch "$2" "$3"
        ;;
    serve)
        [ $# -ge 3 ] || fail "usage: tests/podman.sh serve ROOT HOME [ARGUMENTS]"
        [ -n "${PODMAN_SCRIPT_APART:-}" ] || PODMAN_SCRIPT_APART=1 exec unshare --mount --propagation private "$0" "$@"
        shift
        serve "$@"
        ;;
    *) fail "usage: tests/podman.sh fetch|serve ..." ;;
esac
