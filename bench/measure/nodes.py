"""Row `nodes`: three servers on one PostgreSQL against one, all on the same CPU: what sharing costs."""

import statistics
import time
from contextlib import ExitStack

from servers import Weir
from settings import NODE_PAIRS, SECONDS, Failed

NODES = 3
# A server hears of another one, and of a changed configuration, with its heartbeat.
ACQUAINTED_S = 3
LONGEST_WINDOW_S = 10


def measure(benchmark):
    pairs = []
    for _ in range(NODE_PAIRS):
        pairs.append([_flows(benchmark, nodes) for nodes in (1, NODES)])
    benchmark.complete(pairs)
    one, several = (statistics.median(pair[side]["flows_per_s"] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(pair[1]["flows_per_s"] / pair[0]["flows_per_s"] for pair in pairs)
    figure = f"flows/s of {NODES} servers ÷ 1 on one CPU"
    benchmark.table.add(figure, f"{several:.0f}/s", f"{one:.0f}/s", ratio, 0.8, 0.9)


def _flows(benchmark, nodes):
    with ExitStack() as stack:
        servers = [stack.enter_context(Weir("postgres"))]
        while len(servers) < nodes:
            # Every port is one above the last.
            other = Weir("postgres", beside=servers[-1])
            servers.append(stack.enter_context(other))
        time.sleep(ACQUAINTED_S)
        report = benchmark.runs.load(servers[0], f"{nodes} node(s)", others=servers[1:], crm_keys=True, duration_s=min(SECONDS, LONGEST_WINDOW_S))
        if any(server.metric("weir_events_accepted_total") == 0 for server in servers):
            raise Failed("a server got no events")
        return report
