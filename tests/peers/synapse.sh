#!/usr/bin/env bash
# One Synapse homeserver on loopback: SQLite or PostgreSQL, rate limits off. By itself it speaks to clients only; the benchmark
# and the tests of federation (tests/federation/, tests/pairs/) lay settings over it by which it federates (EXTRA, below).
#
#   synapse.sh up PORT DIR     write DIR if it is new, start in the background, wait until it answers
#   synapse.sh down DIR        stop what `up` started there (data is kept)
#   synapse.sh run PORT DIR    the same server in the foreground, in place of this shell (for tools that own the process)
#   synapse.sh prepare PORT DIR   write the configuration only
#
# The data (database and media, what is measured as disk) is in DIR/data; the log beside it, outside what is measured.
# What differs from Synapse's own defaults is said where it is set, and why.
#
# Environment: SECRET (registration_shared_secret; default bench-secret), SERVER_NAME (default localhost),
# POSTGRES (folder of a PostgreSQL's socket and name of a database, in place of SQLite; see postgres.sh),
# LOG_LEVEL (default INFO, as Synapse's own); EXTRA (a YAML file of more settings, for `run`).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SECRET=${SECRET:-bench-secret}
SERVER_NAME=${SERVER_NAME:-localhost}

usage() {
  sed -n '2,14p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
  exit 2
}

absolute() { mkdir -p "$1" && (cd "$1" && pwd); }

prepare() { # PORT DIR
  local port=$1 dir=$2
  VENV=$("$HERE/setup.sh" | tail -n 1)
  mkdir -p "$dir/data/media"
  local database="{name: sqlite3, args: {database: '$dir/data/homeserver.db'}}"
  if [ -n "${POSTGRES:-}" ]; then
    # The size of the pool is that of Synapse's own example.
    database="{name: psycopg2, args: {host: '${POSTGRES% *}', dbname: '${POSTGRES##* }', user: postgres, cp_min: 5, cp_max: 10}}"
  fi
  local unlimited='{per_second: 1000000, burst_count: 1000000}'
  cat >"$dir/homeserver.yaml" <<YAML
server_name: "$SERVER_NAME"
public_baseurl: "http://127.0.0.1:$port/"
pid_file: "$dir/twisted.pid"
log_config: "$dir/log.yaml"
signing_key_path: "$dir/signing.key"
media_store_path: "$dir/data/media"
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
database: $database
listeners:
  - {port: $port, bind_addresses: ["127.0.0.1"], type: http, tls: false, x_forwarded: false, resources: [{names: [client]}]}
registration_shared_secret: "$SECRET"
enable_registration: true
enable_registration_without_verification: true
macaroon_secret_key: "$SECRET-macaroon"
form_secret: "$SECRET-form"
# Hashing passwords is not what is measured; users are made before the clock starts.
bcrypt_rounds: 4
# The default answers a repeated /sync from memory for two minutes, which would measure the cache and not the sync.
caches: {sync_response_cache_duration: 0s}
# Rate limits off.
rc_message: $unlimited
rc_registration: $unlimited
rc_room_creation: $unlimited
rc_login: {address: $unlimited, account: $unlimited, failed_attempts: $unlimited}
rc_joins: {local: $unlimited, remote: $unlimited}
rc_joins_per_room: $unlimited
rc_invites: {per_room: $unlimited, per_user: $unlimited, per_issuer: $unlimited}
rc_presence: {per_user: $unlimited}
YAML
  # As Synapse generates it: INFO, through a small buffer.
  cat >"$dir/log.yaml" <<YAML
version: 1
formatters: {precise: {format: '%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s'}}
handlers:
  file: {class: logging.FileHandler, formatter: precise, filename: "$dir/homeserver.log", encoding: utf8}
  buffer: {class: synapse.logging.handlers.PeriodicallyFlushingMemoryHandler, target: file, capacity: 10, flushLevel: 30, period: 5}
loggers: {synapse.storage.SQL: {level: INFO}}
root: {level: ${LOG_LEVEL:-INFO}, handlers: [buffer]}
disable_existing_loggers: false
YAML
  if [ ! -f "$dir/signing.key" ]; then
    (cd "$dir" && "$VENV/bin/python" -m synapse.app.homeserver -c "$dir/homeserver.yaml" --generate-keys >/dev/null)
  fi
}

pid_of() { # DIR; succeeds when the server that `up` started there is alive
  PID=$(cat "$1/pid" 2>/dev/null) && [ -n "$PID" ] && kill -0 "$PID" 2>/dev/null
}

case "${1:-} $#" in
  "prepare 3")
    DIR=$(absolute "$3")
    prepare "$2" "$DIR"
    ;;
  "run 3")
    DIR=$(absolute "$3")
    # Written once: preparing again costs a process, and the start is something that is measured.
    if [ -f "$DIR/homeserver.yaml" ] && grep -q "port: $2," "$DIR/homeserver.yaml"; then
      VENV=$("$HERE/setup.sh" | tail -n 1)
    else
      prepare "$2" "$DIR"
    fi
    cd "$DIR"
    exec "$VENV/bin/python" -m synapse.app.homeserver -c "$DIR/homeserver.yaml" ${EXTRA:+-c "$EXTRA"}
    ;;
  "up 3")
    DIR=$(absolute "$3")
    if ! pid_of "$DIR"; then
      prepare "$2" "$DIR"
      (
        cd "$DIR"
        nohup "$VENV/bin/python" -m synapse.app.homeserver -c "$DIR/homeserver.yaml" >"$DIR/stdout" 2>&1 &
        echo $! >"$DIR/pid"
      )
    fi
    deadline=$((SECONDS + 60))
    until curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$2/_matrix/client/versions" 2>/dev/null; do
      if ! pid_of "$DIR" || [ "$SECONDS" -ge "$deadline" ]; then
        echo "synapse.sh: Synapse did not start; the end of $DIR/stdout and $DIR/homeserver.log:" >&2
        tail -n 5 "$DIR/stdout" "$DIR/homeserver.log" >&2 || true
        exit 1
      fi
      sleep 0.2
    done
    pid_of "$DIR"
    echo "http://127.0.0.1:$2 pid=$PID"
    ;;
  "down 2")
    if pid_of "$2"; then
      kill "$PID"
      deadline=$((SECONDS + 30))
      while kill -0 "$PID" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
          kill -9 "$PID" 2>/dev/null || true
        fi
        sleep 0.1
      done
    fi
    rm -f "$2/pid"
    ;;
  *) usage ;;
esac
