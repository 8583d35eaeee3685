#!/usr/bin/env bash
# All static checks. Installs the pinned tools into target/tools first (named and timed).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/tools.sh
. scripts/checks.sh

compiler_require
checks_run
steps_summary
