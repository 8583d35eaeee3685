#!/usr/bin/env bash
# A provider that loses, doubles and shuffles webhooks while weir is killed and away: what each level of recovery finds,
# and whether the coverage ledger says what the provider counted (docs/reliability.md).
# On SQLite and on a PostgreSQL that this script starts and stops itself. Takes about ten minutes.
#
# Settings by environment:
#   EVENTS=10000     changes per feed; there is a feed for each level, and one whose list forgets soon
#   RATE=50          changes a second, per feed
#   AWAY_S=60        how long weir is away after the kill, in seconds
#   SEED=1           what is lost, doubled and late follows from it
#   PROFILE=dev      cargo profile
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/tools.sh
. scripts/postgres.sh

compiler_require
cargo_nextest_install
trap postgres_stop EXIT
trap 'exit 130' INT TERM
postgres_start fsync=on
export WEIR_TEST_POSTGRES_URL=$POSTGRES_URL
export WEIR_DROP_EVENTS=${EVENTS:-10000} WEIR_DROP_RATE=${RATE:-50} WEIR_DROP_AWAY_S=${AWAY_S:-60} WEIR_DROP_SEED=${SEED:-1}
# The whole workspace, as `make test` builds it: so nothing is built twice. One after the other: both want the machine.
cargo nextest run --locked --workspace --cargo-profile "${PROFILE:-dev}" --profile drops --test-threads 1 \
  -E 'package(weir-cli) & test(/^drops::/)'
