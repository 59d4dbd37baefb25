#!/usr/bin/env bash
# Installs the homeserver that Hearth is compared with, into `.cache/` of the repository.
#
#   setup.sh            idempotent: does nothing when the pinned version is already there
#   setup.sh version    the pinned version
#
# Prints the path of the virtual environment on its last line. Needs Python 3.10 or later; about 30 s and 240 MB.
set -euo pipefail

# Pinned, because a table of numbers means nothing without the version beside it.
SYNAPSE_VERSION=1.163.2
# What `matrix-synapse[postgres]` asks for, as its authors build it; psycopg2 itself would need PostgreSQL's headers.
DRIVER=psycopg2-binary==2.9.13

if [ "${1:-}" = version ]; then
  echo "$SYNAPSE_VERSION"
  exit
fi

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${HEARTH_PEER_CACHE:-$REPO/.cache}
VENV=$CACHE/synapse-$SYNAPSE_VERSION
STAMP=$VENV/.installed

if [ ! -f "$STAMP" ]; then
  PYTHON=
  for candidate in ${PYTHON_FOR_PEERS:-} python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
  if [ -z "$PYTHON" ]; then
    echo "setup.sh: Synapse needs Python 3.10 or later with the venv module (Debian: apt-get install python3-venv)" >&2
    exit 1
  fi
  # A half-made environment has no stamp: start again rather than trust it.
  rm -rf "$VENV"
  mkdir -p "$CACHE"
  "$PYTHON" -m venv "$VENV" >&2
  "$VENV/bin/pip" install --quiet --disable-pip-version-check "matrix-synapse==$SYNAPSE_VERSION" >&2
  touch "$STAMP"
fi
if [ "$(cat "$STAMP")" != "$DRIVER" ]; then
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$DRIVER" >&2
  echo "$DRIVER" >"$STAMP"
fi
echo "$VENV"
