#!/usr/bin/env bash
# 50 containers that say nothing, for a minute: what following them costs when nothing happens.
# Usage: benches/rest.sh [SECONDS]; CONTAINERS=50, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
window=${1:-60}
containers=${CONTAINERS:-50}

# status FIELD PIDS: the sum of /proc/PID/status, over all threads for what is counted by thread.
status() {
    local field=$1 pid
    shift
    for pid in "$@"; do
        case $field in
            *ctxt_switches) cat /proc/"$pid"/task/*/status ;;
            *) cat "/proc/$pid/status" ;;
        esac
    done | awk -v field="$field:" '$1 == field { sum += $2 } END { print sum + 0 }'
}

pss() {
    local pid
    for pid in "$@"; do
        awk '$1 == "Pss:" { print $2 }' "/proc/$pid/smaps_rollup"
    done | awk '{ sum += $1 } END { print sum + 0 }'
}

descriptors() {
    local pid
    for pid in "$@"; do
        ls "/proc/$pid/fd"
    done | wc -l
}

mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }

# CPU and context switches.
so_far() {
    echo "$(cpu_ms "$@") $(($(status voluntary_ctxt_switches "$@") + $(status nonvoluntary_ctxt_switches "$@")))"
}

# at_rest NAME PIDS: a row of the table.
at_rest() {
    local name=$1 before engine after
    shift
    # Until memory and timers have come to rest.
    sleep 5
    before=$(so_far "$@")
    engine=$(cpu_ms "$daemon")
    sleep "$window"
    engine=$(minus "$(cpu_ms "$daemon")" "$engine")
    after=$(so_far "$@")
    printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$name" "$(minus "${after% *}" "${before% *}")" \
        "$(mib "$(status VmRSS "$@")")" "$(mib "$(pss "$@")")" "$(descriptors "$@")" $((${after#* } - ${before#* })) \
        "$engine" "$(descriptors "$daemon")"
}

# What our process asks of the kernel, and of the engine, in another such while.
trace() {
    local pid=$1
    # Whole paths: the checks are told by what stands far behind in them.
    strace -f -qq -s 300 -o "$home/trace" -p "$pid" &
    sleep "$window"
    kill $!
    wait $! || true
    # The pool's checks of its connection, every 30 s, and all else.
    grep -E '"(GET|HEAD|POST|DELETE) ' "$home/trace" >"$home/asked" || true
    printf '\nOurs, in another %s s under strace: %s API requests, %s of health checks, %s system calls.\n' "$window" \
        "$(grep -cvE '/_ping |limit=1|since=1.000000000&' "$home/asked" || true)" \
        "$(grep -cE '/_ping |limit=1|since=1.000000000&' "$home/asked" || true)" \
        "$(grep -cE '^[0-9]+ +[a-z_0-9]+\(' "$home/trace" || true)"
}

need strace
up
for ((n = 1; n <= containers; n++)); do
    start "idle-$n" -- --count 3 --idle
done
machine "one run"
printf '%s containers at rest, %s s\n\n' "$containers" "$window"
printf '| | CPU ms | RSS MiB | PSS MiB | descriptors | context switches | dockerd CPU ms | dockerd descriptors |\n'
printf '|---|---|---|---|---|---|---|---|\n'
at_rest nobody
"$logwatch" watch >/dev/null 2>&1 &
watch=$!
at_rest ours "$watch"
trace "$watch" >"$home/traced"
kill "$watch"
wait "$watch"
pids=()
for ((n = 1; n <= containers; n++)); do
    docker logs -f "idle-$n" >/dev/null 2>&1 &
    pids+=($!)
done
at_rest "\`docker logs -f\` x $containers" "${pids[@]}"
kill "${pids[@]}"
# dockerd's own garbage collection comes in any window.
at_rest 'nobody, again'
cat "$home/traced"
