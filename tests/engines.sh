#!/usr/bin/env bash
# Unpacks Docker programs of a Debian suite without installing them, and prints the folders to put in front of PATH:
# dockerd and containerd, or the docker CLI alone:
#
#   tests/engines.sh [--client] bookworm|trixie|unstable FOLDER
#
# What FOLDER already contains is not fetched again.
set -euo pipefail

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/../scripts/common.sh"
# shellcheck disable=SC2034 # Read by common.sh.
speaker='tests/engines.sh: '

packages=(docker.io containerd)
programs=(usr/sbin/dockerd usr/bin/containerd)
suffix=
if [ "${1:-}" = --client ]; then
    shift
    # Up to Debian 12, the CLI is in the engine's package.
    packages=(docker-cli)
    [ "${1:-}" != bookworm ] || packages=(docker.io)
    programs=(client/docker)
    suffix=-client
fi
[ $# = 2 ] || fail "usage: tests/engines.sh [--client] SUITE FOLDER"
# apt reads a path without a leading slash as relative to its own directories.
suite=$1 into=$(realpath -m "$2")/$1$suffix

unpack() {
    local apt=$into.apt mirror deb
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || fail "cannot fetch ${packages[*]} of Debian $suite: the apt sources of this machine contain no Debian mirror"
    say "fetching ${packages[*]} of Debian $suite"
    rm -rf "$into" "$apt"
    mkdir -p "$into" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
    local options=(
        -qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
        -o "Dir::State=$apt" -o "Dir::State::Lists=$apt/lists" -o "Dir::State::Status=$apt/status"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
    )
    if ! { apt-get "${options[@]}" update && (cd "$apt/debs" && apt-get "${options[@]}" download "${packages[@]}"); } >&2; then
        fail "cannot fetch ${packages[*]} of Debian $suite: see above"
    fi
    for deb in "$apt"/debs/*.deb; do
        dpkg -x "$deb" "$into"
    done
    if [ -n "$suffix" ]; then
        # Only the CLI, whatever else the package contains.
        mkdir "$into/client"
        mv "$into/usr/bin/docker" "$into/client/"
    fi
    rm -rf "$apt"
}

is_there() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$into/$program" ] || return 1
    done
    [ ! -e "$into.apt" ]
}

mkdir -p "$2"
# Several tests may call this at the same time.
exec 9>"$into.lock"
flock 9
is_there || unpack
if [ -n "$suffix" ]; then
    echo "$into/client"
else
    echo "$into/usr/sbin:$into/usr/bin"
fi
