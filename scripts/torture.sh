#!/usr/bin/env bash
# Many kills in a row, and several nodes in a storm (docs/reliability.md). Takes about 40 minutes.
#
#   scripts/torture.sh                         200 kills on SQLite; then three nodes on PostgreSQL, 10,000 events per storm
#   scripts/torture.sh --storm-flows 2000      arguments are passed on to both parts; `weir-crash --help` lists them
#
# Settings by environment:
#   ROUNDS=200            kills on SQLite; 0 leaves them out
#   CRASH_PROFILE=dist    build profile; "demo" and "dev" build much faster
#   CRASH_SEED=           repeats the times of an earlier proof
# Exit code 1 when anything was lost or doubled, or is unknown without a reason.
set -euo pipefail
cd "$(dirname "$0")/.."

kills=${ROUNDS:-200}
if [ "$kills" -gt 0 ]; then
  ROUNDS=$kills scripts/crash.sh --without-postgres --load-min-ms 200 --load-max-ms 1200 --load-after-ms 200 "$@"
fi
ROUNDS=0 scripts/crash.sh --torture --modes keys,blind,waits "$@"
