"""Webhooks whose senders wait for the answer that the workflow gives (`respond`)."""

import itertools
import json
import time
import urllib.error
import urllib.request

from settings import Failed

TOKEN = "bench-token"
GIVE_UP_S = 300
_numbers = itertools.count(int(time.time() * 1000) * 1000)


def ask(server, kind, poll_from=0.0, **data):
    """Sends an event to the endpoint `scale` and gives its answer, and when that was there (time.time)."""
    body = json.dumps({"id": str(next(_numbers)), "type": kind} | data).encode()
    headers = {"content-type": "application/json", "x-bench-token": TOKEN}
    request = urllib.request.Request(server.base_url + "/hooks/main/scale", body, headers)
    status, answer = _open(request)
    if status == 202:
        address = server.base_url + "/" + json.loads(answer)["answer_url"].split("/", 3)[3]
        give_up = time.time() + GIVE_UP_S
        while status == 202:
            # A server that restarts cannot be asked.
            time.sleep(max(0.02, poll_from - time.time()))
            if time.time() > give_up:
                raise Failed(f"{kind}: no answer within {GIVE_UP_S} s")
            try:
                status, answer = _open(address)
            except OSError:
                status = 202
    if status != 200:
        raise Failed(f"{kind}: answered {status}: {answer[:200]!r}")
    return json.loads(answer), time.time()


def _open(request):
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
