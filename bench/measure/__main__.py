"""Runs the benchmark's rows and prints them as a table. Started by scripts/bench.sh, which builds and sets the environment.

Each row runs the bare program and weir in turn, each on a fresh store, so that whatever else the machine does
hits both; ratios are medians over such pairs. Standard library only.
"""

import base64
import contextlib
import json
import os
import secrets
import shlex
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
SECRET = "whsec_test"
WEIR_PORT, BARE_PORT = 9801, 9800
READY_WITHIN_S = 60
# Above this load average before the start, something else is using the CPUs.
BUSY_LOAD = 0.7


def setting(name, default):
    return os.environ.get(name) or default


BINARIES = Path(setting("BENCH_BINARIES", "target/dist"))
POSTGRES_URL = setting("BENCH_POSTGRES_URL", "")
REPEATS = int(setting("BENCH_REPEATS", "3"))
SECONDS = float(setting("BENCH_SECONDS", "20"))
STORE_FLOWS = int(setting("BENCH_STORE_FLOWS", "100000"))
SERVER_CPU = setting("BENCH_SERVER_CPU", "0")
LOAD_CPU = setting("BENCH_LOAD_CPU", "1")


class Failed(Exception):
    """A run that proves nothing: the row is reported as failed."""


# ── Servers ─────────────────────────────────────────────────────────────────────────────────────────


class Server:
    """A server with a store of its own in a temporary folder. Started through a script, so that a load can restart it."""

    def __init__(self, kind, database, port):
        self.kind, self.database, self.port = kind, database, port
        self.folder = Path(tempfile.mkdtemp(prefix=f"weir-bench-{kind}."))
        self.pid_file = self.folder / "pid"
        self.start_script = self.folder / "start.sh"
        self.url = f"http://127.0.0.1:{port}/hooks/main/bench"
        if database == "postgres":
            self.database_name = f"{kind}_{secrets.token_hex(4)}"
            psql("postgres", f"CREATE DATABASE {self.database_name}")
            self.database_url = POSTGRES_URL.rsplit("/", 1)[0] + "/" + self.database_name
        else:
            self.database_url = f"sqlite://{self.folder}/store.db"

    def write_start_script(self, command, environment):
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
        self.start_script.write_text(
            f"#!/bin/sh\ncd {self.folder}\n{exports}"
            f"setsid taskset -c {SERVER_CPU} {shlex.join(map(str, command))} >> {self.folder}/log 2>&1 &\n"
            f"echo $! > {self.pid_file}\n"
        )
        self.start_script.chmod(0o755)

    def start(self):
        subprocess.run(["sh", self.start_script], check=True)
        self.wait_until_ready()

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.ready():
                return
            if not self.alive():
                break
            time.sleep(0.02)
        raise Failed(f"{self.kind} did not start:\n{self.log_tail()}")

    def log_tail(self):
        log = self.folder / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""

    def pid(self):
        return int(self.pid_file.read_text())

    def alive(self):
        try:
            return Path(f"/proc/{self.pid()}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
        except (OSError, ValueError):
            return False

    def stop(self, how=signal.SIGTERM):
        if not self.alive():
            return
        os.kill(self.pid(), how)
        deadline = time.monotonic() + 30
        while self.alive():
            if time.monotonic() > deadline:
                how = signal.SIGKILL
                os.kill(self.pid(), how)
            time.sleep(0.02)

    def disk_bytes(self):
        """Size of the store; for SQLite without its log, whose size says only when it was last copied back."""
        if self.database == "postgres":
            psql(self.database_name, "CHECKPOINT")
            return int(psql(self.database_name, "SELECT pg_database_size(current_database())"))
        file = self.folder / "store.db"
        if not self.alive():
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.stat().st_size

    def remove(self):
        self.stop(signal.SIGKILL)
        subprocess.run(["rm", "-rf", self.folder], check=False)
        if self.database == "postgres":
            psql("postgres", f"DROP DATABASE {self.database_name} WITH (FORCE)")

    def __enter__(self):
        try:
            self.start()
            self.configure()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def configure(self):
        pass


class Bare(Server):
    def __init__(self, database, ack_only=False):
        super().__init__("bare", database, BARE_PORT)
        command = [BINARIES / "weir-bare", "--port", self.port, "--database-url", self.database_url, "--secret", SECRET]
        self.write_start_script(command + ["--ack-only"] * ack_only, {})

    def ready(self):
        return answers(f"http://127.0.0.1:{self.port}/")


class Weir(Server):
    def __init__(self, database, document="hydrate-flow.yaml", crm_keys=True):
        super().__init__("weir", database, WEIR_PORT)
        self.token = secrets.token_hex(24)
        self.document = self.folder / document
        lines = (BENCH / document).read_text().splitlines(keepends=True)
        self.document.write_text("".join(line for line in lines if crm_keys or not line.lstrip().startswith("idempotency:")))
        environment = {
            "WEIR_DATABASE_URL": self.database_url,
            "WEIR_DATA_FOLDER": str(self.folder),
            "WEIR_LISTEN": f"127.0.0.1:{self.port}",
            "WEIR_ADMIN_TOKEN": self.token,
            "WEIR_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "WEIR_EGRESS_ALLOW": "127.0.0.0/8",
            "WEIR_LOG": "warn",
        }
        self.write_start_script([BINARIES / "weir", "serve"], environment)

    def ready(self):
        return answers(f"http://127.0.0.1:{self.port}/readyz", status=200)

    def configure(self):
        self.command("apply", "-f", self.document)

    def command(self, *arguments):
        environment = os.environ | {"WEIR_URL": f"http://127.0.0.1:{self.port}", "WEIR_TOKEN": self.token}
        command = [BINARIES / "weir", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder, check=False)
        if done.returncode != 0:
            raise Failed(f"weir {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def answers(url, status=None):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return status in (None, answer.status)
    except urllib.error.HTTPError as error:
        return status in (None, error.code)
    except OSError:
        return False


def psql(database, statement):
    command = [Path(setting("BENCH_POSTGRES_BIN", "/usr/bin")) / "psql", POSTGRES_URL.rsplit("/", 1)[0] + "/" + database]
    return subprocess.run([*command, "-XAtqc", statement], check=True, capture_output=True, text=True).stdout.strip()


# ── Load ────────────────────────────────────────────────────────────────────────────────────────────


class Runs:
    """All reports of this invocation, in order."""

    def __init__(self):
        self.reports = []

    def load(self, server, label, **options):
        """One run of the load generator; True stands for a flag without a value."""
        options = {"duration_s": SECONDS, "warm_up_s": 3} | options
        command = ["taskset", "-c", LOAD_CPU, BINARIES / "weir-load", "--url", server.url, "--secret", SECRET]
        command += ["--label", f"{server.kind} {label}", "--pid-file", server.pid_file]
        if server.database == "postgres":
            command += ["--database-pid-file", os.environ["BENCH_POSTGRES_PID_FILE"]]
        for name, value in options.items():
            if value is not False:
                command += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"weir-load: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        self.reports.append(report)
        self.check(report)
        figures = f"{report['accepted_per_s']:>9.0f} accepted/s {report['flows_per_s']:>8.0f} flows/s"
        ack, end = report["ack_ms"] or {}, report["end_to_end_ms"] or {}
        print(f"    {report['label']:<28} {figures}  ack p50/p99 {ack.get('p50', 0):.1f}/{ack.get('p99', 0):.1f} ms"
              f"  end to end p50/p99 {end.get('p50', 0):.1f}/{end.get('p99', 0):.1f} ms", flush=True)
        return report

    @staticmethod
    def check(report):
        """A wrong body is no speed; a load generator at its own limit measures itself."""
        if report["wrong_bodies"] or report["unknown_paths"]:
            raise Failed(f"{report['label']}: {report['wrong_bodies']} wrong bodies, {report['unknown_paths']} unknown calls")
        if report["mode"] == "Closed" and report["accepted"] == 0:
            raise Failed(f"{report['label']}: nothing was accepted: {report['answers']}")
        if report["load_cpu_percent"] > 95:
            print(f"    note: the load generator used {report['load_cpu_percent']:.0f} % of its CPU")


# ── Rows ────────────────────────────────────────────────────────────────────────────────────────────


class Table:
    def __init__(self):
        self.rows = []

    def add(self, figure, weir, bare, value, first_bar, goal, unit="", higher_is_better=True):
        """`value` is compared with the bars: the ratio to bare, or the figure itself."""
        reached = (lambda bar: value >= bar) if higher_is_better else (lambda bar: value <= bar)
        verdict = "goal" if reached(goal) else "first bar" if reached(first_bar) else "MISSED"
        sign = "≥" if higher_is_better else "≤"
        self.rows.append([figure, weir, bare, f"{value:.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}", f"{sign} {first_bar:g}", f"{sign} {goal:g}", verdict])

    def failed(self, figure, reason):
        self.rows.append([figure, "-", "-", "-", "-", "-", "FAILED"])
        print(f"    {figure}: FAILED: {reason}", flush=True)

    def print(self):
        lines = [["figure", "weir", "bare", "value", "first bar", "goal", "reached"], *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        for number, line in enumerate(lines):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


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
        }

    def run(self, names):
        for name in names:
            print(f"\n==> {name}", flush=True)
            try:
                self.rows()[name]()
            except Failed as failure:
                self.table.failed(name, failure)


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
