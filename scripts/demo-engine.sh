#!/usr/bin/env bash
# Runs the Docker engine of `install.sh --demo` as long as a process holds the FIFO FOLDER/alive open for writing, then
# removes every trace of it, including FOLDER:
#
#   scripts/demo-engine.sh FOLDER GROUP
#
# It runs as root, in a session of its own and without a terminal. So it cleans up whatever happens to the caller:
# Ctrl-C, a closed terminal, `kill -9`.
set -uo pipefail

home=$1 group=$2

# Prints the engine's processes: its programs have its folder on their command line, clients its socket; containers are
# children of a shim. A container that was just being started is found by its control group only.
processes() {
    local dir pid command
    {
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
        done
        find /sys/fs/cgroup -path "*/${home##*/}/*" -name cgroup.procs -exec cat {} + 2>/dev/null
    } | sort -u
}

clean_up() {
    local pids tries=0 point cgroups
    # Killed rather than stopped: the engine may hang.
    while pids=$(processes | grep .) && [ "$tries" -lt 100 ]; do
        # shellcheck disable=SC2086 # Process ids are words.
        kill -KILL $pids 2>/dev/null
        sleep 0.1
        tries=$((tries + 1))
    done
    # It writes to the folder when it ends, and must not create it again.
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

# Without a configuration file of its own, it would read the machine's. 20.10 keeps its identity in /etc/docker unless
# this key says otherwise; later versions refuse the key.
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
# Nobody writes to it: read returns when the last writer closes it.
read -r _ <"$home/alive"
