"""Row `retention`: what deleting as much as is written costs those who wait for the commit.

It drives the writer itself (crates/storage/examples/retention.rs): a server deletes nothing younger than a day.
"""

import json
import statistics
import subprocess
import tempfile

from servers import psql
from settings import BINARIES, POSTGRES_URL, RETAINED_FLOWS, SECONDS, SERVER_CPU, Failed

FLOWS_PER_S = 1_000
LONGEST_WINDOW_S = 10
DATABASE = "retention"


def measure(table, reports):
    for database in ("sqlite", "postgres"):
        with tempfile.TemporaryDirectory(prefix="weir-bench-retention.") as folder:
            if database == "sqlite":
                _one(database, f"sqlite://{folder}/store.db", table, reports)
                continue
            psql("postgres", f"CREATE DATABASE {DATABASE}")
            try:
                _one(database, POSTGRES_URL.rsplit("/", 1)[0] + "/" + DATABASE, table, reports)
            finally:
                psql("postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _one(database, url, table, reports):
    window_s = round(min(SECONDS, LONGEST_WINDOW_S))
    command = ["taskset", "-c", SERVER_CPU, BINARIES / "examples/retention", url, FLOWS_PER_S, window_s, RETAINED_FLOWS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"retention {database}: {done.stderr.strip()[-500:]}")
    phases = [json.loads(line) for line in done.stdout.splitlines()]
    reports.append({"label": f"retention {database}", "phases": phases})
    for phase in phases:
        print(f"    {database}: {phase}", flush=True)

    def of(name, key):
        return [[phase[key] for phase in phases if phase["phase"] == name and phase["deletes"] == deletes] for deletes in (False, True)]

    without, with_ = of("maximum", "flows_per_s")
    ratio = statistics.median(after / before for before, after in zip(without, with_))
    figure = f"flows/s written, as many deleted ÷ none, {database}"
    table.add(figure, f"{statistics.median(with_):.0f}/s", f"{statistics.median(without):.0f}/s", ratio, 0.7, 0.85)
    without, with_ = (statistics.median(values) for values in of("rate", "p99_ms"))
    figure = f"commit of an event at {FLOWS_PER_S}/s, p99, as many deleted, {database}"
    table.add(figure, f"{with_:.1f} ms", f"{without:.1f} ms", with_, 20, 10, " ms", higher_is_better=False)
