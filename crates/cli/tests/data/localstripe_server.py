"""Runs localstripe, an independent fake of Stripe, bound to loopback on a free port.

Prints `listening PORT` when it is ready. Remembers every API request and tells them at GET /_config/requests.
"""

import asyncio
import socket
import sys

from aiohttp import web
from localstripe.resources import store
from localstripe.server import app

requests = []


@web.middleware
async def remember(request, handler):
    if request.path.startswith("/v1/"):
        requests.append(
            {
                "method": request.method,
                "path": request.path,
                "query": [[key, value] for key, value in request.query.items()],
                "authorization": request.headers.get("Authorization"),
                "user_agent": request.headers.get("User-Agent"),
            }
        )
    return await handler(request)


async def tell(_request):
    return web.json_response(requests)


async def main():
    # The store would otherwise be written to a file that all runs share.
    store.dump_to_disk = lambda: None
    app.middlewares.insert(0, remember)
    app.router.add_get("/_config/requests", tell)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    print("listening", listener.getsockname()[1], flush=True)
    # Ends when the test closes our standard input, however the test itself ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


asyncio.run(main())
