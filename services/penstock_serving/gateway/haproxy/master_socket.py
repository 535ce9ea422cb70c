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
    answer = ""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while _LOADED not in answer and _REFUSED not in answer:
                # A master that starts, or starts over, takes no connection for a moment.
                if (taken := await _ask(socket)) is None:
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    answer = taken
    except TimeoutError as error:
        raise Unavailable("HaproxyUnreachable", f"HAProxy's master does not answer at {socket}") from error
    return "" if _LOADED in answer else answer.partition("--")[2].strip() or answer.strip()


async def _ask(socket: Path) -> str | None:
    """What the master says of a reload; None where it took no command."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return None
    try:
        writer.write(b"reload\n")
        await writer.drain()
        return (await reader.read(-1)).decode(errors="replace") or None
    except OSError:
        return None
    finally:
        writer.close()
