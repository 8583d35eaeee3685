# shellcheck shell=bash
# Sourced after steps.sh. System packages: named before they are installed, never through sudo.

# packages_install PACKAGE...: Debian packages; stops with the command to type when not root.
packages_install() {
  local command="apt-get install --yes --no-install-recommends $*"
  if ! command -v apt-get >/dev/null; then
    die "these packages are missing and this is no Debian system: $*" \
      "install the equivalents of your distribution, then run this script again"
  fi
  if [ "$(id -u)" -ne 0 ]; then
    die "these Debian packages are missing: $*" \
      "as root:  apt-get update && $command" \
      "then run this script again (it never calls sudo itself)"
  fi
  say "installing Debian packages: $*"
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $command -qq >/dev/null
}

# A C compiler builds SQLite, zstd and the TLS library.
compiler_require() {
  command -v cargo >/dev/null || die "cargo is not installed" "see https://rustup.rs; Rust 1.95 or newer is needed"
  command -v cc >/dev/null && return
  packages_install gcc libc6-dev
}

# Prints the folder with initdb and postgres, installing the package if there is none.
postgres_binaries() {
  local folder
  if ! folder=$(postgres_binaries_find); then
    packages_install postgresql >&2
    folder=$(postgres_binaries_find) || die "PostgreSQL was installed, but initdb was not found"
  fi
  printf '%s\n' "$folder"
}

postgres_binaries_find() {
  local initdb
  # Debian keeps the server's programs out of PATH, one folder per major version; the newest wins.
  initdb=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$initdb" ] || initdb=$(command -v initdb) || return 1
  dirname "$(readlink -f "$initdb")"
}

# python_environment FOLDER REQUIREMENTS: a virtual environment that holds exactly the pinned packages.
python_environment() {
  local folder=$1 requirements=$2 began=$SECONDS
  if cmp -s "$requirements" "$folder/installed.txt"; then return; fi
  command -v python3 >/dev/null || packages_install python3 python3-venv
  # Debian splits ensurepip off; without it a virtual environment has no pip.
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages_install python3-venv
  say "installing from PyPI into $folder: $(grep -v '^#' "$requirements" | tr '\n' ' ')"
  rm -rf "$folder"
  python3 -m venv "$folder" || return 1
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements" || return 1
  cp "$requirements" "$folder/installed.txt"
  say "  took $((SECONDS - began)) s"
}
