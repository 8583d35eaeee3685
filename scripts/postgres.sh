# shellcheck shell=bash
# Sourced after steps.sh and packages.sh. A throw-away PostgreSQL cluster in a temporary folder.
# It never touches a cluster of the system, and it keeps fsync on: durability is what the tests are about.

POSTGRES_DIR=
POSTGRES_USER=

# Runs a command as the user that owns the cluster: initdb refuses root.
postgres_as() {
  if [ "$(id -u)" -ne 0 ]; then
    "$@"
  else
    runuser -u "$POSTGRES_USER" -- "$@"
  fi
}

# postgres_start [SETTING...]: starts a cluster, sets POSTGRES_PORT, POSTGRES_URL and POSTGRES_PID_FILE.
postgres_start() {
  local setting settings=()
  for setting in "$@"; do settings+=(-c "$setting"); done
  POSTGRES_BIN=$(postgres_binaries) || return 1
  POSTGRES_USER=$(id -un)
  if [ "$(id -u)" -eq 0 ]; then
    POSTGRES_USER=nobody
    ! id postgres >/dev/null 2>&1 || POSTGRES_USER=postgres
  fi
  POSTGRES_DIR=$(mktemp -d "${TMPDIR:-/tmp}/weir-postgres.XXXXXX")
  [ "$(id -u)" -ne 0 ] || chown "$POSTGRES_USER" "$POSTGRES_DIR"
  say "starting PostgreSQL ($POSTGRES_BIN, as user $POSTGRES_USER) in $POSTGRES_DIR"
  (cd "$POSTGRES_DIR" && postgres_as "$POSTGRES_BIN/initdb" --pgdata="$POSTGRES_DIR/data" --username=weir \
    --auth=trust --encoding=UTF8 --locale=C --no-instructions >"$POSTGRES_DIR/initdb.log" 2>&1) ||
    { cat "$POSTGRES_DIR/initdb.log" >&2; return 1; }

  # The free port may be taken between the look and the start, so a failed start tries another one.
  for _ in 1 2 3; do
    POSTGRES_PORT=$(port_free)
    if (cd "$POSTGRES_DIR" && postgres_as "$POSTGRES_BIN/pg_ctl" --pgdata="$POSTGRES_DIR/data" --log="$POSTGRES_DIR/log" \
      --wait --timeout=60 --silent start -o "-c listen_addresses=127.0.0.1 -c port=$POSTGRES_PORT \
      -c unix_socket_directories='' -c fsync=on -c max_connections=200 ${settings[*]}"); then
      POSTGRES_URL=postgres://weir@127.0.0.1:$POSTGRES_PORT/postgres
      # shellcheck disable=SC2034
      POSTGRES_PID_FILE=$POSTGRES_DIR/data/postmaster.pid
      say "PostgreSQL answers at $POSTGRES_URL"
      return 0
    fi
  done
  cat "$POSTGRES_DIR/log" >&2
  return 1
}

# Stops the cluster and removes its folder; does nothing when none was started.
postgres_stop() {
  [ -n "$POSTGRES_DIR" ] || return 0
  if [ -f "$POSTGRES_DIR/data/postmaster.pid" ]; then
    (cd "$POSTGRES_DIR" && postgres_as "$POSTGRES_BIN/pg_ctl" --pgdata="$POSTGRES_DIR/data" --mode=immediate --silent stop) || true
  fi
  rm -rf "$POSTGRES_DIR"
  POSTGRES_DIR=
}

# Prints a TCP port of the loopback interface on which nobody listens.
port_free() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
}
