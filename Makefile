# Everything a person or a machine does with this repository. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test check lint fmt advisories bench crash torture simulate budget-test drop-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build weir and start the demo (ARGS="..." is passed on to `weir demo`)
	@scripts/run.sh $(ARGS)

test: ## every check and every test, on SQLite and PostgreSQL; installs what is missing
	@scripts/test.sh

check: ## all static checks: format, lints, docs, dependencies, spelling, containers
	@scripts/check.sh

lint: ## clippy alone, warnings are errors
	@cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## format all Rust sources in place
	@cargo fmt --all

advisories: ## known vulnerabilities in dependencies (fetches the RustSec database from GitHub)
	@scripts/advisories.sh

bench: ## measure weir against the bare program (see scripts/bench.sh for settings)
	@scripts/bench.sh $(ARGS)

crash: ## kill weir and PostgreSQL under load, prove that nothing is lost or doubled (see scripts/crash.sh)
	@scripts/crash.sh $(ARGS)

torture: ## 200 kills on SQLite, and three nodes on PostgreSQL in a storm of kills, stops and cuts (see scripts/torture.sh)
	@scripts/torture.sh $(ARGS)

simulate: ## thousands of random worlds of engine and orchestrator (SEEDS=10000; SEED=37 plays one again with a trace)
	@SEEDS="$(SEEDS)" SEED="$(SEED)" scripts/simulate.sh

budget-test: ## 5,000 flows at a provider that allows 50 requests a second; prints figures
	@WEIR_BUDGET_FLOWS="$${WEIR_BUDGET_FLOWS:-5000}" cargo test --locked --package weir-cli --test e2e -- --nocapture budgets::

drop-test: ## a provider that loses 30 % of 10,000 webhooks while weir is away for a minute, once per level (see scripts/drop-test.sh)
	@scripts/drop-test.sh
