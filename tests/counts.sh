#!/usr/bin/env bash
# Counts the instructions of the hot paths (benches/counts/) and holds them against benches/counts/baseline.txt: a path that
# takes over 3 % more fails. UPDATE=1 writes the baseline anew.
#
# Counts depend on the compiler and a little on the processor (which forms of memcpy and SHA-2 it has): the baseline names
# both, and is worth something where they are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
baseline=benches/counts/baseline.txt
work=target/counts

program=$(cargo bench --locked --bench counts --no-run --message-format=json |
  sed -n 's/.*"name":"counts".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ] || { echo "counts: the program wasn't built" >&2; exit 1; }

rm -rf "$work"
mkdir -p "$work"
# A profile is written whenever the region is left, and they are numbered.
valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect='*::hearth_counted_region' \
  --dump-after='*::hearth_counted_region' "$program" >"$work/names.txt" 2>"$work/log.txt" ||
  { tail -30 "$work/log.txt" "$work/names.txt" >&2; exit 1; }

{
  echo "# $(rustc --version); $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
  nth=0
  while IFS= read -r line; do
    nth=$((nth + 1))
    echo "$(sed -n 's/^\(totals\|summary\): //p' "$work/out.$nth" | tail -1) ${line#counted }"
  done <"$work/names.txt" | sort -n | awk '
    { count = $1; sub(/^[^ ]* /, ""); counts[$0] = counts[$0] " " count; if (!($0 in order)) order[$0] = ++names; name[order[$0]] = $0 }
    END { for (nth = 1; nth <= names; nth++) { n = split(counts[name[nth]], all, " "); printf "%d %s\n", all[int((n + 1) / 2)], name[nth] } }
  ' | sort -k 2
} >"$work/now.txt"

if [ "${UPDATE:-}" = 1 ]; then
  cp "$work/now.txt" "$baseline"
  cat "$baseline"
  exit
fi
if [ ! -f "$baseline" ]; then
  cat "$work/now.txt"
  echo "counts: there is nothing to compare with; UPDATE=1 writes $baseline" >&2
  exit 1
fi
if [ "$(head -1 "$baseline")" != "$(head -1 "$work/now.txt")" ]; then
  echo "counts: the baseline is of$(head -1 "$baseline" | tail -c +2), this is$(head -1 "$work/now.txt" | tail -c +2)" >&2
fi
awk '
  /^#/ { next }
  { count = $1; sub(/^[^ ]* /, "") }
  NR == FNR { before[$0] = count; next }
  !($0 in before) { printf "%12d          new  %s\n", count, $0; next }
  {
    change = 100 * (count - before[$0]) / before[$0]
    verdict = change > 3 ? "  MORE" : change < -3 ? "  less: UPDATE=1 keeps it" : ""
    printf "%12d  %+8.2f %%  %s%s\n", count, change, $0, verdict
    if (change > 3) failed = 1
    delete before[$0]
  }
  END {
    for (name in before) { printf "counts: %s is gone\n", name; failed = 1 }
    exit failed
  }
' "$baseline" "$work/now.txt"
