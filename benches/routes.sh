#!/usr/bin/env bash
# Compares every route with `docker logs -f`, at three rates, on a log that rotates (1 MB x 3): lost and repeated lines,
# latency, cost.
# Usage: benches/routes.sh [low] [medium] [high] (all); SECONDS_EACH=40, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2016 # Backquotes are Markdown.
. "$(dirname "$0")/lib.sh"
window=${SECONDS_EACH:-40}
[ $# -gt 0 ] || set -- low medium high

# Seconds that followers get to start before the first line is written.
settle=3

# Prints the number of requests that dockerd answered, from its debug log.
calls() { grep -c 'msg="Calling ' "$home/dockerd.log" || true; }

# held PID: prints descriptors and tasks of a follower, or `ended`: on engines before 23, a rotation can end it.
held() {
    kill -0 "$1" 2>/dev/null || { echo ended && return; }
    echo "$(find "/proc/$1/fd" -mindepth 1 | wc -l) / $(find "/proc/$1/task" -mindepth 1 -maxdepth 1 | wc -l)"
}

has_ended() { ! kill -0 "$1"; }

# measure RATE ROUTE COUNT ARGUMENTS...: measures one container with one follower and prints a row.
measure() {
    local rate=$1 route=$2 count=$3 name follower gauge asked ours engine first last
    shift 3
    name=$rate-${route// /-}
    say "$rate: $route"
    rm -f "$home/pipe"
    mkfifo "$home/pipe"
    start "$name" --log-opt max-size=1m --log-opt max-file=3 -- --before $((settle * 1000)) --count "$count" --stamp "$@"
    "$home/gauge" all <"$home/pipe" >"$home/gauged" &
    gauge=$!
    case $route in
        docker) docker logs -f "$name" >"$home/pipe" 2>/dev/null & ;;
        file | stream) follow_ours --source "$route" "$name" & ;;
        rotate*) follow_ours --source rotate --rotate-interval "${route#* }" "$name" & ;;
        poll*) follow_ours --source poll --poll-interval "${route#* }" "$name" & ;;
    esac
    follower=$!
    sleep $((settle - 1))
    asked=$(calls)
    engine=$(cpu_ms "$daemon")
    ours=$(cpu_ms "$follower")
    first=$(held "$follower")
    sleep "$window"
    last=$(held "$follower")
    if [ "$last" = ended ]; then ours=-; else ours=$(minus "$(cpu_ms "$follower")" "$ours"); fi
    engine=$(minus "$(cpu_ms "$daemon")" "$engine")
    asked=$(($(calls) - asked))
    docker wait "$name" >/dev/null
    if [ "$route" = docker ]; then
        await "the end of docker logs" has_ended "$follower"
    else
        await "the end of $name" grep -q "^- $name" "$home/notices"
        kill "$follower"
    fi
    wait "$follower" || true
    wait "$gauge" || true
    row "$rate" "$route" "$count" "$ours" "$engine" "$first" "$last" "$asked"
    drop_all
}

follow_ours() { exec "$logwatch" watch --tail all --format raw "$@" >"$home/pipe" 2>"$home/notices"; }

row() {
    local different repeated p50 p99 max
    read -r different repeated _ p50 p99 max <"$home/gauged"
    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' "$1" \
        "$([ "$2" = docker ] && echo '`docker logs -f`' || echo "$2")" $(($3 - different)) "$repeated" \
        "$p50" "$p99" "$max" "$4" "$5" "$6" "$7" "$(awk -v n="$8" -v s="$window" 'BEGIN { printf "%.0f", n * 60 / s }')"
}

rate() {
    local name=$1 count=$2 route
    shift 2
    for route in file stream 'rotate 30s' 'poll 2s' 'poll 5s' docker; do
        measure "$name" "$route" "$count" "$@"
    done
}

# Read by `up`.
dockerd_options=(--debug)
up
machine "one run"
printf '5 lines/s; 50/s and 500 at once every 10 s; 1,000/s and 5,000 at once every 10 s; %s s each, max-size=1m, max-file=3\n\n' "$window"
printf '| rate | route | lost | twice | p50 ms | p99 ms | max ms | CPU ms | dockerd ms | descriptors / tasks, start | end | API calls a minute |\n'
printf '|---|---|---|---|---|---|---|---|---|---|---|---|\n'
for part in "$@"; do
    # The window ends a second before the last line is written, so that the follower still runs when it is measured.
    case $part in
        low) rate low $((5 * window)) --rate 5 ;;
        medium) rate medium $((100 * window)) --rate 50 --surge 500 --every 10000 ;;
        high) rate high $((1500 * window)) --rate 1000 --surge 5000 --every 10000 ;;
        *) fail "no such rate: $part" ;;
    esac
done
echo
