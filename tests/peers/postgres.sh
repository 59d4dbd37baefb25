#!/usr/bin/env bash
# One PostgreSQL cluster of the benchmark's own: as Debian installs it but for the C locale, no network, and a socket that nobody
# else can reach. PostgreSQL refuses to run as root, so there it runs as the user `postgres`.
#
#   postgres.sh up DIR DATABASE...   make DIR if it is new, start, make the databases that are missing; prints `socket` and `pid`
#   postgres.sh down DIR             stop it (data is kept)
#   postgres.sh version              the version of what would be started
#
# The data is in DIR/data, the log in DIR/log. Durable as installed: fsync and synchronous_commit are on.
set -euo pipefail

die() {
  echo "postgres.sh: $*" >&2
  exit 1
}

# The newest server: Debian keeps it out of the PATH.
bin() {
  local found
  found=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
  [ -x "$found" ] || found=$(command -v postgres) || die "no PostgreSQL server (Debian: apt-get install postgresql)"
  dirname "$(readlink -f "$found")"
}

# What runs as the owner of the data: ourselves, or somebody who isn't root.
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && runuser -u postgres -- "$@")
  else
    "$@"
  fi
}

case "${1:-}" in
  up)
    [ $# -ge 2 ] || die "up DIR DATABASE..."
    BIN=$(bin)
    mkdir -p "$2"
    DIR=$(cd "$2" && pwd)
    shift 2
    if [ "$(id -u)" = 0 ]; then
      chown postgres "$DIR"
      as_owner test -w "$DIR" || die "the user postgres can't reach $DIR"
    fi
    if [ ! -f "$DIR/data/PG_VERSION" ]; then
      as_owner "$BIN/initdb" --pgdata "$DIR/data" --username postgres --auth trust --encoding UTF8 --locale C >/dev/null
    fi
    # A path of a socket holds about a hundred bytes, and a checkout may lie deeper than that.
    SOCKET=$(cat "$DIR/socket" 2>/dev/null || true)
    if [ ! -d "$SOCKET" ]; then
      SOCKET=$(as_owner mktemp -d /tmp/hearth-postgres.XXXXXX)
      echo "$SOCKET" >"$DIR/socket"
    fi
    if ! as_owner "$BIN/pg_ctl" status --pgdata "$DIR/data" >/dev/null; then
      as_owner "$BIN/pg_ctl" start --wait --silent --pgdata "$DIR/data" --log "$DIR/log" \
        --options "-c listen_addresses= -c unix_socket_directories=$SOCKET" </dev/null >/dev/null ||
        die "it did not start: $(tail -n 3 "$DIR/log")"
    fi
    for database in "$@"; do
      if ! as_owner "$BIN/psql" --host "$SOCKET" --username postgres --dbname "$database" --command '' 2>/dev/null; then
        as_owner "$BIN/createdb" --host "$SOCKET" --username postgres --template template0 --encoding UTF8 --locale C "$database"
      fi
    done
    echo "$SOCKET" "$(head -n 1 "$DIR/data/postmaster.pid")"
    ;;
  down)
    [ $# = 2 ] || die "down DIR"
    [ -f "$2/data/postmaster.pid" ] || exit 0
    DIR=$(cd "$2" && pwd)
    as_owner "$(bin)/pg_ctl" stop --wait --silent --mode fast --pgdata "$DIR/data"
    SOCKET=$(cat "$DIR/socket")
    case $SOCKET in /tmp/hearth-postgres.*) rm -rf "$SOCKET" ;; esac
    rm -f "$DIR/socket"
    ;;
  version) "$(bin)/postgres" --version | sed 's/^[^0-9]*\([0-9.]*\).*/\1/' ;;
  *) sed -n '2,9p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2 && exit 2 ;;
esac
