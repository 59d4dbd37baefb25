#!/usr/bin/env bash
# Holds the dependencies against deny.toml (licences, bans, duplicates, sources), looks for those that nothing uses, and for
# published vulnerabilities where their database can be reached. The tools are built into .cache/audit/, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=$PWD/.cache/audit

# tool NAME VERSION: a cargo subcommand of just that version.
tool() {
  grep -qs "^\"$1 $2 " "$tools/.crates.toml" ||
    cargo install --quiet --locked --root "$tools" --version "$2" "$1"
}

tool cargo-machete 0.9.2
tool cargo-deny 0.20.2
PATH=$tools/bin:$PATH

cargo machete
cargo deny --all-features check bans licenses sources

if cargo deny --all-features fetch db >/dev/null 2>&1; then
  cargo deny --all-features check --disable-fetch advisories
else
  echo "audit: the database of vulnerabilities can't be reached from here, so nothing was held against it" >&2
fi
