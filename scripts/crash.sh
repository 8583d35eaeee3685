#!/usr/bin/env bash
# Kills weir and PostgreSQL under load and proves that nothing accepted is lost and no effect is doubled.
#
#   scripts/crash.sh                    20 rounds on SQLite and 20 on PostgreSQL
#   scripts/crash.sh --modes blind      arguments are passed on to weir-crash; `--help` lists them
#
# Settings by environment:
#   ROUNDS=20             rounds per database, spread over the modes keys, hydrate, blind, find_by
#   CRASH_PROFILE=dist    build profile; "demo" builds much faster
#   CRASH_SEED=           repeats the kill times of an earlier proof
#   BENCH_KIT=            path of a hydrate-bench executable: the same crash under its load as well
#   BENCH_KIT_ROUNDS=5    rounds per database with it
# Results: a line per round, a table, and one file in bench/results/. Exit code 1 when anything was violated.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/postgres.sh

compiler_require
PROFILE=${CRASH_PROFILE:-dist}
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
began=$SECONDS
say "building weir and weir-crash (profile $PROFILE); the first build takes many minutes"
cargo build --locked --profile "$PROFILE" --package weir-cli --package weir-bench --bin weir --bin weir-crash
say "building … took $((SECONDS - began)) s"
folder=$PROFILE
[ "$folder" != dev ] || folder=debug

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/weir-crash.XXXXXX")

# What is left of a violated proof is evidence.
finish() {
  local code=$?
  postgres_stop
  if [ "$code" -eq 0 ]; then
    rm -rf "$SCRATCH"
  else
    say "data folders and logs are kept in $SCRATCH"
  fi
}
trap finish EXIT
trap 'exit 130' INT TERM
postgres_start fsync=on

# weir-crash stops and starts the cluster by this script: as its owner, with the settings it was started with.
control=$SCRATCH/postgres
declare -f postgres_as >"$control"
{
  printf 'POSTGRES_USER=%q\nPOSTGRES_BIN=%q\nPOSTGRES_DIR=%q\n' "$POSTGRES_USER" "$POSTGRES_BIN" "$POSTGRES_DIR"
  cat <<'CONTROL'
set -euo pipefail
cd "$POSTGRES_DIR"
case $1 in
  stop) postgres_as "$POSTGRES_BIN/pg_ctl" --pgdata="$POSTGRES_DIR/data" --mode=immediate --wait --silent stop ;;
  # postmaster.opts holds the command line of the last start; its first word is the program.
  start)
    postgres_as "$POSTGRES_BIN/pg_ctl" --pgdata="$POSTGRES_DIR/data" --log="$POSTGRES_DIR/log" --wait --timeout=60 --silent \
      start -o "$(sed 's/^[^ ]* //' "$POSTGRES_DIR/options")" >/dev/null 2>&1 </dev/null
    ;;
esac
CONTROL
} >>"$control"
cp "$POSTGRES_DIR/data/postmaster.opts" "$POSTGRES_DIR/options"

mkdir -p bench/results
arguments=(
  --weir "$TARGET_DIR/$folder/weir"
  --documents bench
  --scratch "$SCRATCH"
  --report "bench/results/crash-$(date -u +%Y%m%dT%H%M%SZ).json"
  --rounds "${ROUNDS:-20}"
  --postgres-url "$POSTGRES_URL"
  --postgres-stop "bash '$control' stop"
  --postgres-start "bash '$control' start"
)
[ -z "${CRASH_SEED:-}" ] || arguments+=(--seed "$CRASH_SEED")
[ -z "${BENCH_KIT:-}" ] || arguments+=(--kit "$BENCH_KIT" --kit-rounds "${BENCH_KIT_ROUNDS:-5}")
"$TARGET_DIR/$folder/weir-crash" "${arguments[@]}" "$@"
