#!/usr/bin/env bash
# Fuzzes the decoders one after the other, starting from seeds/ and what earlier runs left in corpus/.
#
#   fuzz/run.sh SECONDS [TARGET]...
#
# Needs a nightly toolchain, a C++ compiler and cargo-fuzz (`cargo install cargo-fuzz`). Prints one line per target and
# fails if any of them found something; the input is then in artifacts/.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?how many seconds for each target?}
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs targets/*.rs)

# Uses the versions of the main build; cargo adds what only this crate needs.
cp ../Cargo.lock Cargo.lock
export TMPDIR=${TMPDIR:-/dev/shm}
# Otherwise freed memory counts as used.
export ASAN_OPTIONS=quarantine_size_mb=16
failed=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=artifacts/$target/log
    started=$SECONDS
    verdict=ok
    cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1 || verdict=FOUND
    [ $verdict = ok ] || failed=1
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-14s %-6s %12s runs in %d s, %s\n' "$target" "$verdict" "${runs:-0}" $((SECONDS - started)) "$(pwd)/$log"
done
exit $failed
