"""HAProxy's runtime API over its Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock.errors import Unavailable
from penstock_serving.gateway.haproxy.config import EDITION
from penstock_serving.gateway.haproxy.plan import AGENT, AUTHORITY, SUCCESSOR, Maps, ObservedServer, ObservedState
from penstock_serving.gateway.haproxy.request_rules import LEAVING
from penstock_serving.gateway.memory import BUFFER_BYTES

_TIMEOUT_SECONDS = 10.0
_BATCH = 50
_FORCED_MAINTENANCE = 0x01
_EXPECTED = ("", "New server registered.", "Server deleted.")
_PROMPT = b"\n> "
_ASK_EDITION = f"get var {EDITION}"
_EDITION_SAID = f"{EDITION}: ".encode()
_NAME, _SERVER, _ADMIN, _WEIGHT = 1, 3, 6, 7


async def execute(socket: Path, commands: Sequence[str], edition: str | None = None) -> str:
    """Run commands in order and return their output.

    Args:
        socket: of HAProxy. About a reload, the old worker and the new one both take connections here.
        commands: to one worker.
        edition: what the worker must run; any other gets no command. None: any worker will do.

    Raises:
        Unavailable: HAProxy does not answer, or another worker did.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                if edition is not None:
                    return await _execute_at(edition, reader, writer, commands)
                writer.write((";".join(commands) + "\n").encode())
                await writer.drain()
                return (await reader.read(-1)).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unavailable("HaproxyUnreachable", f"HAProxy's runtime socket does not answer: {error!r}") from error


async def _execute_at(
    edition: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: Sequence[str]
) -> str:
    """Ask the worker at the other end what it runs, and only then command it: a connection is one worker's to its end."""
    own = await _require_edition(edition, reader, writer)
    # Without a prompt, it ends after this line; what the line ends with tells that all of it was run.
    writer.write(";".join(("prompt", *commands, f"{_ASK_EDITION}\n")).encode())
    await writer.drain()
    output, asked, last = (await reader.read(-1)).rpartition(_EDITION_SAID)
    if not asked or own not in last:
        raise Unavailable("HaproxyUnreachable", "HAProxy's runtime socket closed before all commands were run")
    return output.decode()


async def _require_edition(edition: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Ask the worker at the other end what it runs, with a prompt, by which the connection outlives its line.

    Returns:
        How the worker names this edition.

    Raises:
        Unavailable: it runs another.
    """
    own = f"<{edition}>".encode()
    writer.write(f"prompt;{_ASK_EDITION}\n".encode())
    await reader.readuntil(_PROMPT)
    if own not in await reader.readuntil(_PROMPT):
        raise Unavailable("AnotherWorker", "another worker of HAProxy answered: one is being replaced")
    return own


def portions(commands: Sequence[str]) -> Iterator[Sequence[str]]:
    """Commands in order, as many at a time as HAProxy takes in one line: it must fit into a buffer, with room to spare."""
    portion: list[str] = []
    size = 0
    for command in commands:
        size += len(command) + 1
        if portion and (len(portion) >= _BATCH or size > BUFFER_BYTES // 2):
            yield portion
            portion, size = [], len(command) + 1
        portion.append(command)
    if portion:
        yield portion


async def apply(socket: Path, commands: Sequence[str], edition: str) -> list[str]:
    """Run commands at a worker of this edition and return what HAProxy complained of.

    Raises:
        Unavailable: HAProxy does not answer, or another worker did.
    """
    complaints = []
    for portion in portions(commands):
        output = await execute(socket, portion, edition)
        complaints += [line for line in output.splitlines() if line.strip() not in _EXPECTED]
    return complaints


async def fingerprint_of(socket: Path, file: Path, edition: str) -> str:
    """SHA-1 of the certificate that a worker of this edition took from a file, in capitals; empty where it has none.

    Raises:
        Unavailable: HAProxy does not answer, or another worker did.
    """
    output = await execute(socket, [f"show ssl cert {file}"], edition)
    lines = (line.partition(":") for line in output.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == "SHA1 FingerPrint"), "")


async def exchange_certificate(socket: Path, file: Path, pem: bytes, edition: str) -> str:
    """Give a worker of this edition another certificate in a file's place; connections that are open keep theirs.

    Args:
        socket: of HAProxy.
        file: by which the configuration names the certificate.
        pem: chain and key.
        edition: what the worker must run.

    Returns:
        What HAProxy complained of; empty where it serves by the new one.

    Raises:
        Unavailable: HAProxy does not answer, or another worker did.
    """
    # An empty line ends what is given.
    given = b"\n".join(line for line in pem.splitlines() if line.strip())
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                await _require_edition(edition, reader, writer)
                writer.write(f"set ssl cert {file} <<\n".encode() + given + b"\n\n")
                staged = await reader.readuntil(_PROMPT)
                writer.write(f"commit ssl cert {file}\n".encode())
                committed = await reader.readuntil(_PROMPT)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unavailable("HaproxyUnreachable", f"HAProxy's runtime socket does not answer: {error!r}") from error
    if b"Success!" in committed:
        return ""
    return (staged + committed).decode(errors="replace").strip()


async def announce_leaving(socket: Path) -> None:
    """From now on each answer to a client says that its connection ends with it; see `LEAVING`.

    Raises:
        Unavailable: HAProxy does not answer.
    """
    # One line: the mode is the connection's, and HAProxy ends it after one line.
    await execute(socket, ["experimental-mode on", f"set var {LEAVING} bool(1)"])


async def observe(socket: Path, maps: Maps, edition: str) -> ObservedState:
    """What HAProxy's worker of this edition holds now.

    Raises:
        Unavailable: HAProxy does not answer, or another worker did.
    """
    state, *held = await asyncio.gather(
        execute(socket, ["show servers state"], edition),
        *(
            execute(socket, [f"show map {each}"], edition)
            for each in (maps.entries, maps.locks, maps.grants, maps.usual)
        ),
    )
    return ObservedState(parse_servers(state), *map(parse_map, held))


def parse_servers(output: str) -> dict[str, dict[str, ObservedServer]]:
    """`show servers state` by backend and server; those that stand in the configuration for good are left out."""
    backends: dict[str, dict[str, ObservedServer]] = {}
    for line in output.splitlines():
        fields = line.split()
        if len(fields) <= _WEIGHT or fields[0] == "#":
            continue
        servers = backends.setdefault(fields[_NAME], {})
        if fields[_SERVER] not in (AGENT, AUTHORITY, SUCCESSOR):
            maintenance = bool(int(fields[_ADMIN]) & _FORCED_MAINTENANCE)
            servers[fields[_SERVER]] = ObservedServer(int(fields[_WEIGHT]), maintenance)
    return backends


def parse_map(output: str) -> dict[str, str]:
    """`show map`: value by key."""
    rows = (line.split(" ", 2) for line in output.splitlines() if line.startswith("0x"))
    return {row[1]: row[2] for row in rows}
