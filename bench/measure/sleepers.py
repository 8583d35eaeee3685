"""Row `sleepers`: a server among whose runs very many sleep."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import process
from asking import ask
from servers import Weir
from settings import BENCH, SLEEPERS, Failed

NAPS = 10
FIRST_NAP_S, NAP_AFTER_NAP_S = 4, 0.5
# Longer than a stop, a start and the first flow take.
NAP_OVER_RESTART_S = 15
FALL_ASLEEP_WITHIN_S = 300
SETTLE_S = 3


def measure(benchmark):
    for database in ("sqlite", "postgres"):
        with Weir(database, "sleepers.yaml") as weir:
            _one(weir, benchmark)


def _one(weir, benchmark):
    table, name = benchmark.table, f"{SLEEPERS} asleep, {weir.database}"
    time.sleep(SETTLE_S)
    empty_mb = process.rss_mb(weir.pid())
    benchmark.runs.load(weir, "falling asleep", ack_only=True, warm_up_s=0, duration_s=3600, max_flows=SLEEPERS)
    _wait_until_all_sleep(weir)
    asleep_mb = process.rss_mb(weir.pid())
    late_s = _naps(weir)

    # The endpoint that the sleepers came by now starts flows.
    sleepers = (BENCH / "sleepers.yaml").read_text().replace("stripe.payment_intent.succeeded", "stripe.charge.refunded")
    weir.apply((BENCH / "hydrate-flow.yaml").read_text() + "---\n" + sleepers[sleepers.index("kind: Workflow"):])
    with ThreadPoolExecutor() as pool:
        until = time.time() + NAP_OVER_RESTART_S
        nap = pool.submit(_nap, weir, until)
        time.sleep(2)
        weir.stop()
        start_s = benchmark.start_to_first_flow(weir, "start among sleepers")
        if time.time() > until:
            raise Failed("the nap over the restart was too short")
        time.sleep(SETTLE_S)
        restarted_mb = process.rss_mb(weir.pid())
        late_s.append(nap.result())
    print(f"    {name}: {empty_mb:.0f} MB before, {asleep_mb:.0f} MB when all sleep, {restarted_mb:.0f} MB after a restart;"
          f" naps were late by {', '.join(f'{late:.2f}' for late in late_s)} s (the last over the restart)", flush=True)

    table.add(f"memory idle, {name}, after a restart", f"{restarted_mb:.0f} MB", f"{empty_mb:.0f} MB", restarted_mb, 60, 40, " MB", higher_is_better=False)
    table.add(f"the same when they have just fallen asleep", f"{asleep_mb:.0f} MB", f"{empty_mb:.0f} MB", asleep_mb, 60, 40, " MB", higher_is_better=False)
    table.add(f"start to the first flow, {name}", f"{start_s:.2f} s", "", start_s, 1.0, 0.3, " s", higher_is_better=False)
    table.add(f"a nap among them, latest", f"{max(late_s):.2f} s", "", max(late_s), 1.0, 0.2, " s", higher_is_better=False)


def _wait_until_all_sleep(weir):
    give_up = time.monotonic() + FALL_ASLEEP_WITHIN_S
    while time.monotonic() < give_up:
        time.sleep(2)
        if weir.metric("weir_runs_in_memory") + weir.metric("weir_runs_backlog") == 0:
            timers = weir.metric("weir_run_timers")
            if timers < SLEEPERS:
                raise Failed(f"only {timers:.0f} of {SLEEPERS} sleep")
            time.sleep(SETTLE_S)
            return
    raise Failed(f"not all sleep after {FALL_ASLEEP_WITHIN_S} s")


def _naps(weir):
    first = time.time() + FIRST_NAP_S
    with ThreadPoolExecutor(NAPS) as pool:
        return list(pool.map(lambda number: _nap(weir, first + number * NAP_AFTER_NAP_S), range(NAPS)))


def _nap(weir, until):
    """How many seconds after its time a sleeping run has gone on and given its answer."""
    moment = datetime.fromtimestamp(until, timezone.utc).isoformat(timespec="milliseconds")
    _, answered = ask(weir, "nap", poll_from=until - 0.1, until=moment)
    # The moment is cut to the millisecond.
    if answered < until - 0.001:
        raise Failed(f"a nap ended {until - answered:.2f} s early")
    return answered - until
