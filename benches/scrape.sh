#!/usr/bin/env bash
# The cost of scraping: 40,000 lines/s through a watch, alone and while /metrics is scraped 1,000 times.
# Usage: benches/scrape.sh; RUNS=3, SECONDS_EACH=30, LOGWATCH=FILE.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
need curl
window=${SECONDS_EACH:-30}
containers=8
rate=5000
scrapes=1000
at_once=4
# Seconds that the watch gets to start. It begins at the end of the logs.
settle=3

# scrape URL: requests the page `scrapes` times, spread over the window, with a few processes; sets `scrapers`.
scrape() {
    local place=$1 n
    for ((n = 0; n < scrapes / at_once; n++)); do
        printf 'url = "%s/metrics"\noutput = "/dev/null"\n' "$place"
    done >"$home/urls"
    scrapers=()
    for ((n = 0; n < at_once; n++)); do
        # Line buffered, so that all answers up to the end of the window are counted.
        stdbuf -oL curl --silent --fail --rate "$((scrapes * 3600 / window / at_once))/h" --write-out '%{http_code}\n' \
            --config "$home/urls" >"$home/codes-$n" &
        scrapers+=($!)
    done
}

# watch_window HOW: measures one window and appends HOW, CPU of the watch in ms, answered scrapes, lines and their
# latency.
watch_window() {
    local how=$1 place="" cpu watch gauge scraped=0
    rm -f "$home/pipe"
    mkfifo "$home/pipe"
    "$home/gauge" latency $((settle * 1000)) <"$home/pipe" >"$home/gauged" &
    gauge=$!
    "$logwatch" watch --tail 0 --format raw --listen 127.0.0.1:0 >"$home/pipe" 2>"$home/notices" &
    watch=$!
    sleep "$settle"
    place=$(grep -o 'http://[0-9.:]*' "$home/notices") || fail "nothing is served: $(cat "$home/notices")"
    cpu=$(cpu_ms "$watch")
    if [ "$how" = scraped ]; then
        scrape "$place"
        sleep "$window"
        kill "${scrapers[@]}" 2>/dev/null || true
        scraped=$(cat "$home"/codes-* | grep -c '^200$' || true)
    else
        sleep "$window"
    fi
    cpu=$(minus "$(cpu_ms "$watch")" "$cpu")
    kill "$watch"
    wait "$watch" || true
    wait "$gauge"
    echo "$how $cpu $scraped $(cat "$home/gauged")" >>"$home/results"
}

up
: >"$home/results"
for ((n = 1; n <= containers; n++)); do
    start "web-$n" -- --forever --rate "$rate" --stamp --size 120
done
for ((run = 1; run <= runs; run++)); do
    say "run $run of $runs"
    watch_window alone
    watch_window scraped
done
machine "medians of $runs runs"
printf '%s containers, %s lines/s of 120 bytes each, %s s\n\n' "$containers" "$rate" "$window"
printf '| | lines | p50 ms | p99 ms | CPU ms | scrapes answered |\n|---|---|---|---|---|---|\n'
for how in alone scraped; do
    printf '| %s | %s | %s | %s | %s | %s |\n' "$how" "$(median "$home/results" $how 4 %d)" "$(median "$home/results" $how 5)" \
        "$(median "$home/results" $how 6)" "$(median "$home/results" $how 2 %d)" "$(median "$home/results" $how 3 %d)"
done
