#!/usr/bin/env bash
# Runs the tests and says which lines of the product they reach: a summary by folder, and every file as a page below
# target/coverage/. What a server counts is in a file that all of its kind share and write as they run (LLVM's continuous
# mode), so that a server that a test kills has counted too; two that count one line at the same moment may count it once.
#
#   tests/coverage.sh                       all tests
#   tests/coverage.sh -p hearth --lib       what `cargo test` would run with these
#
# A failed test doesn't keep the report from being made; the exit status tells of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/cargo-tool.sh
source tests/cargo-tool.sh

tool cargo-llvm-cov 0.9.1

# The tools that read the counts are to be of the compiler's LLVM: rustup's, or else Debian's of that version.
if [ ! -x "$(rustc --print target-libdir)/../bin/llvm-profdata" ]; then
  major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  export LLVM_COV LLVM_PROFDATA
  LLVM_COV=$(command -v "llvm-cov-$major") || { echo "coverage: no llvm-cov-$major" >&2; exit 1; }
  LLVM_PROFDATA=$(command -v "llvm-profdata-$major") || { echo "coverage: no llvm-profdata-$major" >&2; exit 1; }
fi

export CARGO_INCREMENTAL=0
export RUSTFLAGS="-C llvm-args=-runtime-counter-relocation"
export LLVM_PROFILE_FILE_NAME="hearth-%4m%c.profraw"

if [ $# = 0 ]; then
  set -- --workspace --lib --bins --tests
fi
cargo llvm-cov clean --workspace --profraw-only
status=0
cargo llvm-cov --no-report --locked --no-fail-fast "$@" || status=$?

product=(-p hearth -p hearth-federation)
rm -rf target/coverage
cargo llvm-cov report "${product[@]}" --html --output-dir target/coverage
cargo llvm-cov report "${product[@]}" >target/coverage/summary.txt

# Of each file: name, regions, missed, %, functions, missed, %, lines, missed, %. Names are what is left after their
# longest common beginning.
awk '
  NF >= 10 && $8 ~ /^[0-9]+$/ {
    if ($1 == "TOTAL") name = "all"
    else {
      n = split($1, part, "/")
      name = part[1]
      for (i = 2; i < n && i <= 3; i++) name = name "/" part[i]
      if (n == 1) name = "src"
    }
    lines[name] += $8; missed[name] += $9
  }
  END {
    for (name in lines)
      printf "%-34s %7d lines, %5.1f %% reached\n", name, lines[name], 100 * (lines[name] - missed[name]) / lines[name] | "sort"
  }
' target/coverage/summary.txt | tee target/coverage/folders.txt
echo "every file: target/coverage/summary.txt; every line: target/coverage/html/index.html"
exit "$status"
