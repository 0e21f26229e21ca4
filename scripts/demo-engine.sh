#!/usr/bin/env bash
# Runs the Docker engine of `install.sh --demo` for as long as anybody holds the FIFO FOLDER/alive open for writing, and
# then removes all that there was of it, FOLDER included:
#
#   scripts/demo-engine.sh FOLDER GROUP
#
# It runs as root, in a session of its own and without a terminal. So nothing that befalls the caller keeps it from
# cleaning up: Ctrl-C, a terminal that is closed, `kill -9`.
set -uo pipefail

home=$1 group=$2

# The engine's own programs name its folder on their command line, clients its socket; a container is its shim's child.
processes() {
    local dir pid command
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        command=$({ tr '\0' ' ' <"$dir/cmdline"; } 2>/dev/null) || continue
        case ${command%% *} in
            dockerd | */dockerd | containerd* | */containerd*) ;;
            docker | */docker | docker-logwatch | */docker-logwatch) ;;
            *) continue ;;
        esac
        case $command in
            *"$home/"*) echo "$pid" && cat "$dir"/task/*/children 2>/dev/null | tr ' ' '\n' ;;
        esac
    done | sort -u
}

clean_up() {
    local pids tries=0 point cgroups
    # Killed rather than stopped: that serves an engine that hangs as well.
    while pids=$(processes | grep .) && [ "$tries" -lt 100 ]; do
        # shellcheck disable=SC2086 # Process ids are words.
        kill -KILL $pids 2>/dev/null
        sleep 0.1
        tries=$((tries + 1))
    done
    # Its last word goes into the folder, which must not come back.
    [ "$tries" = 100 ] || wait
    cut -d ' ' -f 5 /proc/self/mountinfo | grep "^$home/" | sort -r | while read -r point; do
        umount --lazy "$point"
    done
    # A killed shim leaves its socket in a folder that all engines share.
    find "$home/exec" \( -name address -o -name bootstrap.json \) \
        -exec grep -oh '/run/containerd/s/[0-9a-f]*' {} + 2>/dev/null | while read -r socket; do
        rm -f "$socket"
    done
    # The group of a process that is still ending is busy.
    tries=0
    while [ "$tries" -lt 100 ]; do
        cgroups=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "${home##*/}" 2>/dev/null)
        [ -n "$cgroups" ] || break
        [ "$tries" = 0 ] || sleep 0.1
        echo "$cgroups" | while read -r cgroup; do
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
        done
        tries=$((tries + 1))
    done
    rm -rf "$home"
}

trap '' HUP INT QUIT PIPE
trap 'exit 143' TERM
trap clean_up EXIT
cd /

# Without a file of its own it would read the machine's. 20.10 takes its identity from /etc/docker, and makes it there,
# unless told otherwise; later versions refuse the key.
case $(dockerd --version) in
    "Docker version 20."*) printf '{"deprecated-key-path":"%s/key.json"}\n' "$home" ;;
    *) echo '{}' ;;
esac >"$home/daemon.json"
(
    TMPDIR=$home dockerd --config-file "$home/daemon.json" --data-root "$home/data" --exec-root "$home/exec" \
        --pidfile "$home/pid" -H "unix://$home/docker.sock" --group "$group" \
        --bridge=none --iptables=false --ip-forward=false \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${home##*/}"
    : >"$home/ended"
) &
# Nobody writes: the end of the last who could is what is waited for.
read -r _ <"$home/alive"
