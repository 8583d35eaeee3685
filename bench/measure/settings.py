"""What the environment sets, with the defaults that scripts/bench.sh documents."""

import os
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
RESULTS = BENCH / "results"


def setting(name, default):
    return os.environ.get(name) or default


BINARIES = Path(setting("BENCH_BINARIES", "target/dist"))
POSTGRES_URL = setting("BENCH_POSTGRES_URL", "")
POSTGRES_BIN = Path(setting("BENCH_POSTGRES_BIN", "/usr/bin"))
POSTGRES_PID_FILE = setting("BENCH_POSTGRES_PID_FILE", "")
REPEATS = int(setting("BENCH_REPEATS", "3"))
SECONDS = float(setting("BENCH_SECONDS", "20"))
STORE_FLOWS = int(setting("BENCH_STORE_FLOWS", "100000"))
SLEEPERS = int(setting("BENCH_SLEEPERS", "100000"))
NODE_PAIRS = int(setting("BENCH_NODE_PAIRS", "5"))
RETAINED_FLOWS = int(setting("BENCH_RETAINED_FLOWS", "100000"))
SERVER_CPU = setting("BENCH_SERVER_CPU", "0")
LOAD_CPU = setting("BENCH_LOAD_CPU", "1")


class Failed(Exception):
    """A run that proves nothing: the row is reported as failed."""
