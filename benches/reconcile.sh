#!/usr/bin/env bash
# Runs `reconcile` on containers that were created and never started, each with a volume and a bind mount.
# Usage: benches/reconcile.sh [CONTAINERS]; RUNS=3, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
count=${1:-2000}

# reconciled NAME ARGUMENTS: appends NAME, wall time, our CPU, peak memory, dockerd's CPU and the exit code to the
# figures.
reconciled() {
    local name=$1 engine code=0
    shift
    engine=$(cpu_ms "$daemon")
    /usr/bin/time -f '%e %U %S %M' -o "$home/time" "$logwatch" reconcile --state "$home/state.db" --format json "$@" \
        >"$home/report" || code=$?
    engine=$(minus "$(cpu_ms "$daemon")" "$engine")
    # With a non-zero exit code, GNU time prints a sentence before its line.
    printf '%s %s %s %s\n' "$name" "$(tail -n 1 "$home/time")" "$engine" "$code" >>"$home/figures"
}

row() {
    local name=$1
    printf '| %s | %s | %s | %s | %s |\n' "$name" "$(median "$home/figures" "$name" 2)" \
        "$(awk -v key="$name" '$1 == key { print key, $3 + $4 }' "$home/figures" >"$home/cpu" && median "$home/cpu" "$name" 2)" \
        "$(median "$home/figures" "$name" 6 %.0f)" \
        "$(median "$home/figures" "$name" 5 %.0f | awk '{ printf "%.1f", $1 / 1024 }')"
}

up
mkdir "$home/folder"
say "creating $count containers"
seq "$count" | xargs -P 4 -I '{}' docker create --network none -v 'vol{}:/data' -v "$home/folder:/etc/app:ro" \
    --label number='{}' chatter >/dev/null
for _ in $(seq "$runs"); do
    rm -f "$home/state.db"*
    reconciled first
    jq -e ".changes.containers.created == $count and .changes.mounts.created == 2 * $count" "$home/report" >/dev/null ||
        fail "not all were found"
    reconciled second
    reconciled check --check
    jq -e .in_sync "$home/report" >/dev/null || fail "the second run left something to do"
done
machine "$count containers, medians of $runs runs"
echo '| | wall s | CPU s | dockerd ms | peak MiB |'
echo '|---|---|---|---|---|'
row first
row second
row check
