"""Row `nodes`: three servers on one PostgreSQL against one, all on the same CPU: what sharing costs.

Twice: each server with the connections of the workload, as behind a load balancer that has more senders; and the three
with as many in all as the one, so that each commit holds a third of the facts.

One server and three are up at the same time, each side with a database of its own, and get load by turns in short windows:
the speed of a machine that is shared changes within seconds, and so changes for both.
"""

import statistics
import time
from contextlib import ExitStack

from servers import WEIR_PORT, Weir
from settings import NODE_PAIRS, SECONDS, Failed

NODES = 3
CONNECTIONS = 32
# A server hears of another one, and of a changed configuration, with its heartbeat.
ACQUAINTED_S = 3
# Windows of each side in a pair.
TURNS = 4
LONGEST_WINDOW_S = 3
# Connections are made, and batches are full, long before.
WARM_UP_S = 1


def measure(benchmark):
    with ExitStack() as stack:
        one = [stack.enter_context(Weir("postgres"))]
        # Every port is one above the last.
        several = [stack.enter_context(Weir("postgres", port=WEIR_PORT + 1))]
        while len(several) < NODES:
            several.append(stack.enter_context(Weir("postgres", beside=several[-1])))
        time.sleep(ACQUAINTED_S)
        sides = (one, CONNECTIONS), (several, NODES * CONNECTIONS), (several, CONNECTIONS)
        pairs = [_pair(benchmark, sides) for _ in range(NODE_PAIRS)]
        if any(server.metric("weir_events_accepted_total") == 0 for server in one + several):
            raise Failed("a server got no events")
    for side, figure in (
        (1, f"flows/s of {NODES} servers ÷ 1 on the same CPU, {CONNECTIONS} connections each"),
        (2, f"the same, {CONNECTIONS} connections in all"),
    ):
        alone, together = (statistics.median(pair[of] for pair in pairs) for of in (0, side))
        ratios = [pair[side] / pair[0] for pair in pairs]
        print(f"    {figure}: " + " · ".join(f"{ratio:.2f}" for ratio in ratios))
        benchmark.table.add(figure, f"{together:.0f}/s", f"{alone:.0f}/s", statistics.median(ratios), 0.8, 0.9)


def _pair(benchmark, sides):
    """Flows/s of each side over its windows, which come in turn, there and back."""
    rates = [[] for _ in sides]
    for turn in range(TURNS):
        order = list(enumerate(sides))
        for place, (servers, connections) in order if turn % 2 == 0 else reversed(order):
            report = benchmark.runs.load(
                servers[0], f"{len(servers)} node(s), {connections} senders", others=servers[1:],
                connections=connections, crm_keys=True,
                duration_s=min(SECONDS, LONGEST_WINDOW_S), warm_up_s=WARM_UP_S,
            )
            benchmark.complete([[report]])
            rates[place].append(report["flows_per_s"])
    return [statistics.mean(of) for of in rates]
