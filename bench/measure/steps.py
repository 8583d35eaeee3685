"""Row `steps`: what a step costs in long runs and in short ones."""

import statistics
import time

import process
from asking import ask
from load import upstreams
from servers import Weir
from settings import POSTGRES_PID_FILE, REPEATS, Failed

SIZES = 100, 1_000, 10_000
# Steps per measurement: enough for a CPU clock of 10 ms.
STEPS = {"sets": 50_000, "calls": 10_000}
RUNS_WITHOUT_STEPS = 200


def measure(table, reports):
    for database in ("sqlite", "postgres"):
        with upstreams(), Weir(database, "scale.yaml") as weir:
            for kind in ("sets", "calls"):
                _kind(weir, kind, table, reports)


def _kind(weir, kind, table, reports):
    """One run at a time, so that short and long ones share the commits of as few others."""
    ask(weir, kind, items=list(range(100)))
    rounds = []
    for _ in range(REPEATS):
        empty = _runs(weir, kind, 0, RUNS_WITHOUT_STEPS)
        per_step = {}
        for size in SIZES:
            runs = STEPS[kind] // size
            spent = _runs(weir, kind, size, runs)
            per_step[size] = [max(all_ - fixed * runs, 0) / (runs * size) * 1e6 for all_, fixed in zip(spent, empty)]
        rounds.append(per_step)
        figures = ", ".join(f"{size}: {cpu:.1f} µs CPU {wall:.1f} µs" for size, (cpu, wall) in per_step.items())
        print(f"    {kind} {weir.database}, per step of a run of {figures}; a run without steps {empty[0] * 1e6:.0f} µs CPU", flush=True)
    reports.append({"label": f"steps {kind} {weir.database}", "cpu_and_wall_us_per_step": rounds})

    short, long = SIZES[0], SIZES[-1]
    cpu = {size: statistics.median(per_step[size][0] for per_step in rounds) for size in SIZES}
    ratio = statistics.median(per_step[long][0] / per_step[short][0] for per_step in rounds)
    name = {"sets": "computed step", "calls": "call"}[kind]
    figure = f"CPU per {name} in a run of {long} ÷ {short}, {weir.database}"
    table.add(figure, f"{cpu[long]:.0f} µs", f"{cpu[short]:.0f} µs", ratio, 1.3, 1.1, higher_is_better=False)


def _runs(weir, kind, size, runs):
    """CPU and wall seconds: of all runs together; of one when they have no steps."""
    trees = [weir.pid()]
    if weir.database == "postgres":
        with open(POSTGRES_PID_FILE, encoding="ascii") as file:
            trees.append(int(file.readline()))
    cpu, wall = process.cpu_s(*trees), time.monotonic()
    for _ in range(runs):
        answer, _ = ask(weir, kind, items=list(range(size)))
        if answer["done"] != size:
            raise Failed(f"{kind}: {answer['done']} of {size} steps were done")
    spent = process.cpu_s(*trees) - cpu, time.monotonic() - wall
    return spent if size else [figure / runs for figure in spent]
