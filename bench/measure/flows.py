"""The rows of the hydrate flow: pairs of the bare program and weir, each on a fresh store."""

import statistics

import nodes
import retention
import sleepers
import steps
from load import Runs
from servers import Bare, Weir
from settings import REPEATS, STORE_FLOWS, Failed
from table import Table


class Benchmark:
    def __init__(self):
        self.runs, self.table, self.maximum = Runs(), Table(), None

    def pairs(self, label, bare, weir, **options):
        """REPEATS × (bare, weir), each on a fresh store; gives the pairs of reports, with the disk bytes per flow."""
        pairs = []
        for _ in range(REPEATS):
            pair = []
            for make in (bare, weir):
                with make() as server:
                    empty = server.disk_bytes()
                    report = self.runs.load(server, label, **options)
                    server.stop()
                    flows = report["accepted"] if options.get("ack_only") else report["completed"]
                    report["disk_bytes_per_flow"] = round((server.disk_bytes() - empty) / max(flows, 1))
                    pair.append(report)
            pairs.append(pair)
        return pairs

    def throughput(self, figure, pairs, key, first_bar, goal):
        bare, weir = (statistics.median(pair[side][key] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[1][key] / max(pair[0][key], 1e-9) for pair in pairs)
        self.table.add(figure, f"{weir:.0f}/s", f"{bare:.0f}/s", ratio, first_bar, goal)
        return weir

    def flow(self, database, document, first_bar, goal):
        name = f"{'flow' if document == 'hydrate-flow.yaml' else 'always'} {database}"
        pairs = self.pairs(name, lambda: Bare(database), lambda: Weir(database, document), crm_keys=True)
        self.complete(pairs)
        maximum = self.throughput(f"flows/s, {name}", pairs, "flows_per_s", first_bar, goal)
        if name == "flow sqlite":
            self.maximum = maximum
            self.memory_and_disk(pairs)

    def complete(self, pairs):
        for report in (report for pair in pairs for report in pair):
            if report["lost"] or report["doubled"]:
                raise Failed(f"{report['label']}: {report['lost']} lost, {report['doubled']} doubled without any crash")

    def memory_and_disk(self, pairs):
        def most(side, key):
            return max(pair[side]["memory"][key] or 0 for pair in pairs)

        for figure, key, first_bar, goal in (("memory idle", "idle_rss_mb", 60, 40), ("memory under load", "load_rss_mb", 200, 150)):
            weir, bare = most(1, key), most(0, key)
            self.table.add(figure, f"{weir:.0f} MB", f"{bare:.0f} MB", weir, first_bar, goal, " MB", higher_is_better=False)
        bare, weir = (statistics.median(pair[side]["disk_bytes_per_flow"] for pair in pairs) for side in (0, 1))
        self.table.add("disk per flow", f"{weir:.0f} B", f"{bare:.0f} B", weir / bare, 1.2, 0.8, higher_is_better=False)

    def ack(self):
        pairs = self.pairs("ack", lambda: Bare("sqlite", ack_only=True), lambda: Weir("sqlite", "ack-only.yaml"), ack_only=True)
        self.throughput("accepted/s, ack only", pairs, "accepted_per_s", 0.4, 0.7)

    def own_maximum(self):
        if self.maximum is None:
            with Weir("sqlite") as weir:
                self.maximum = self.runs.load(weir, "own maximum")["flows_per_s"]
        return self.maximum

    def open_loop(self, share, figure, first_bar, goal):
        rate = round(self.own_maximum() * share)
        with Weir("sqlite") as weir:
            report = self.runs.load(weir, f"open {share:.0%}", mode="open", rate=rate, connections=256, crm_keys=True, drain_idle_s=30)
        if report["ack_ms"] is None:
            raise Failed(f"{report['label']}: no webhook that was due in the window got a 2xx: {report['answers']}")
        ack = report["ack_ms"]["p99"]
        refused = sum(count for answer, count in report["answers"].items() if answer == "503")
        self.table.add(f"{figure} ({rate}/s)", f"{ack:.1f} ms", "", ack, first_bar, goal, " ms", higher_is_better=False)
        if share > 1:
            series = report["memory"]["rss_mb_each_half_second"]
            third = max(len(series) // 3, 1)
            growth = statistics.mean(series[-third:]) / max(statistics.mean(series[:third]), 1)
            others = {answer: count for answer, count in report["answers"].items() if answer not in ("200", "503")}
            print(f"    answered 503: {refused / max(report['sent'], 1):.0%}, other answers: {others or 'none'}, lost: {report['lost']}")
            self.table.add("  its memory, last third ÷ first", f"{series[-1]:.0f} MB", "", growth, 1.2, 1.05, higher_is_better=False)

    def light(self):
        pairs = self.pairs("50/s", lambda: Bare("sqlite"), lambda: Weir("sqlite"), mode="open", rate=50, get_delay_ms=0, crm_keys=True)
        bare, weir = (statistics.median(pair[side]["end_to_end_ms"]["p50"] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[1]["end_to_end_ms"]["p50"] / pair[0]["end_to_end_ms"]["p50"] for pair in pairs)
        self.table.add("50/s, end to end p50", f"{weir:.2f} ms", f"{bare:.2f} ms", ratio, 2.5, 1.6, higher_is_better=False)

    def cold(self):
        """First start of a process over a configured store, then a start after kill -9 under load, with a long log."""
        with Weir("sqlite") as weir:
            weir.stop()
            cold = self.start_to_first_flow(weir, "cold start")
            self.runs.load(weir, "before the kill", warm_up_s=0, duration_s=5)
            self.kill_under_load(weir)
            killed = self.start_to_first_flow(weir, "start after kill -9")
        for figure, seconds in (("cold start to the first flow", cold), ("the same after kill -9", killed)):
            self.table.add(figure, f"{seconds:.2f} s", "", seconds, 1.0, 0.3, " s", higher_is_better=False)

    def start_to_first_flow(self, weir, label):
        report = self.runs.load(weir, label, mode="cold-start", run=f"sh {weir.start_script}", duration_s=30)
        if report["cold_start"]["first_flow_ms"] is None:
            raise Failed(f"{label}: no flow was completed within 30 s: {report['answers']}\n{weir.log_tail()}")
        return report["cold_start"]["first_flow_ms"] / 1000

    def kill_under_load(self, weir):
        kill = f"kill -9 $(cat {weir.pid_file})"
        self.runs.load(weir, "killed", warm_up_s=0, run=kill, run_at_s=3, drain_idle_s=1)

    def crash(self, crm_keys):
        """kill -9 and restart in mid-load. What is lost or doubled must be what the product itself reports as unknown."""
        label = "crash, CRM with keys" if crm_keys else "crash, CRM without keys"
        lost = doubled = unknown = unexplained = 0
        for _ in range(REPEATS):
            with Weir("sqlite", crm_keys=crm_keys) as weir:
                # The port and the lock are free only when the process is gone, a moment after the signal.
                gone = "for i in $(seq 500); do kill -0 $p 2>/dev/null || break; sleep 0.01; done"
                restart = f"p=$(cat {weir.pid_file}); kill -9 $p; {gone}; sh {weir.start_script}"
                report = self.runs.load(
                    weir, label, warm_up_s=1, duration_s=30, run=restart, run_at_s=8, drain_idle_s=20, crm_keys=crm_keys
                )
                reported = self.unknown_runs(weir)
                lost += report["lost"]
                doubled += report["doubled"]
                unknown += reported
                unexplained += max(report["lost"] - reported, 0)
        print(f"    {label}: {lost} lost, {doubled} doubled, {unknown} runs reported as unknown, over {REPEATS} crashes")
        self.table.add(f"{label}: lost beyond unknown", str(lost), "", unexplained, 0, 0, higher_is_better=False)
        self.table.add(f"{label}: doubled", str(doubled), "", doubled, 0, 0, higher_is_better=False)

    @staticmethod
    def unknown_runs(weir):
        listed = weir.command("runs", "--status", "failed", "--limit", "1000", "--json")
        return sum("effect_unknown" in line for line in listed.splitlines())

    def store(self):
        with Weir("sqlite") as weir:
            empty = self.runs.load(weir, "empty store")["server_cpu_us_per_flow"]
            while_filling = dict(warm_up_s=0, duration_s=3600, max_flows=STORE_FLOWS)
            self.runs.load(weir, f"filling to {STORE_FLOWS}", **while_filling)
            full = self.runs.load(weir, "big store")["server_cpu_us_per_flow"]
        figure = f"CPU per flow, {STORE_FLOWS} flows stored ÷ empty"
        self.table.add(figure, f"{full:.0f} µs", f"{empty:.0f} µs", full / empty, 1.3, 1.2, higher_is_better=False)

    def rows(self):
        """Name → (figure, function), in the order in which they run."""
        return {
            "flow-sqlite": lambda: self.flow("sqlite", "hydrate-flow.yaml", 0.33, 0.60),
            "flow-postgres": lambda: self.flow("postgres", "hydrate-flow.yaml", 0.33, 0.60),
            "always-sqlite": lambda: self.flow("sqlite", "hydrate-always.yaml", 0.30, 0.55),
            "always-postgres": lambda: self.flow("postgres", "hydrate-always.yaml", 0.30, 0.55),
            "ack": self.ack,
            "open-70": lambda: self.open_loop(0.7, "open loop at 70 %, ack p99", 20, 10),
            "open-200": lambda: self.open_loop(2.0, "open loop at 200 %, p99 of the 2xx", 100, 50),
            "light": self.light,
            "cold": self.cold,
            "crash-keys": lambda: self.crash(crm_keys=True),
            "crash-no-keys": lambda: self.crash(crm_keys=False),
            "store": self.store,
            "steps": lambda: steps.measure(self.table, self.runs.reports),
            "sleepers": lambda: sleepers.measure(self),
            "nodes": lambda: nodes.measure(self),
            "retention": lambda: retention.measure(self.table, self.runs.reports),
        }

    def run(self, names):
        for name in names:
            print(f"\n==> {name}", flush=True)
            try:
                self.rows()[name]()
            except Failed as failure:
                self.table.failed(name, failure)
