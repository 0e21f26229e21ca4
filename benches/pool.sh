#!/usr/bin/env bash
# Compares calls through the connection pool with the bare client library: added cost per call, remaining throughput.
# Lists 20 containers.
# Usage: benches/pool.sh; LOGWATCH=FILE avoids building the program, which is not needed here.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

up
for ((n = 1; n <= 20; n++)); do
    start "idle-$n" -- --count 1 --idle
done
cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench pool --no-run
machine "medians of 39 rounds of 200 calls a caller"
cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench pool
