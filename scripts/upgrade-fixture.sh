#!/usr/bin/env bash
# Makes the databases that the upgrade tests start from: this tree's schema, with runs caught in the middle.
#
#   scripts/upgrade-fixture.sh NAME     writes crates/cli/tests/data/upgrade/NAME.sqlite.zst and NAME.postgres.sql.zst
#
# Run it on a release, before the first migration of the next one, and never over an existing file: what an old version
# wrote must stay what it was. The test `upgrade` in crates/cli/tests/e2e lists the names.
# Settings by environment:
#   WEIR=target/debug/weir   the executable whose format is kept
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/postgres.sh

[ $# -eq 1 ] || die "usage: scripts/upgrade-fixture.sh NAME"
folder=crates/cli/tests/data/upgrade
for file in "$folder/$1.sqlite.zst" "$folder/$1.postgres.sql.zst"; do
  [ ! -e "$file" ] || die "$file exists, and a fixture is never made again"
done
for program in python3 sqlite3 zstd; do
  command -v "$program" >/dev/null || packages_install python3 sqlite3 zstd
done
compiler_require
[ -n "${WEIR:-}" ] || cargo build --locked --package weir-cli --bin weir
WEIR=$(realpath "${WEIR:-target/debug/weir}")
export WEIR

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/weir-fixture.XXXXXX")
finish() {
  postgres_stop
  rm -rf "$SCRATCH"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "runs on SQLite"
python3 scripts/python/upgrade_fixture.py "$SCRATCH/sqlite" "sqlite://$SCRATCH/sqlite/weir-data/weir.db"
sqlite3 "$SCRATCH/sqlite/weir-data/weir.db" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
mkdir -p "$folder"
zstd --quiet -19 "$SCRATCH/sqlite/weir-data/weir.db" -o "$folder/$1.sqlite.zst"

# shellcheck disable=SC2119
postgres_start
say "runs on PostgreSQL"
python3 scripts/python/upgrade_fixture.py "$SCRATCH/postgres" "$POSTGRES_URL"
# Lines that begin with a backslash are for psql alone.
"$POSTGRES_BIN/pg_dump" --inserts --no-owner --no-privileges --no-comments "$POSTGRES_URL" | grep -v '^[\]' |
  zstd --quiet -19 -o "$folder/$1.postgres.sql.zst"
ls -l "$folder/$1".*
