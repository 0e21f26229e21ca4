#!/usr/bin/env bash
# Follows logs while they are written: latency, cost, completeness.
# Usage: benches/live.sh [many] [quiet] [start] [rotation] (all); RUNS=3, SECONDS_EACH=20, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2016 # Backquotes are Markdown.
. "$(dirname "$0")/lib.sh"
window=${SECONDS_EACH:-20}
containers=20
[ $# -gt 0 ] || set -- many quiet start rotation

# Seconds that followers get to start. They begin at the end of the log.
settle=3

# follow WHO GAUGE_ARGUMENTS -- NAMES: starts followers and the gauge that reads them; sets `followers` and `gauge`.
follow() {
    local who=$1 words=() name
    shift
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    rm -f "$home/pipe"
    mkfifo "$home/pipe"
    "$home/gauge" "${words[@]}" <"$home/pipe" >"$home/gauged" &
    gauge=$!
    followers=()
    if [ "$who" = ours ]; then
        "$logwatch" watch --tail 0 --format raw >"$home/pipe" 2>"$home/notices" &
        followers=($!)
        return
    fi
    # Writes of up to PIPE_BUF (4096) bytes to a shared pipe are atomic (POSIX).
    for name in "$@"; do
        docker logs -f --tail 0 "$name" >"$home/pipe" 2>/dev/null &
        followers+=($!)
    done
}

unfollow() {
    local pid
    kill "${followers[@]}" 2>/dev/null || true
    for pid in "${followers[@]}" "$gauge"; do
        wait "$pid" || true
    done
}

# watch_window WHO NAMES: appends the CPU time of followers and dockerd during the window, and the latency of its lines.
watch_window() {
    local who=$1 engine ours=0
    shift
    if [ "$who" = nobody ]; then
        sleep "$settle"
        engine=$(cpu_ms "$daemon")
        sleep "$window"
        echo "$who 0 $(minus "$(cpu_ms "$daemon")" "$engine") 0 0 0 0" >>"$home/results"
        return
    fi
    follow "$who" latency $((settle * 1000)) -- "$@"
    sleep "$settle"
    engine=$(cpu_ms "$daemon")
    ours=$(cpu_ms "${followers[@]}")
    sleep "$window"
    ours=$(minus "$(cpu_ms "${followers[@]}")" "$ours")
    engine=$(minus "$(cpu_ms "$daemon")" "$engine")
    unfollow
    echo "$who $ours $engine $(cat "$home/gauged")" >>"$home/results"
}

late() {
    printf '| %s | %s | %s | %s ' "$1" "$(median "$home/results" "$2" 5)" "$(median "$home/results" "$2" 6)" \
        "$(median "$home/results" "$2" 7)"
}

seconds() { awk -v ms="$1" 'BEGIN { printf "%.2f", ms / 1e3 }'; }

many() {
    local n run names=() control who
    : >"$home/results"
    for ((n = 1; n <= containers; n++)); do
        names+=("web-$n")
        start "web-$n" -- --forever --rate 500 --stamp --size 120
    done
    for ((run = 1; run <= runs; run++)); do
        say "many: run $run of $runs"
        watch_window nobody
        watch_window ours
        watch_window docker "${names[@]}"
    done
    drop_all
    control=$(median "$home/results" nobody 3)
    printf '%s containers, 500 lines/s of 120 bytes each, %s s\n\n' "$containers" "$window"
    printf '| | p50 ms | p99 ms | max ms | CPU s | ratio | dockerd s beyond its %s | lines |\n|---|---|---|---|---|---|---|---|\n' \
        "$(seconds "$control")"
    for who in ours docker; do
        late "$([ $who = ours ] && echo ours || echo "\`docker logs -f\` x $containers")" $who
        printf '| %s | %s | %s | %s |\n' "$(seconds "$(median "$home/results" $who 2)")" \
            "$(ratio "$(median "$home/results" $who 2)" "$(median "$home/results" ours 2)")" \
            "$(seconds "$(minus "$(median "$home/results" $who 3)" "$control")")" "$(median "$home/results" $who 4 %d)"
    done
    echo
}

quiet() {
    local run who
    : >"$home/results"
    start quiet -- --forever --rate 10 --stamp
    for ((run = 1; run <= runs; run++)); do
        say "quiet: run $run of $runs"
        watch_window ours
        watch_window docker quiet
    done
    drop_all
    printf 'One container, a line every 100 ms, %s s\n\n| | p50 ms | p99 ms | max ms | CPU ms |\n|---|---|---|---|---|\n' "$window"
    for who in ours docker; do
        late "$([ $who = ours ] && echo ours || echo '`docker logs -f`')" $who
        printf '| %s |\n' "$(median "$home/results" $who 2)"
    done
    echo
}

has_ended() { ! kill -0 "$1"; }

has_count() { [ "$(wc -l <"$1")" -ge "$2" ]; }

# Time from the engine's start event to our first line. The engine sends the event when the container already runs, so a
# line can arrive earlier: the value is then negative.
first_line() {
    local n count=${STARTS:-50} events
    docker events --filter event=start --format '{{.Actor.Attributes.name}} {{.TimeNano}}' >"$home/events" &
    events=$!
    mkfifo "$home/firsts"
    "$home/gauge" first <"$home/firsts" >"$home/first" &
    gauge=$!
    "$logwatch" watch >"$home/firsts" 2>/dev/null &
    followers=($!)
    # The first container is not counted: it shows that both are listening.
    until [ -s "$home/first" ] && [ -s "$home/events" ]; do
        docker run --rm --network none chatter --count 1 >/dev/null
    done
    for ((n = 1; n <= count; n++)); do
        docker run --rm --network none --name "brief-$n" chatter --count 1 >/dev/null
    done
    await "a first line of each container" has_count "$home/first" $((count + 1)) || true
    unfollow
    kill "$events"
    wait "$events" || true
    rm "$home/firsts"
    # Both times are from the same clock. Nanoseconds since the epoch exceed awk's precision; the last twelve digits
    # suffice.
    awk 'function ns(t) { return substr(t, length(t) - 11) + 0 }
        NR == FNR { at[$1] = ns($2); next }
        /^brief-/ && $1 in at { printf "ours %.3f\n", (ns($2) - at[$1]) / 1e6 }' "$home/events" "$home/first" >"$home/results"
    printf '%s x `docker run --rm` that prints a line and exits, from the `start` event to our first byte\n\n' "$count"
    printf '| seen | median ms | slowest ms |\n|---|---|---|\n| %s of %s | %s | %s |\n\n' "$(wc -l <"$home/results")" "$count" \
        "$(median "$home/results" ours 2)" "$(cut -d ' ' -f 2 "$home/results" | sort -g | tail -n 1)"
}

# Writes as fast as possible into three files of 1 MB: each file is gone after a few milliseconds.
rotation() {
    local run who name lines=200000
    : >"$home/results"
    for ((run = 1; run <= runs; run++)); do
        for who in ours docker; do
            say "rotation: run $run of $runs, $who"
            name=flood-$who-$run
            start "$name" --log-opt max-size=1m --log-opt max-file=3 -- --before $((settle * 1000)) --count "$lines" --size 200
            follow "$who" count -- "$name"
            sleep 1
            # The container waits before it writes. Ours reports on stderr when it has read a container to its end.
            docker wait "$name" >/dev/null
            if [ "$who" = ours ]; then
                await "the end of $name" grep -q "^- $name" "$home/notices"
            else
                await "the end of docker logs" has_ended "${followers[0]}"
            fi
            unfollow
            echo "$who $(cat "$home/gauged")" >>"$home/results"
            drop_all
        done
    done
    printf '%s lines of 200 bytes flat out, max-size=1m, max-file=3\n\n| | received | twice | out of order |\n|---|---|---|---|\n' "$lines"
    for who in ours docker; do
        printf '| %s | %s %% | %s | %s |\n' "$([ $who = ours ] && echo ours || echo '`docker logs -f`')" \
            "$(awk -v n="$(median "$home/results" $who 2 %d)" -v all="$lines" 'BEGIN { printf "%.1f", 100 * n / all }')" \
            "$(median "$home/results" $who 3 %d)" "$(median "$home/results" $who 4 %d)"
    done
    echo
}

up
machine "medians of $runs runs"
for part in "$@"; do
    case $part in
        many | quiet | rotation) "$part" ;;
        start) first_line ;;
        *) fail "no such part: $part" ;;
    esac
done
