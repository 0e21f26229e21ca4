# shellcheck shell=bash
# Shared by install.sh and the scripts in tests/: messages, root privileges, and Debian packages. Sourced, never run.

# Prefix of every message of a script, such as "tests/run.sh: ".
speaker=${speaker:-}

# A failed message is ignored, so that a script whose terminal is gone can still clean up.
say() { printf '%s\n' "$speaker$*" >&2 2>/dev/null || true; }

fail() {
    if [ -n "$speaker" ]; then say "$*"; else say "error: $*"; fi
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The package with the docker CLI: docker.io up to Debian 12, docker-cli from 13 on. Needs apt's package lists, which a
# fresh machine has only after `apt-get update`.
client_package() {
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi
}

# Installs packages. `docker-client` stands for the package with the docker CLI; `docker-client-alone` stands for it
# only if it does not include the engine: docker.io would start one permanently.
install_packages() {
    local package packages=()
    has apt-get || fail "missing: $* (Debian package names); install them: there is no apt-get to do it with"
    [ "$(id -u)" = 0 ] || has sudo || fail "missing: $*; installing them needs root or sudo"
    as_root apt-get update -qq >&2 || fail "apt-get update failed; not installed: $*"
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

# Prints the URL of the Debian mirror in the machine's apt sources.
debian_mirror() {
    # shellcheck disable=SC2016 # apt expands $(REPO_URI).
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | grep -v security | head -n 1
}

# Fetches packages and their missing dependencies and unpacks them into a folder. Installs nothing, starts no service,
# and needs no root; uses package lists of its own, separate from the machine's.
unpack_packages() {
    local into=$1 apt=$1.apt log=$1.log deb options package packages=() wanted=()
    shift
    rm -rf "$into" "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    # Hooks of the machine's apt configuration, such as one that empties its cache, need root.
    printf '#clear APT::Update::%s;\n' Pre-Invoke Post-Invoke Post-Invoke-Success >"$apt/apt.conf"
    options=(-qq -c "$apt/apt.conf" -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none)
    # An unreachable source may be one that is not needed.
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
    # Gets its final name only when complete.
    mv "$apt/root" "$into"
    rm -rf "$apt" "$log"
}
