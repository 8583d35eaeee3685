#!/usr/bin/env bash
# The seeded simulation of engine and orchestrator (docs/reliability.md).
#
#   SEEDS=10000 scripts/simulate.sh      so many worlds, on two threads
#   SEED=37 scripts/simulate.sh          this world alone, with all that happens in it
#   EVENTS_PER_SECOND=50 scripts/simulate.sh   an hour of so many events with the provider away (50: six minutes)
#
#   FIRST=1          the first seed
#   PROFILE=dev      cargo profile; the optimised ones take longer to build and less to run
set -euo pipefail
cd "$(dirname "$0")/.."

PROFILE=${PROFILE:-dev}
# The whole workspace, as `make test` builds it: so nothing is built twice.
run() {
  cargo nextest run --locked --workspace --cargo-profile "$PROFILE" --profile simulation \
    -E "package(weir-orchestrator) & test(/^simulation::tests::$1/)"
}

if [ -n "${SEED:-}" ]; then
  WEIR_SIMULATION_SEED=$SEED run one_world_can_be_played_again
elif [ -n "${EVENTS_PER_SECOND:-}" ]; then
  WEIR_SIMULATION_EVENTS_PER_SECOND=$EVENTS_PER_SECOND run nothing_is_lost_while_the_provider_is_away_for_an_hour
else
  export WEIR_SIMULATION_SEEDS=${SEEDS:-10000} WEIR_SIMULATION_FIRST=${FIRST:-1}
  run every_law_holds
fi
