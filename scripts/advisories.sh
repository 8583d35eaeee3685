#!/usr/bin/env bash
# Known vulnerabilities in the dependencies. Apart from `make check`, because it fetches the RustSec
# database from GitHub: a machine without that access could otherwise never pass its checks.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/tools.sh

compiler_require
cargo_deny_install
exec cargo deny --locked check advisories
