# shellcheck shell=bash
# Sourced after steps.sh and packages.sh. Development tools at fixed versions, kept in target/tools.

TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
TOOLS_DIR=$TARGET_DIR/tools
export PATH="$TOOLS_DIR/bin:$PATH"

CARGO_DENY_VERSION=0.20.2
CARGO_MACHETE_VERSION=0.9.2
CARGO_NEXTEST_VERSION=0.9.143

# cargo_tool NAME VERSION: built without optimisation, which halves the wait and is fast enough for our graph.
cargo_tool() {
  local name=$1 version=$2 began=$SECONDS
  if [ "$("$TOOLS_DIR/bin/$name" --version 2>/dev/null | awk 'NR == 1 { print $NF }')" = "$version" ]; then return; fi
  say "installing $name $version into $TOOLS_DIR (cargo install; minutes, once)"
  CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$TOOLS_DIR/build \
    cargo install --quiet --locked --debug --force --root "$TOOLS_DIR" --version "$version" "$name" || return 1
  rm -rf "$TOOLS_DIR/build"
  say "  took $((SECONDS - began)) s"
}

cargo_deny_install() { cargo_tool cargo-deny "$CARGO_DENY_VERSION"; }

cargo_machete_install() { cargo_tool cargo-machete "$CARGO_MACHETE_VERSION"; }

# A nextest that is already there serves; .config/nextest.toml states the oldest version that will do.
cargo_nextest_install() {
  cargo nextest --version >/dev/null 2>&1 || cargo_tool cargo-nextest "$CARGO_NEXTEST_VERSION"
}

# typos, shellcheck and PyYAML come as wheels, so this takes seconds.
python_tools_install() { python_environment "$TOOLS_DIR/python" scripts/python/checks.txt; }

# A Stripe double written by other people, with its own idea of Stripe's API.
localstripe_install() { python_environment "$TARGET_DIR/localstripe-venv" scripts/python/localstripe.txt; }
