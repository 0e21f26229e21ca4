#!/usr/bin/env bash
# Calls through the connection pool beside the client library on its own: what a call costs more, and what of the
# throughput is left. 20 containers are listed.
# Usage: benches/pool.sh; LOGWATCH=FILE saves building the program, which is not needed here.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

up
for ((n = 1; n <= 20; n++)); do
    start "idle-$n" -- --count 1 --idle
done
cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench pool --no-run
machine "medians of 39 rounds of 200 calls a caller"
cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench pool
