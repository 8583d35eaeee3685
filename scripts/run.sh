#!/usr/bin/env bash
# Builds weir with the profile "demo" (compiles fast, answers briskly) and starts `weir demo`.
# Arguments are passed on to it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh

compiler_require
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
began=$SECONDS
say "building weir (profile demo); the first build takes a few minutes"
cargo build --locked --profile demo --package weir-cli --bin weir
say "building weir (profile demo) … took $((SECONDS - began)) s" "starting: weir demo $*"
exec "$TARGET_DIR/demo/weir" demo "$@"
