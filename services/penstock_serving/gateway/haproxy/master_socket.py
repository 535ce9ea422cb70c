"""HAProxy's master over its Unix socket: it reloads, and says how that went."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.errors import Unavailable

_TIMEOUT_SECONDS = 20.0
_PAUSE_SECONDS = 0.02
_LOADED, _REFUSED = "Success=1", "Success=0"


async def reload_workers(socket: Path) -> str:
    """Have the master load the configuration on disk: a new worker takes over, the old one finishes what it has.

    A signal would do the same, but the master of HAProxy 2.8 loses one that comes before it is done with the reload
    before; a command waits at its socket.

    Args:
        socket: of the master.

    Returns:
        Why the configuration was not taken; empty where a worker was started with it.

    Raises:
        Unavailable: the master does not say in time.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                answer = await _ask(socket)
                if _LOADED in answer:
                    return ""
                if _REFUSED in answer:
                    return answer.partition("--")[2].strip() or answer.strip()
                # A master that starts, or starts over, takes no connection for a moment.
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError as error:
        raise Unavailable("HaproxyUnreachable", f"HAProxy's master does not answer at {socket}") from error


async def _ask(socket: Path) -> str:
    """What the master says of a reload; nothing where it took no command."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return ""
    try:
        writer.write(b"reload\n")
        await writer.drain()
        return (await reader.read(-1)).decode(errors="replace")
    except OSError:
        return ""
    finally:
        writer.close()
