"""A small HTTP replica as a process of its own, to be killed: `gateway_replica.py NAME` prints its address."""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web


async def answer(request: web.Request) -> web.Response:
    await request.read()
    await asyncio.sleep(0.01)
    return web.Response(text=json.dumps({"replica": sys.argv[1]}), content_type="application/json")


async def main() -> None:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.sleep(300)


asyncio.run(main())
