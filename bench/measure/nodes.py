"""Row `nodes`: three servers on one PostgreSQL against one, all on the same CPU: what sharing costs.

Twice: each server with the connections of the workload, as behind a load balancer that has more senders; and the three
with as many in all as the one, so that each commit holds a third of the facts.
"""

import statistics
import time
from contextlib import ExitStack

from servers import Weir
from settings import NODE_PAIRS, SECONDS, Failed

NODES = 3
CONNECTIONS = 32
# A server hears of another one, and of a changed configuration, with its heartbeat.
ACQUAINTED_S = 3
LONGEST_WINDOW_S = 10


def measure(benchmark):
    rounds = []
    for _ in range(NODE_PAIRS):
        sides = (1, CONNECTIONS), (NODES, NODES * CONNECTIONS), (NODES, CONNECTIONS)
        rounds.append([_flows(benchmark, *side) for side in sides])
    benchmark.complete(rounds)
    for side, figure in (
        (1, f"flows/s of {NODES} servers ÷ 1 on one CPU, {CONNECTIONS} connections each"),
        (2, f"the same, {CONNECTIONS} connections in all"),
    ):
        one, several = (statistics.median(reports[of]["flows_per_s"] for reports in rounds) for of in (0, side))
        ratio = statistics.median(reports[side]["flows_per_s"] / reports[0]["flows_per_s"] for reports in rounds)
        benchmark.table.add(figure, f"{several:.0f}/s", f"{one:.0f}/s", ratio, 0.8, 0.9)


def _flows(benchmark, nodes, connections):
    with ExitStack() as stack:
        servers = [stack.enter_context(Weir("postgres"))]
        while len(servers) < nodes:
            # Every port is one above the last.
            other = Weir("postgres", beside=servers[-1])
            servers.append(stack.enter_context(other))
        time.sleep(ACQUAINTED_S)
        report = benchmark.runs.load(
            servers[0], f"{nodes} node(s), {connections} senders", others=servers[1:],
            connections=connections, crm_keys=True, duration_s=min(SECONDS, LONGEST_WINDOW_S),
        )
        if any(server.metric("weir_events_accepted_total") == 0 for server in servers):
            raise Failed("a server got no events")
        return report
