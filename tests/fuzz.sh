#!/usr/bin/env bash
# Fuzzes: each target of tests/fuzz for some seconds, from its corpus on. What fails lands in tests/fuzz/artifacts/ and ends the
# run; what is new and right stays in tests/fuzz/grown/, for the next run to go on from.
#
#   tests/fuzz.sh                          every target, 60 seconds each
#   TARGET=pdu SECONDS=3600 tests/fuzz.sh  one of them, for an hour
#   TARGET=pdu tests/fuzz.sh minimise      its corpus made anew, as small as it can be, from all that was found
#
# The stable compiler will do: Hearth has no unsafe code, so there is nothing for a sanitizer to find, and counting branches,
# which is what a fuzzer needs, is nothing that only nightly can.
set -euo pipefail
# Bash counts in SECONDS itself, from the number that the environment gave it; nothing has happened before this line.
seconds=$SECONDS
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$seconds" -gt 1 ] || seconds=60
tools=$PWD/.cache/fuzz
grep -qs '^"cargo-fuzz 0.13.2 ' "$tools/.crates.toml" ||
  cargo install --quiet --locked --root "$tools" --version 0.13.2 cargo-fuzz
PATH=$tools/bin:$PATH
command -v c++ >/dev/null || {
  echo "fuzz: libFuzzer is compiled from C++: please install a compiler (on Debian: apt-get install g++)" >&2
  exit 1
}

# The counters are of no use where two compilations share what they made.
export CARGO_INCREMENTAL=0
cp Cargo.lock tests/fuzz/Cargo.lock

# fuzz COMMAND ARGUMENT...
fuzz() {
  local command=$1
  shift
  cargo fuzz "$command" --fuzz-dir tests/fuzz --sanitizer none "$@" || {
    echo "fuzz: this ended with an error. A failing input is in tests/fuzz/artifacts/: docs/testing.md says what to do with it." >&2
    echo "fuzz: if the compiler was what failed, try nightly: rustup toolchain install nightly, and RUSTUP_TOOLCHAIN=nightly make fuzz" >&2
    exit 1
  }
}

targets=${TARGET:-$(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | grep -v '^hearth-fuzz$')}
for target in $targets; do
  work=tests/fuzz/grown/$target corpus=tests/fuzz/corpus/$target
  mkdir -p "$work" "$corpus"
  # Where there is a whole server, another has to be made now and then.
  case $target in api | stream | transactions) slowest=60 ;; *) slowest=10 ;; esac
  options=("-timeout=$slowest" -rss_limit_mb=4096 -max_len=4096)
  dictionary=tests/fuzz/dictionaries/$target
  [ ! -f "$dictionary" ] || options+=("-dict=$dictionary")
  if [ "${1:-}" = minimise ]; then
    cp -n "$corpus"/* "$work"/ 2>/dev/null || true
    fuzz cmin "$target" "$work"
    continue
  fi
  echo "fuzz: $target for $seconds seconds" >&2
  fuzz run "$target" "$work" "$corpus" -- -max_total_time="$seconds" "${options[@]}"
done
