"""HAProxy's runtime API over its Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from penstock.errors import Unavailable
from penstock_serving.gateway.config import LEAVING
from penstock_serving.gateway.plan import AGENT, Maps, Observed, ObservedServer

_TIMEOUT_SECONDS = 10.0
_BATCH = 50
_FORCED_MAINTENANCE = 0x01
_EXPECTED = ("", "New server registered.", "Server deleted.")
_NAME, _SERVER, _ADMIN, _WEIGHT = 1, 3, 6, 7


async def execute(socket: Path, commands: Sequence[str]) -> str:
    """Run commands in order and return their output.

    Raises:
        Unavailable: HAProxy does not answer.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write((";".join(commands) + "\n").encode())
                await writer.drain()
                return (await reader.read(-1)).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise Unavailable("HaproxyUnreachable", f"HAProxy's runtime socket does not answer: {error!r}") from error


async def apply(socket: Path, commands: Sequence[str]) -> list[str]:
    """Run commands and return what HAProxy complained of.

    Raises:
        Unavailable: HAProxy does not answer.
    """
    complaints = []
    for start in range(0, len(commands), _BATCH):
        output = await execute(socket, commands[start : start + _BATCH])
        complaints += [line for line in output.splitlines() if line.strip() not in _EXPECTED]
    return complaints


async def announce_leaving(socket: Path) -> None:
    """From now on each answer to a client says that its connection ends with it; see `LEAVING`.

    Raises:
        Unavailable: HAProxy does not answer.
    """
    # One line: the mode is the connection's, and HAProxy ends it after one line.
    await execute(socket, ["experimental-mode on", f"set var {LEAVING} bool(1)"])


async def observe(socket: Path, maps: Maps) -> Observed:
    """What HAProxy holds now.

    Raises:
        Unavailable: HAProxy does not answer.
    """
    state, entries, locks, grants = await asyncio.gather(
        execute(socket, ["show servers state"]),
        *(execute(socket, [f"show map {each}"]) for each in (maps.entries, maps.locks, maps.grants)),
    )
    return Observed(parse_servers(state), parse_map(entries), parse_map(locks), parse_map(grants))


def parse_servers(output: str) -> dict[str, dict[str, ObservedServer]]:
    """`show servers state` by backend and server; the agent, which every backend has, is left out."""
    backends: dict[str, dict[str, ObservedServer]] = {}
    for line in output.splitlines():
        fields = line.split()
        if len(fields) <= _WEIGHT or fields[0] == "#":
            continue
        servers = backends.setdefault(fields[_NAME], {})
        if fields[_SERVER] != AGENT:
            maintenance = bool(int(fields[_ADMIN]) & _FORCED_MAINTENANCE)
            servers[fields[_SERVER]] = ObservedServer(int(fields[_WEIGHT]), maintenance)
    return backends


def parse_map(output: str) -> dict[str, str]:
    """`show map`: value by key."""
    rows = (line.split(" ", 2) for line in output.splitlines() if line.startswith("0x"))
    return {row[1]: row[2] for row in rows}
