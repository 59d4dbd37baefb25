#!/usr/bin/env bash
# Holds the dependencies against deny.toml (licences, bans, duplicates, sources), looks for those that nothing uses, and for
# published vulnerabilities where their database can be reached.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/cargo-tool.sh
source tests/cargo-tool.sh

tool cargo-machete 0.9.2
tool cargo-deny 0.20.2

cargo machete
cargo deny --all-features check bans licenses sources

if cargo deny --all-features fetch db >/dev/null 2>&1; then
  cargo deny --all-features check --disable-fetch advisories
else
  echo "audit: the database of vulnerabilities can't be reached from here, so nothing was held against it" >&2
fi
