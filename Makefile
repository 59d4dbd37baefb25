# Every command of the project. Each installs what it needs first (tests/setup.sh; by apt as root or with sudo).

.DEFAULT_GOAL := help
.PHONY: help run test test-more crash fuzz sim bench bench-federation soak audit coverage counts lint setup

# `make run ARGS="--config hearth.toml"`
ARGS ?=
# `make soak MINUTES=10`
MINUTES ?= 60
# `make sim SEEDS=100`, `make sim SEED=7`
SEEDS ?= 20
SEED ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

run: ## build Hearth (the first time takes some ten minutes) and serve on 127.0.0.1:8008, data in ./hearth-data
	@tests/setup.sh build
	cargo run --release --locked -- serve $(ARGS)

setup: ## install what the tests need
	@tests/setup.sh

# The tests come last, so that their verdict is the last thing to read.
test: setup lint ## formatting, lints and all tests, real clients among them
	cargo test --workspace --locked --doc
	cargo test --workspace --locked --lib --bins --tests

test-more: setup ## all tests with their longer versions: more rounds, more data
	HEARTH_TEST_MORE=1 cargo test --workspace --locked --lib --bins --tests
	HEARTH_TEST_MORE=1 cargo test --locked --test clients --test encryption -- --ignored matrix_sdk_

# How often: KILLS of processes, LOSSES of power, UPGRADES and FIRST_STARTS that are killed.
KILLS ?= 1000
LOSSES ?= 300
UPGRADES ?= 100
FIRST_STARTS ?= 100

crash: ## kill a release build a thousand times, unplug it, fill its disk: nothing acknowledged may get lost (half an hour)
	@tests/setup.sh build
	cargo build --release --locked
	HEARTH_BINARY=$(CURDIR)/target/release/hearth KILLS=$(KILLS) LOSSES=$(LOSSES) UPGRADES=$(UPGRADES) \
		FIRST_STARTS=$(FIRST_STARTS) HEARTH_TEST_MORE=1 \
		cargo test --locked --test crash -- --nocapture --test-threads=1

# `make fuzz TARGET=pdu SECONDS=3600`
fuzz: ## throw mutated input at all that reads what strangers send, a minute a target (TARGET=… SECONDS=…)
	@tests/setup.sh build
	tests/fuzz.sh $(ARGS)

sim: ## simulate servers, networks and disks that go wrong: SEEDS=100, or SEED=7 to play one again
	@tests/setup.sh build
	cargo run --quiet --locked -p hearth-simulation -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

bench: ## measure Hearth side by side with Synapse on SQLite and on PostgreSQL (twenty minutes)
	@tests/setup.sh bench
	tests/bench/run.sh $(ARGS)

soak: ## two servers that federate under load for MINUTES=60, while things go wrong: nothing lost, nothing grows
	@tests/setup.sh bench
	tests/bench/soak.sh $(MINUTES) $(ARGS)

bench-federation: setup ## measure what federation costs: pairs of servers, many others, silent ones
	cargo build --release --locked
	HEARTH_BINARY=$(CURDIR)/target/release/hearth cargo test --locked --test pairs -- --ignored --nocapture --test-threads=1

audit: ## hold the dependencies against deny.toml, and against published vulnerabilities where these can be had
	@tests/setup.sh build
	tests/audit.sh

coverage: setup ## which lines of Hearth the tests reach, by folder, and as pages in target/coverage
	@tests/setup.sh coverage
	tests/coverage.sh $(ARGS)

counts: ## count the instructions of the hot paths and compare with the baseline; UPDATE=1 makes it anew
	@tests/setup.sh counts
	tests/counts.sh

lint: ## what must hold before any commit: formatting and clippy
	@tests/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
