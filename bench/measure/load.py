"""Runs of the load generator."""

import contextlib
import json
import socket
import subprocess
import time

from servers import SECRET
from settings import BINARIES, LOAD_CPU, POSTGRES_PID_FILE, SECONDS, Failed


UPSTREAM_PORT = 9900


@contextlib.contextmanager
def upstreams():
    """The fake upstreams without load."""
    command = ["taskset", "-c", LOAD_CPU, BINARIES / "weir-load", "--mode", "upstreams", "--url", "http://127.0.0.1:1/"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", UPSTREAM_PORT)):
                    break
                time.sleep(0.02)
            yield
        finally:
            process.stdin.close()


class Runs:
    """All reports of this invocation, in order."""

    def __init__(self):
        self.reports = []

    def load(self, server, label, others=(), **options):
        """One run of the load generator; True stands for a flag without a value. `others` get load too."""
        options = {"duration_s": SECONDS, "warm_up_s": 3} | options
        command = ["taskset", "-c", LOAD_CPU, BINARIES / "weir-load", "--url", server.url, "--secret", SECRET]
        for other in others:
            command += ["--url", other.url]
        command += ["--label", f"{server.kind} {label}", "--pid-file", server.pid_file]
        if server.database == "postgres":
            command += ["--database-pid-file", POSTGRES_PID_FILE]
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
