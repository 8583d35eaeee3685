"""Runs weir until every kind of unfinished work is on disk, and kills it there. Called by scripts/upgrade-fixture.sh.

usage: upgrade_fixture.py FOLDER DATABASE_URL   (the executable is $WEIR)
"""

import atexit
import hmac
import http.server
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TOKEN = "fixture-admin-token-0123456789"

# Two versions of one workflow: a run stays pinned to the first.
PAUSED = """
kind: Workflow
name: paused
on: { manual: {} }
steps:
  - { id: note, set: { text: "before the pause" } }
  - { id: pause, sleep: 45s }
  - { id: after, call: http.request, connection: crm, with: { method: PUT, path: "/after/VERSION", body: { note: "{{ steps.note.text }}" } } }
"""

DOCUMENTS = """
kind: Connection
name: crm
connector: http
config: { base_url: "UPSTREAM" }
credential: { bearer: { token: crm-token-of-the-fixture } }
---
kind: Connection
name: stripe
connector: stripe
config: { base_url: "UPSTREAM" }
credential: { bearer: { token: sk_test_fixture } }
---
kind: Endpoint
name: orders
connector: generic
verify: { token: { at: "header:X-Orders-Token" } }
secrets: [orders-token-of-the-fixture]
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [whsec_fixture]
---
kind: Workflow
name: done
on: { event: generic.order.placed }
steps:
  - { id: write, call: http.request, connection: crm, with: { method: PUT, path: "/orders/{{ event.data.id }}", body: { size: "{{ event.data.text | length }}" } } }
---
kind: Workflow
name: reading
on: { event: generic.order.read }
steps:
  - { id: look, call: http.request, connection: crm, with: { method: GET, path: "/hang/{{ event.data.id }}" } }
  - { id: write, call: http.request, connection: crm, with: { method: PUT, path: "/read/{{ event.data.id }}", body: { size: "{{ event.data.text | length }}" } } }
---
kind: Workflow
name: hydrating
on: { event: stripe.payment_intent.succeeded, connection: stripe, hydrate: always }
steps:
  - { id: write, call: http.request, connection: crm, with: { method: PUT, path: "/hydrated", body: { id: "{{ event.ref.id }}" } } }
---
kind: Workflow
name: putting
on: { manual: {} }
steps:
  - { id: write, call: http.request, connection: crm, with: { method: PUT, path: /hang/put, body: { a: 1 } } }
---
kind: Workflow
name: blind
on: { manual: {} }
steps:
  - { id: write, call: http.request, connection: crm, with: { method: POST, path: /hang/blind, body: { a: 1 } } }
---
kind: Workflow
name: retrying
on: { manual: {} }
steps:
  - { id: write, call: http.request, connection: crm, retry: { first: 45s }, with: { method: PUT, path: /unavailable, body: { a: 1 } } }
---
kind: Workflow
name: looping
on: { manual: {} }
steps:
  - id: save
    try:
      - id: each
        for_each: "{{ [1, 2, 3, 4, 5] }}"
        as: number
        concurrency: 2
        do:
          - { id: put, call: http.request, connection: crm, with: { method: PUT, path: "{{ '/hang/loop/' if number > 2 else '/loop/' }}{{ number }}", body: { n: "{{ number }}" } } }
    catch:
      - { id: caught, set: { code: "{{ error.code }}" } }
  - id: both
    parallel:
      left: [{ id: a, set: { side: left } }]
      right: [{ id: b, set: { side: right } }]
---
kind: Workflow
name: failing
on: { manual: {} }
steps:
  - { id: write, call: http.request, connection: crm, with: { method: PUT, path: /refuse, body: { a: 1 } } }
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    """Hangs, refuses or agrees by path; counts the requests that hang."""

    protocol_version = "HTTP/1.1"
    hanging = 0
    over = threading.Event()

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if "/hang" in self.path or self.path.startswith("/v1/"):
            Upstream.hanging += 1
            Upstream.over.wait()
            return
        status = 422 if self.path == "/refuse" else 503 if self.path == "/unavailable" else 200
        body = json.dumps({"path": self.path}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass


def wait(what, probe):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"not within 30 s: {what}")


def stripe_hook(url):
    payment = {"id": "pi_fixture", "object": "payment_intent", "amount": 2000, "currency": "eur"}
    now = int(time.time())
    event = {"id": "evt_fixture", "object": "event", "type": "payment_intent.succeeded", "created": now}
    body = json.dumps(event | {"data": {"object": payment}}).encode()
    digest = hmac.digest(b"whsec_fixture", f"{now}.".encode() + body, "sha256").hex()
    request = urllib.request.Request(f"{url}/hooks/main/stripe", body, {"stripe-signature": f"t={now},v1={digest}"})
    return urllib.request.urlopen(request).status


def main():
    folder, database_url = pathlib.Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True)
    weir = os.environ["WEIR"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    upstream = f"http://127.0.0.1:{server.server_address[1]}"

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WEIR_", "OTEL_"))}
    environment |= {
        "WEIR_DATABASE_URL": database_url,
        "WEIR_DATA_FOLDER": str(folder / "weir-data"),
        "WEIR_LISTEN": "127.0.0.1:0",
        "WEIR_MASTER_KEY": KEY,
        "WEIR_ADMIN_TOKEN": TOKEN,
        "WEIR_EGRESS_ALLOW": "127.0.0.0/8",
        "WEIR_NODE": "fixture",
    }
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([weir, "serve"], cwd=folder, env=environment, stdout=log, stderr=log)
    # Also when something below fails: nothing is left running.
    atexit.register(process.kill)
    announced = folder / "weir-data" / "weir.url"
    url = wait("the server says where it listens", lambda: announced.exists() and announced.read_text().strip())
    client = environment | {"WEIR_URL": url, "WEIR_TOKEN": TOKEN}

    def command(*arguments, text=None):
        done = subprocess.run([weir, *arguments], cwd=folder, env=client, input=text, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done.stdout

    def hook(kind, order, text, token="orders-token-of-the-fixture"):
        body = json.dumps({"type": kind, "id": order, "text": text}).encode()
        headers = {"content-type": "application/json", "x-orders-token": token}
        request = urllib.request.Request(f"{url}/hooks/main/orders", body, headers)
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            return error.code

    def runs(*arguments):
        return [json.loads(line) for line in command("runs", "--json", *arguments).splitlines()]

    command("apply", "-f", "-", text=DOCUMENTS.replace("UPSTREAM", upstream) + "---" + PAUSED.replace("VERSION", "1"))
    command("token", "create", "--name", "fixture")
    # Noise does not compress: a body of 64 KiB stands in the table of large values.
    noise = "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=105_000))
    assert hook("order.placed", "small", "x") == 200
    assert hook("order.placed", "other", "y") == 200
    assert hook("order.placed", "forged", "x", token="wrong") == 401
    command("run", "start", "failing")
    wait("two runs succeed", lambda: len(runs("--status", "succeeded")) == 2)
    wait("one run fails", lambda: len(runs("--status", "failed")) == 1)

    for name in ("paused", "retrying", "putting", "blind", "looping"):
        command("run", "start", name)
    command("apply", "-f", "-", text=PAUSED.replace("VERSION", "2"))
    assert hook("order.read", "read-small", "x") == 200
    assert hook("order.read", "read-large", noise) == 200
    assert stripe_hook(url) == 200
    # A put, a blind post, two items of the loop, two reads, one hydration.
    wait("seven calls hang", lambda: Upstream.hanging == 7)
    wait("two runs wait", lambda: len(runs("--status", "waiting")) == 2)
    assert len(runs("--status", "running")) == 6
    process.kill()
    process.wait()


main()
