# To be sourced: `tool NAME VERSION` builds a cargo subcommand of just that version into .cache/audit/, once, and it is found
# by cargo from then on.
tools=$PWD/.cache/audit
tool() {
  grep -qs "^\"$1 $2 " "$tools/.crates.toml" ||
    cargo install --quiet --locked --root "$tools" --version "$2" "$1"
}
PATH=$tools/bin:$PATH
