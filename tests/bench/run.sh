#!/usr/bin/env bash
# `make bench`: measures Hearth and then Synapse, on SQLite and on PostgreSQL, one after the other on this machine, each alone
# with the load, and prints one table.
#
#   run.sh                     all three, all scenarios; about twenty minutes
#   run.sh hearth [peer]       these alone: `hearth`, `synapse`, `synapse-postgresql`
#   run.sh table               the table and the plot again, of the reports that are there
#
# Options for all of them:
#
#   --quick                    every scenario at a small size: whether all works, in some five minutes
#   --full                     Synapse at the sizes of Hearth
#   --write-docs               afterwards, put table and plot into docs/benchmarks.md and docs/benchmarks.svg
#
# Further arguments go to `hearth-bench run`, after and over those below: `run.sh hearth --scenarios send --send-seconds 30`.
# Writes target/bench/{hearth,synapse,synapse-postgresql}.json, table.md and plot.svg; fails when a scenario could not be
# finished or a delivery was lost, duplicated or reordered.
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
. "$REPO/tests/bench/servers.sh"

SERVERS=()
TABLE_ONLY=
QUICK=
FULL=
WRITE_DOCS=
while [ $# -gt 0 ]; do
  case $1 in
    both | all) SERVERS=(hearth synapse synapse-postgresql) ;;
    hearth | synapse | synapse-postgresql) SERVERS+=("$1") ;;
    table) TABLE_ONLY=1 ;;
    --quick) QUICK=1 ;;
    --full) FULL=1 ;;
    --write-docs) WRITE_DOCS=1 ;;
    *) break ;;
  esac
  shift
done
[ ${#SERVERS[@]} -gt 0 ] || SERVERS=(hearth synapse synapse-postgresql)

mkdir -p "$OUT"
cd "$REPO"
packages=(hearth-bench)
if [ -z "$HEARTH" ]; then
  HEARTH=$TARGET/$PROFILE/hearth
  case " ${SERVERS[*]} " in
    *" hearth "*) packages+=(hearth) ;;
  esac
fi
if [ -z "$TABLE_ONLY" ]; then
  # One by one, as `make run` builds: together, each would get what the others ask of a library.
  for package in "${packages[@]}"; do
    cargo build --locked --profile "$PROFILE" -p "$package"
  done
fi
# Thousands of long-polls are thousands of sockets, at both ends.
ulimit -n 32768 2>/dev/null || ulimit -n "$(ulimit -H -n)"

# Synapse makes a room in some 50 ms: what only fills the server is smaller for it, what is timed is the same.
SIZES_OF_PEERS=(--sync-rooms 20,200 --old-changes 500 --long-messages 3000 --join-rooms 1 --idle-polls 1000 --idle-users 100 --starts 3)
SIZES=()
if [ -n "$FULL" ]; then
  SIZES_OF_PEERS=()
fi
if [ -n "$QUICK" ]; then
  SIZES=(--send-seconds 2 --chat-seconds 1 --sync-rooms 10,30 --sync-seconds 1 --old-members 20 --old-changes 200
    --long-messages 1000 --hot-seconds 2 --join-rooms 1 --join-members 20 --idle-polls 200 --idle-users 20
    --idle-sockets 500 --cut-sockets 100 --storm-users 200 --pair-seconds 2 --starts 2)
  SIZES_OF_PEERS=()
fi

# Each is called where a failure is caught, so they return theirs by hand.
measure_hearth() {
  local dir=$OUT/hearth ports start peer_start
  rm -rf "$dir" "$dir-peer"
  read -ra ports < <(free_ports 4)
  hearth_at "$dir" "${ports[0]}" "${ports[1]}" || return
  start=$START
  hearth_at "$dir-peer" "${ports[2]}" "${ports[3]}" || return
  peer_start=$START
  "$BENCH" run --name Hearth --version "$("$HEARTH" --version | sed 's/^[^ ]* //'), $(commit)" \
    --address "127.0.0.1:${ports[0]}" --start "$start" --data-dir "$dir/data" \
    --peer-address "127.0.0.1:${ports[2]}" --peer-start "$peer_start" \
    --secret "$SECRET" --json "$OUT/hearth.json" \
    --scenarios send,chat2,chat10,stream10,chat100,stream100,hot-room,join-storm,sync-rooms,old-room,long-room,idle,sockets,pair,start \
    "${SIZES[@]}" "$@" || return
  [ -n "${KEEP:-}" ] || rm -rf "$dir" "$dir-peer"
}

measure_synapse() { # NAME VERSION FURTHER OPTIONS...; DIR, POSTGRES and PEER_POSTGRES are set
  local name=$1 version=$2 ports start peer_start
  shift 2
  read -ra ports < <(free_ports 4)
  POSTGRES=$POSTGRES synapse_at "$DIR" "${ports[0]}" "${ports[1]}" || return
  start=$START
  POSTGRES=$PEER_POSTGRES synapse_at "$DIR-peer" "${ports[2]}" "${ports[3]}" || return
  peer_start=$START
  "$BENCH" run --name "$name" --version "$version" \
    --address "127.0.0.1:${ports[0]}" --start "$start" --data-dir "$DIR/data" \
    --peer-address "127.0.0.1:${ports[2]}" --peer-start "$peer_start" --secret "$SECRET" \
    --scenarios send,chat2,chat10,chat100,hot-room,join-storm,sync-rooms,old-room,long-room,idle,pair,start \
    ${SIZES[@]+"${SIZES[@]}"} ${SIZES_OF_PEERS[@]+"${SIZES_OF_PEERS[@]}"} "$@" || return
}

measure_synapse_on_sqlite() {
  local DIR=$OUT/synapse POSTGRES='' PEER_POSTGRES=''
  rm -rf "$DIR" "$DIR-peer"
  measure_synapse "Synapse on SQLite" "$("$REPO/tests/peers/setup.sh" version)" --json "$OUT/synapse.json" "$@" || return
  [ -n "${KEEP:-}" ] || rm -rf "$DIR" "$DIR-peer"
}

measure_synapse_on_postgresql() {
  local DIR=$OUT/synapse-postgresql cluster=$OUT/postgresql socket pid version POSTGRES PEER_POSTGRES failed=0
  "$REPO/tests/peers/postgres.sh" down "$cluster" || return
  rm -rf "$DIR" "$DIR-peer" "$cluster"
  read -r socket pid < <("$REPO/tests/peers/postgres.sh" up "$cluster" synapse peer) || return
  POSTGRES="$socket synapse" PEER_POSTGRES="$socket peer"
  version="$("$REPO/tests/peers/setup.sh" version), PostgreSQL $("$REPO/tests/peers/postgres.sh" version)"
  # The database's processes and disk are the server's; it goes on when Synapse is restarted.
  measure_synapse "Synapse on PostgreSQL" "$version" --pid "$pid" --data-dir "$cluster/data" \
    --json "$OUT/synapse-postgresql.json" "$@" || failed=1
  "$REPO/tests/peers/postgres.sh" down "$cluster" || failed=1
  [ "$failed" = 0 ] || return 1
  [ -n "${KEEP:-}" ] || rm -rf "$DIR" "$DIR-peer" "$cluster"
}

commit() {
  git describe --always --dirty 2>/dev/null || echo "no commit"
}

failed=0
if [ -z "$TABLE_ONLY" ]; then
  # A cluster outlives this script unless it is told to stop.
  trap '"$REPO/tests/peers/postgres.sh" down "$OUT/postgresql" || true' EXIT
  for server in "${SERVERS[@]}"; do
    case $server in
      hearth) measure_hearth "$@" >"$OUT/hearth.md" || failed=1 ;;
      synapse) measure_synapse_on_sqlite "$@" >"$OUT/synapse.md" || failed=1 ;;
      synapse-postgresql) measure_synapse_on_postgresql "$@" >"$OUT/synapse-postgresql.md" || failed=1 ;;
    esac
  done
fi

reports=()
for server in "${SERVERS[@]}"; do
  [ ! -f "$OUT/$server.json" ] || reports+=("$OUT/$server.json")
done
docs=()
[ -z "$WRITE_DOCS" ] || docs=(--docs "$REPO/docs/benchmarks.md" --docs-plot "$REPO/docs/benchmarks.svg")
[ ${#reports[@]} -gt 0 ] &&
  "$BENCH" compare --markdown "$OUT/table.md" --plot "$OUT/plot.svg" ${docs[@]+"${docs[@]}"} "${reports[@]}" || failed=1
exit "$failed"
