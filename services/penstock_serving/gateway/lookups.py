"""Looks up names that tenants choose: of their tokens' issuers, and of the Services by which their models wake.

The system's resolver has no deadline, and who has a domain decides how long its answer takes. So each lookup has a thread of its
own, not one of the few that all of the agent's work shares, and a namespace has few lookups at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

MOST_OF_A_NAMESPACE: Final = 8
MOST: Final = 128
"""At a time. Who asks for a name that is being looked up waits for the same answer."""
_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV

Found = list[Any] | OSError


class _Question(NamedTuple):
    """What is asked of the resolver, and for which loop."""

    loop: asyncio.AbstractEventLoop
    host: str
    port: int | None
    family: int
    flags: int


_namespace: ContextVar[str] = ContextVar("namespace", default="")
_asked: dict[_Question, asyncio.Future[Found]] = {}
_running: Counter[str] = Counter()
_counting = threading.Lock()


@contextlib.contextmanager
def charge_lookups_to(namespace: str) -> Iterator[None]:
    """What is looked up meanwhile counts for this namespace."""
    token = _namespace.set(namespace)
    try:
        yield
    finally:
        _namespace.reset(token)


async def look_up(host: str, port: int | None, *, family: int = socket.AF_UNSPEC, flags: int = 0) -> list[Any]:
    """As `socket.getaddrinfo`, for TCP.

    Raises:
        OSError: there is no such name, or the namespace has too many lookups under way.
    """
    loop = asyncio.get_running_loop()
    question = _Question(loop, host, port, family, flags)
    answer = _asked.get(question)
    if answer is None:
        _reserve(_namespace.get(), host)
        answer = _asked[question] = loop.create_future()
        answer.add_done_callback(lambda _: _asked.pop(question, None))
        asking = threading.Thread(target=_ask, args=(question, answer, _namespace.get()), name="lookup", daemon=True)
        asking.start()
    found = await asyncio.shield(answer)
    if isinstance(found, OSError):
        raise OSError(*found.args)
    return found


def _reserve(namespace: str, host: str) -> None:
    with _counting:
        if _running[namespace] >= MOST_OF_A_NAMESPACE or _running.total() >= MOST:
            raise OSError(errno.EAGAIN, f"{host} is not looked up while so many other names are")
        _running[namespace] += 1


def _ask(question: _Question, answer: asyncio.Future[Found], namespace: str) -> None:
    found: Found
    try:
        found = socket.getaddrinfo(
            question.host, question.port, family=question.family, type=socket.SOCK_STREAM, flags=question.flags
        )
    except OSError as error:
        found = error
    except UnicodeError as error:
        found = OSError(f"no name of a host: {error}")
    with _counting:
        _running[namespace] -= 1
        if not _running[namespace]:
            del _running[namespace]
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        question.loop.call_soon_threadsafe(answer.set_result, found)


class Resolver(AbstractResolver):
    """Has aiohttp look names up so."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `look_up`."""
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=address[1], family=kind, proto=protocol, flags=_NUMERIC
            )
            for kind, _, protocol, _, address in await look_up(host, port, family=family, flags=socket.AI_ADDRCONFIG)
        ]

    async def close(self) -> None:
        """There is nothing to give back."""
