# Chores. `just` lists them; each is what CONTRIBUTING.md describes.

_default:
    @just --list --unsorted

# Formatting, lints, documentation, shell scripts
check:
    .ci/checks

# The tests that need neither root nor a Docker Engine, in under a minute
fast *ARGS:
    cargo nextest run --profile fast {{ ARGS }}

# All tests, on private Docker Engines; needs root (`just test --engines all`: on Docker 20.10, 26.1 and 28.5)
test *ARGS:
    tests/run.sh {{ ARGS }}

# Format the code
fmt:
    cargo fmt

# Licences, advisories and sources of the dependencies (`cargo install cargo-deny`)
deny:
    cargo deny check

# The hot path: records to lines, lines to bytes; benches/README.md has the other measurements
bench *ARGS:
    cargo bench --bench decode {{ ARGS }}
    cargo bench --bench format {{ ARGS }}

# Fuzz each target, or the given ones, for so many seconds
fuzz SECONDS="60" *TARGETS:
    fuzz/run.sh {{ SECONDS }} {{ TARGETS }}

# Man pages and shell completions, from the help texts
generate:
    cargo run --quiet -- generate .

# The expected help texts, man pages and completions that tests compare with
goldens:
    UPDATE=1 cargo test --test it cli::

# Watch a few containers of a private Docker Engine; installs nothing
demo:
    ./install.sh --demo
