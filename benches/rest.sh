#!/usr/bin/env bash
# Follows 50 silent containers for a minute: the cost when nothing happens.
# Usage: benches/rest.sh [SECONDS]; CONTAINERS=50, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
window=${1:-60}
containers=${CONTAINERS:-50}

# status FIELD PIDS: prints the sum of a field of /proc/PID/status, over all threads for fields that are counted per
# thread.
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

# so_far PIDS: prints CPU time in ms and context switches.
so_far() {
    echo "$(cpu_ms "$@") $(($(status voluntary_ctxt_switches "$@") + $(status nonvoluntary_ctxt_switches "$@")))"
}

# at_rest NAME PIDS: measures one window and prints a row of the table.
at_rest() {
    local name=$1 before engine after
    shift
    # Until memory and timers have settled.
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

# Counts our system calls and API requests in another window of the same length.
trace() {
    local pid=$1
    # Long strings: health checks are recognised by the end of their paths.
    strace -f -qq -s 300 -o "$home/trace" -p "$pid" &
    sleep "$window"
    kill $!
    wait $! || true
    # Requests: the pool's health checks every 30 s, and all others.
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
# Again, because dockerd's garbage collection can fall into any window.
at_rest 'nobody, again'
cat "$home/traced"
