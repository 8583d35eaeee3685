# shellcheck shell=bash
# Sourced by check.sh and test.sh after tools.sh: the list of static checks.

checks_run() {
  step "tool: cargo-deny" cargo_deny_install
  step "tool: cargo-machete" cargo_machete_install
  step "tools: typos, shellcheck, PyYAML" python_tools_install
  step "format (make fmt mends it)" cargo fmt --all -- --check -l
  step "lints (clippy)" cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
  step "documentation" documentation_build
  # Layers are about what is shipped, so tests do not count. Advisories need a database from GitHub: `make advisories`.
  step "layers" cargo deny --locked --exclude-dev --log-level error check --hide-inclusion-graph bans
  step "licences, sources" cargo deny --locked --log-level error check --hide-inclusion-graph licenses sources
  step "unused dependencies" cargo machete --with-metadata
  step "spelling" "$TOOLS_DIR/python/bin/typos"
  step "shell scripts" shell_check
  step "snapshots" snapshots_check
  step "containers" scripts/check-containers.sh
}

documentation_build() {
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --locked
}

shell_check() {
  "$TOOLS_DIR/python/bin/shellcheck" --external-sources .ci/run scripts/*.sh
}

# insta leaves *.snap.new behind when an output changed and nobody accepted it.
snapshots_check() {
  local pending
  pending=$(find crates migrations bench -name '*.snap.new' -o -name '*.pending-snap')
  [ -z "$pending" ] || { say "unaccepted snapshots:" "$pending"; return 1; }
}
