#!/usr/bin/env bash
# Unpacks dockerd and containerd of a Debian suite, without touching the machine's own, and prints the folders that
# belong in front of PATH to run them:
#
#   tests/engines.sh trixie|unstable FOLDER
#
# What is in FOLDER already is not fetched again.
set -euo pipefail

fail() { printf 'tests/engines.sh: %s\n' "$*" >&2; exit 1; }

[ $# = 2 ] || fail "it takes a Debian suite and a folder"
suite=$1 into=$2/$1

unpack() {
    local apt=$into.apt mirror deb
    # shellcheck disable=SC2016 # $(REPO_URI) is apt's.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | grep -v security | head -n 1)
    [ -n "$mirror" ] || fail "the engine of Debian $suite comes from the machine's Debian mirror, and its apt sources name none"
    printf 'tests/engines.sh: fetching the engine of Debian %s\n' "$suite" >&2
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
    if ! { apt-get "${options[@]}" update && (cd "$apt/debs" && apt-get "${options[@]}" download docker.io containerd); } >&2; then
        fail "the packages docker.io and containerd of Debian $suite could not be fetched: see above"
    fi
    for deb in "$apt"/debs/*.deb; do
        dpkg -x "$deb" "$into"
    done
    rm -rf "$apt"
}

is_there() { [ -x "$into/usr/sbin/dockerd" ] && [ -x "$into/usr/bin/containerd" ] && [ ! -e "$into.apt" ]; }

mkdir -p "$2"
# Tests run side by side.
exec 9>"$into.lock"
flock 9
is_there || unpack
echo "$into/usr/sbin:$into/usr/bin"
