"""The servers under test: each with a store and a temporary folder of its own, pinned to the server's CPU."""

import base64
import contextlib
import os
import re
import secrets
import shlex
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from settings import BENCH, BINARIES, POSTGRES_BIN, POSTGRES_URL, SERVER_CPU, Failed

SECRET = "whsec_test"
WEIR_PORT, BARE_PORT = 9801, 9800
READY_WITHIN_S = 60


class Server:
    """A server with a store of its own in a temporary folder. Started through a script, so that a load can restart it."""

    def __init__(self, kind, database, port, beside=None):
        """`beside`: another server, whose PostgreSQL database this one shares."""
        self.kind, self.database, self.port, self.beside = kind, database, port, beside
        self.folder = Path(tempfile.mkdtemp(prefix=f"weir-bench-{kind}."))
        self.pid_file = self.folder / "pid"
        self.start_script = self.folder / "start.sh"
        self.base_url = f"http://127.0.0.1:{port}"
        self.url = self.base_url + "/hooks/main/bench"
        if beside:
            self.database_url = beside.database_url
        elif database == "postgres":
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
        if self.database == "postgres" and not self.beside:
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
        return answers(self.base_url)


class Weir(Server):
    def __init__(self, database, document="hydrate-flow.yaml", crm_keys=True, beside=None, port=WEIR_PORT):
        """A server with a store of its own takes `port`, one beside another the port above that one's."""
        super().__init__("weir", database, beside.port + 1 if beside else port, beside)
        self.token = beside.token if beside else secrets.token_hex(24)
        self.master_key = beside.master_key if beside else base64.b64encode(secrets.token_bytes(32)).decode()
        self.document = document
        self.crm_keys = crm_keys
        environment = {
            "WEIR_DATABASE_URL": self.database_url,
            "WEIR_DATA_FOLDER": str(self.folder),
            "WEIR_LISTEN": f"127.0.0.1:{self.port}",
            "WEIR_NODE": f"bench-{self.port}",
            "WEIR_ADMIN_TOKEN": self.token,
            "WEIR_MASTER_KEY": self.master_key,
            "WEIR_EGRESS_ALLOW": "127.0.0.0/8",
            "WEIR_LOG": "warn",
        }
        self.write_start_script([BINARIES / "weir", "serve"], environment)

    def ready(self):
        return answers(self.base_url + "/readyz", status=200)

    def configure(self):
        if not self.beside:
            lines = (BENCH / self.document).read_text().splitlines(keepends=True)
            self.apply("".join(line for line in lines if self.crm_keys or not line.lstrip().startswith("idempotency:")))

    def apply(self, documents):
        file = self.folder / "documents.yaml"
        file.write_text(documents)
        self.command("apply", "-f", file)

    def metric(self, name):
        """The sum of a metric over its labels; 0 when it has counted nothing."""
        with urllib.request.urlopen(self.base_url + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(name + r"[ {]", line))

    def command(self, *arguments):
        environment = os.environ | {"WEIR_URL": self.base_url, "WEIR_TOKEN": self.token}
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
    command = [POSTGRES_BIN / "psql", POSTGRES_URL.rsplit("/", 1)[0] + "/" + database]
    return subprocess.run([*command, "-XAtqc", statement], check=True, capture_output=True, text=True).stdout.strip()
