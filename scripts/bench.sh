#!/usr/bin/env bash
# Measures weir against the bare program, which does the same I/O without an engine.
#
#   scripts/bench.sh                       every row
#   scripts/bench.sh flow-sqlite light     some rows; --list names them
#   scripts/bench.sh steps sleepers nodes retention    the rows of scale
#
# Settings by environment:
#   BENCH_REPEATS=3          pairs per row; ratios are medians over the pairs
#   BENCH_SECONDS=20         measured window of one run
#   BENCH_STORE_FLOWS=100000 flows in the big store of row "store"
#   BENCH_SLEEPERS=100000    runs that sleep in row "sleepers"
#   BENCH_NODE_PAIRS=5       pairs of row "nodes", in each four windows of each side by turns, at most 3 s long
#   BENCH_RETAINED_FLOWS=100000 flows that are there before row "retention" deletes
#   BENCH_SERVER_CPU=0       CPU of the server under test, its PostgreSQL included
#   BENCH_LOAD_CPU=1         CPU of the load generator and the fake upstreams
# Results: a table, and one file in bench/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/postgres.sh

[ "${1:-}" != --list ] || exec python3 bench/measure --list

compiler_require
command -v python3 >/dev/null || packages_install python3
command -v taskset >/dev/null || packages_install util-linux
[ "$(nproc)" -ge 2 ] || die "the benchmark needs two CPUs: one for the server, one for the load"

TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
began=$SECONDS
say "building weir and the comparison programs (profile dist); the first build takes many minutes"
cargo build --locked --profile dist --package weir-cli --package weir-bench --package weir-storage --bins --example retention
say "building … took $((SECONDS - began)) s"

trap postgres_stop EXIT
trap 'exit 130' INT TERM
postgres_start shared_buffers=512MB max_wal_size=4GB wal_compression=on
taskset --all-tasks --cpu-list --pid "${BENCH_SERVER_CPU:-0}" "$(head -n 1 "$POSTGRES_PID_FILE")" >/dev/null

export BENCH_BINARIES=$TARGET_DIR/dist BENCH_POSTGRES_URL=$POSTGRES_URL BENCH_POSTGRES_BIN=$POSTGRES_BIN
export BENCH_POSTGRES_PID_FILE=$POSTGRES_PID_FILE
python3 bench/measure "$@"
