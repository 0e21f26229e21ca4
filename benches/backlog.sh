#!/usr/bin/env bash
# Reads a stopped container's log of SIZE MiB (default 1024) once to /dev/null: CPU of all processes, wall time, peak
# memory.
# Usage: benches/backlog.sh [SIZE]; RUNS=3, LOGWATCH=FILE to measure another build.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2016 # Backquotes are Markdown.
. "$(dirname "$0")/lib.sh"
size=${1:-1024}
slice=64
[ "$slice" -le "$size" ] || slice=$size

# measure KEY SCALE COMMAND...: appends KEY, CPU in ms (including dockerd's), dockerd's CPU in ms, wall time in ms, peak
# in KiB.
measure() {
    local key=$1 scale=$2 before engine user system wall
    shift 2
    before=$(cpu_ms "$daemon")
    TIMEFORMAT='%U %S %R'
    { time /usr/bin/time -q -f %M -o "$home/peak" "$@" >/dev/null 2>"$home/stderr"; } 2>"$home/time" ||
        fail "$key: $(tail -n 3 "$home/stderr")"
    engine=$(minus "$(cpu_ms "$daemon")" "$before")
    read -r user system wall <"$home/time"
    # Only API routes make the engine work; a small value is its own housekeeping.
    awk -v key="$key" -v u="$user" -v s="$system" -v w="$wall" -v e="$engine" -v scale="$scale" -v m="$(tail -n 1 "$home/peak")" \
        'BEGIN { print key, ((u + s) * 1e3 + e) * scale, e * scale, w * 1e3 * scale, m }' >>"$home/results"
}

# Starts one container per shape and replaces its log with a generated one of the requested size.
prepare() {
    local shape=$1
    start "$shape" -- --count 1
    docker wait "$shape" >/dev/null
    log[$shape]=$(docker inspect --format '{{.LogPath}}' "$shape")
    "$home/image/chatter" --records --forever --bytes $((size << 20)) --shape "$shape" --size "$2" >"${log[$shape]}"
    head -c $((slice << 20)) "${log[$shape]}" | sed '$d' >"$home/$shape.slice"
}

round() {
    local shape=$1 scale
    scale=$(awk -v a="$(stat -c %s "${log[$shape]}")" -v b="$(stat -c %s "$home/$shape.slice")" 'BEGIN { print a / b }')
    local watch=("$logwatch" watch --no-follow "$shape")
    measure "$shape-text" 1 "${watch[@]}"
    measure "$shape-json" 1 "${watch[@]}" --format json
    measure "$shape-raw" 1 "${watch[@]}" --format raw
    measure "$shape-wc" 1 wc -l "${log[$shape]}"
    measure "$shape-jq" "$scale" jq -r .log "$home/$shape.slice"
    measure "$shape-stream" 1 "${watch[@]}" --source stream
    measure "$shape-docker" 1 docker logs "$shape"
}

row() {
    local key=$1 name=$2 cpu gib
    cpu=$(median "$home/results" "$key" 2)
    gib=$(awk -v cpu="$cpu" -v bytes="$(stat -c %s "${log[${key%-*}]}")" 'BEGIN { printf "%.2f", cpu / 1e3 / (bytes / 1024 ^ 3) }')
    printf '| %s | %s | %s | %s | %s | %s |\n' "$name" "$gib" "$(ratio "$cpu" "$(median "$home/results" "${key%-*}-text" 2)")" \
        "$(awk -v ms="$(median "$home/results" "$key" 3)" 'BEGIN { printf "%.2f", ms / 1e3 }')" \
        "$(awk -v ms="$(median "$home/results" "$key" 4)" 'BEGIN { printf "%.2f", ms / 1e3 }')" \
        "$(awk -v kib="$(median "$home/results" "$key" 5)" 'BEGIN { printf "%.1f", kib / 1024 }')"
}

declare -A log
up
prepare plain 150
prepare json 0
for shape in plain json; do
    # Loads the log into the page cache, so that the first contender has no disadvantage.
    wc -l "${log[$shape]}" >/dev/null
done
for ((run = 1; run <= runs; run++)); do
    say "run $run of $runs"
    round plain
    round json
done
machine "medians of $runs runs"
for shape in plain json; do
    lines=$(wc -l <"${log[$shape]}")
    printf '%s, %s MiB, %s lines of %s bytes\n\n' "$shape" "$size" "$lines" \
        "$(($(stat -c %s "${log[$shape]}") / lines))"
    printf '| | CPU s/GiB | ratio | of it dockerd s | wall s | peak MiB |\n|---|---|---|---|---|---|\n'
    row "$shape-text" 'ours, text'
    row "$shape-json" 'ours, json'
    row "$shape-raw" 'ours, raw'
    row "$shape-stream" 'ours, `--source stream`'
    row "$shape-docker" '`docker logs`'
    row "$shape-jq" "\`jq -r .log\` ($slice MiB, scaled)"
    row "$shape-wc" '`wc -l`'
    echo
done
