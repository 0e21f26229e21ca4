# shellcheck shell=bash
# What install.sh and the scripts in tests/ share: messages, root, and Debian's packages. Sourced, never run.

# Stands before every message of a script, such as "tests/run.sh: ".
speaker=${speaker:-}

# A script that has something to clean up goes on when its terminal is gone: a message that nobody can get is no failure.
say() { printf '%s\n' "$speaker$*" >&2 2>/dev/null || true; }

fail() {
    if [ -n "$speaker" ]; then say "$*"; else say "error: $*"; fi
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The package that brings the docker CLI: docker.io up to Debian 12, docker-cli from 13 on. It takes apt's lists to tell,
# and a fresh machine has none before `apt-get update`.
client_package() {
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi
}

# Installs packages. The word `docker-client` stands for the one with the docker CLI, and `docker-client-alone` for that
# if it brings no engine: docker.io would start one on this machine for good.
install_packages() {
    local package packages=()
    has apt-get || fail "missing: $* (names as in Debian); install them, this machine has no apt-get to do it with"
    [ "$(id -u)" = 0 ] || has sudo || fail "missing: $*; installing them needs root or sudo"
    as_root apt-get update -qq >&2 || fail "apt-get update failed, so these cannot be installed: $*"
    for package in "$@"; do
        case $package in
            docker-client) packages+=("$(client_package)") ;;
            docker-client-alone) [ "$(client_package)" = docker.io ] || packages+=(docker-cli) ;;
            *) packages+=("$package") ;;
        esac
    done
    [ "${#packages[@]}" != 0 ] || return 0
    say "installing ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
        fail "apt-get could not install ${packages[*]}: see above"
}

# Prints the machine's Debian mirror.
debian_mirror() {
    # shellcheck disable=SC2016 # $(REPO_URI) is apt's.
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | grep -v security | head -n 1
}

# Fetches packages, and what they need that this machine lacks, and unpacks them into a folder. Nothing gets installed,
# no service is started, and it takes no root; apt's lists are fetched anew and kept apart from the machine's.
unpack_packages() {
    local into=$1 apt=$1.apt log=$1.log deb options package packages=() wanted=()
    shift
    rm -rf "$into" "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    # Hooks of the machine's own apt, such as one that empties its cache, need root.
    printf '#clear APT::Update::%s;\n' Pre-Invoke Post-Invoke Post-Invoke-Success >"$apt/apt.conf"
    options=(-qq -c "$apt/apt.conf" -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none)
    # A source that cannot be reached need not be the one that matters.
    apt-get "${options[@]}" update >"$log" 2>&1 || true
    for package in "$@"; do
        if [ "$package" = docker-client ]; then
            package=docker.io
            ! apt-cache "${options[@]}" show docker-cli >/dev/null 2>&1 || package=docker-cli
        fi
        wanted+=("$package")
    done
    mapfile -t packages < <(apt-get "${options[@]}" --simulate install --no-install-recommends "${wanted[@]}" 2>>"$log" |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    if [ "${#packages[@]}" = 0 ] || ! (cd "$apt/debs" && apt-get "${options[@]}" download "${packages[@]}") >>"$log" 2>&1; then
        tail -n 5 "$log" >&2
        fail "these packages could not be fetched: ${wanted[*]}; see $log"
    fi
    for deb in "$apt"/debs/*.deb; do
        dpkg -x "$deb" "$apt/root"
    done
    # Under its own name only once it is complete.
    mv "$apt/root" "$into"
    rm -rf "$apt" "$log"
}
