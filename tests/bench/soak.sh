#!/usr/bin/env bash
# `make soak MINUTES=60`: two Hearths that federate, at half of what they can do, while lines are cut and servers are stopped and
# killed: whether anything is lost, and whether memory, latency, file descriptors and rows stay as they are.
#
#   soak.sh [MINUTES] [OPTIONS of `hearth-bench soak`]
#
# `soak.sh 60 --load 25` takes a quarter of the capacity in place of half, `--rate 100` a fixed rate. Writes
# target/soak/{soak.json,table.md,plot.svg}; fails when a message was lost, doubled or out of order, or when the last quarter of
# the time was worse than the second. Below eight minutes only the former is judged: servers are still warming up.
#
# Environment: HEARTH (a binary in place of the release build), PROFILE (cargo profile; default release), KEEP=1 (leave the data)
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$REPO/target}
OUT=$TARGET/soak
PROFILE=${PROFILE:-release}
SECRET=bench-secret
BENCH=$TARGET/$PROFILE/hearth-bench
HEARTH=${HEARTH:-}
. "$REPO/tests/bench/servers.sh"

MINUTES=60
case ${1:-} in
  [0-9]*)
    MINUTES=$1
    shift
    ;;
esac

mkdir -p "$OUT"
cd "$REPO"
packages=(hearth-bench)
if [ -z "$HEARTH" ]; then
  HEARTH=$TARGET/$PROFILE/hearth
  packages+=(hearth)
fi
# One by one, as `make run` builds: together, each would get what the others ask of a library.
for package in "${packages[@]}"; do
  cargo build --locked --profile "$PROFILE" -p "$package"
done
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -H -n)"

rm -rf "$OUT/here" "$OUT/there"
# For each its clients' port, the one that speaks to servers, and the one by which these reach it.
read -ra ports < <(free_ports 6)
hearth_at "$OUT/here" "${ports[0]}" "${ports[1]}" "${ports[2]}"
start=$START
hearth_at "$OUT/there" "${ports[3]}" "${ports[4]}" "${ports[5]}"
peer_start=$START

# Rows of the first server's tables, read beside it without a lock that anybody waits for. To count all of `queue` would take
# seconds after an hour, and keep the write-ahead log from being used again meanwhile: four recipients stand for all. Entries that
# notified somebody (flag 1) are kept for a month, for /notifications: they grow with the messages, as history does, and aren't judged.
cat >"$OUT/rows.py" <<'PY'
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=1)
recipients = [recipient for (recipient,) in database.execute("SELECT recipient FROM account ORDER BY recipient LIMIT 4")]
queue = [0, 0]
for recipient in recipients:
    for flag, count in database.execute("SELECT flags & 1, COUNT(*) FROM queue WHERE recipient = ? GROUP BY 1", (recipient,)):
        queue[flag] += count
print("queue rows", queue[0])
print("notification rows", queue[1])
for table in ("unread", "delivery"):
    count, = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    print(table, "rows", count)
PY
failed=0
"$BENCH" soak --version "$("$HEARTH" --version | sed 's/^[^ ]* //'), $(git describe --always --dirty 2>/dev/null || echo 'no commit')" \
  --address "127.0.0.1:${ports[0]}" --start "$start" --data-dir "$OUT/here/data" \
  --peer-address "127.0.0.1:${ports[3]}" --peer-start "$peer_start" --peer-data-dir "$OUT/there/data" \
  --link "${ports[2]}:${ports[1]}" --link "${ports[5]}:${ports[4]}" --secret "$SECRET" --stream \
  --probe "python3 '$OUT/rows.py' '$OUT/here/data/hearth.db'" --minutes "$MINUTES" \
  --json "$OUT/soak.json" --markdown "$OUT/table.md" --plot "$OUT/plot.svg" "$@" || failed=1
[ "$failed" = 1 ] || [ -n "${KEEP:-}" ] || rm -rf "$OUT/here" "$OUT/there"
exit "$failed"
