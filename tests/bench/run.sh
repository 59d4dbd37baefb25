#!/usr/bin/env bash
# `make bench`: measures Hearth and Synapse one after the other on this machine and prints one table.
#
#   run.sh               both servers, all scenarios; about eight minutes
#   run.sh hearth        Hearth alone
#   run.sh synapse       Synapse alone
#   run.sh table         the table again, of the reports that are there
#
# Further arguments go to `hearth-bench run`, after and over those below: `run.sh hearth --scenarios send --send-seconds 30`.
# Writes target/bench/{hearth,synapse}.json and target/bench/table.md; fails when a scenario could not be finished or a
# delivery was lost, duplicated or reordered.
#
# Environment: HEARTH (a binary to measure in place of the release build), PROFILE (cargo profile; default release),
# KEEP=1 (leave the data in target/bench)
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$REPO/target}
OUT=$TARGET/bench
PROFILE=${PROFILE:-release}
SECRET=bench-secret
BENCH=$TARGET/$PROFILE/hearth-bench
HEARTH=${HEARTH:-}

WHAT=both
case "${1:-}" in
  both | hearth | synapse | table)
    WHAT=$1
    shift
    ;;
esac

mkdir -p "$OUT"
cd "$REPO"
packages=(-p hearth-bench)
if [ -z "$HEARTH" ]; then
  HEARTH=$TARGET/$PROFILE/hearth
  case $WHAT in
    both | hearth) packages+=(-p hearth) ;;
  esac
fi
if [ "$WHAT" != table ]; then
  cargo build --profile "$PROFILE" "${packages[@]}"
fi
# Thousands of long-polls are thousands of sockets, at both ends.
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -H -n)"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Both are called where a failure is caught, so they return theirs by hand.
measure_hearth() {
  local dir=$OUT/hearth port
  port=$(free_port)
  rm -rf "$dir"
  mkdir -p "$dir"
  # Durable and as installed, but for the limits, which a load from one address would run into.
  cat >"$dir/hearth.toml" <<TOML
server_name = "localhost"
data_dir = "$dir/data"

[[listener]]
bind = "127.0.0.1:$port"
serve = ["client"]

[registration]
mode = "open"
shared_secret = "$SECRET"

[limits]
enabled = false
TOML
  "$BENCH" run --name Hearth --address "127.0.0.1:$port" \
    --start "'$HEARTH' serve --config '$dir/hearth.toml' >>'$dir/log' 2>&1" \
    --data-dir "$dir/data" --secret "$SECRET" --json "$OUT/hearth.json" "$@" || return
  [ -n "${KEEP:-}" ] || rm -rf "$dir"
}

# The same scenarios at a scale that Synapse gets through in the time: it makes a room in some 50 ms.
measure_synapse() {
  local dir=$OUT/synapse port
  port=$(free_port)
  rm -rf "$dir"
  SECRET=$SECRET tests/peers/synapse.sh prepare "$port" "$dir" || return
  SECRET=$SECRET "$BENCH" run --name Synapse --address "127.0.0.1:$port" \
    --start "'$REPO/tests/peers/synapse.sh' run $port '$dir' >>'$dir/stdout' 2>&1" \
    --data-dir "$dir/data" --secret "$SECRET" --json "$OUT/synapse.json" \
    --sync-rooms 20,200 --old-changes 1000 --long-messages 5000 --idle-polls 1000 --idle-users 100 --starts 3 "$@" || return
  [ -n "${KEEP:-}" ] || rm -rf "$dir"
}

failed=0
case $WHAT in
  both | hearth) measure_hearth "$@" >"$OUT/hearth.md" || failed=1 ;;
esac
case $WHAT in
  both | synapse) measure_synapse "$@" >"$OUT/synapse.md" || failed=1 ;;
esac

reports=()
for name in hearth synapse; do
  case $WHAT in
    both | table | "$name") [ ! -f "$OUT/$name.json" ] || reports+=("$OUT/$name.json") ;;
  esac
done
[ ${#reports[@]} -gt 0 ] && "$BENCH" compare --markdown "$OUT/table.md" "${reports[@]}" || failed=1
exit "$failed"
