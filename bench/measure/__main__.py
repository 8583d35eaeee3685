"""Runs the benchmark's rows and prints them as a table. Started by scripts/bench.sh, which builds and sets the environment.

Rows that compare run both sides in turn, each on a fresh store, so that whatever else the machine does hits both; ratios
are medians over such pairs. Standard library only.
"""

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from flows import Benchmark
from settings import BENCH, LOAD_CPU, REPEATS, RESULTS, SECONDS, SERVER_CPU

# Above this load average before the start, something else is using the CPUs.
BUSY_LOAD = 0.7


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "load_average": os.getloadavg()}


def main():
    benchmark = Benchmark()
    known = list(benchmark.rows())
    names = sys.argv[1:] or known
    if names == ["--list"]:
        print("\n".join(known))
        return 0
    if unknown := [name for name in names if name not in known]:
        print(f"unknown rows: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    began = datetime.now(timezone.utc)
    print(f"server on CPU {SERVER_CPU}, load on CPU {LOAD_CPU}, {REPEATS} pairs per row, {SECONDS:g} s each, OTLP export off")
    if os.getloadavg()[0] > BUSY_LOAD:
        print(f"note: other work keeps this machine busy (load {os.getloadavg()[0]:.1f}); figures will be low and uneven")
    try:
        benchmark.run(names)
    finally:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{began:%Y%m%d-%H%M%S}.json"
        result = {"began": began.isoformat(), "machine": machine(), "repeats": REPEATS, "seconds": SECONDS, "otlp": "off",
                  "table": benchmark.table.rows, "runs": benchmark.runs.reports}
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print()
    benchmark.table.print()
    print(f"\nall reports: {file.relative_to(BENCH.parent)}")
    return 1 if any(row[-1] in ("FAILED", "MISSED") for row in benchmark.table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
