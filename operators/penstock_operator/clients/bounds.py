"""Bounds on exchanges with servers that somebody else runs: seconds in all, bytes as received, no compression, no redirect.

A timeout for each read is no bound: a server that sends one byte every few seconds never meets it. Here the deadline and
the count of bytes are the socket's, so that they hold for the name's lookup, the handshake, headers and body alike.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

import httpcore
import httpx

Lookup = Callable[[str, int], list[Any]]
"""Like `socket.getaddrinfo` of a host and a port. Raises `OSError`."""

IDENTITY: Final[Mapping[str, str]] = {"accept-encoding": "identity"}
"""Asks for what is sent to be what it is: 256 KiB of gzip may be 256 MiB."""

_LOOKUP_SECONDS: Final = 5.0
_CREDENTIALS_IPV6: Final = ip_address("fd00:ec2::254")
_MOST_CONNECTIONS: Final = 32
_IDLE_SECONDS: Final = 5.0
_HEADER_BYTES: Final = 64 * 1024
"""Beside the body: what status line, headers and the chunks' frames may take."""
_FRAMES: Final = 2
"""Bytes on the wire for each of a body: a server may send it in small chunks, each with a frame."""
_MOST_VALUES: Final = 500_000
"""Values in a JSON document."""
_VALUE_BYTES: Final = 150
"""Of memory for each of them once it is read, however short it is written: `[],[],[]`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one exchange may take."""

    seconds: float
    """From the lookup of the name to the last byte of the answer."""
    most_bytes: int
    """Of the answer's body."""
    connect_seconds: float = 3.0
    """To connect to one of the name's addresses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, within its bounds."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is what was asked for. A redirect is not: it is followed nowhere."""
        return 200 <= self.status < 300  # noqa: PLR2004 -- the class of the status

    def quoted(self, most: int = 200) -> str:
        """Its first characters, for a message."""
        return self.content[: 4 * most].decode(errors="replace")[:most]


@dataclass(slots=True)
class _Exchange:
    """What is left to the exchange of this thread."""

    ends: float
    bytes_left: int = 0

    def left(self, timeout: float | None, late: type[Exception]) -> float:
        """Seconds that the next step may take. Raises `late` where there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise late("timed out")
        return left if timeout is None else min(left, timeout)


_exchange: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """All that this thread sends and receives meanwhile is within these bounds."""
    most = _HEADER_BYTES + _FRAMES * bounds.most_bytes
    token = _exchange.set(_Exchange(time.monotonic() + bounds.seconds, most))
    try:
        yield
    finally:
        _exchange.reset(token)


class BoundedClient:
    """A client of one server. Safe for several threads.

    Args:
        base_url: of the server.
        headers: sent with each request.
        transport: sends requests; None: to whatever the URL names.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={**IDENTITY, **headers},
            transport=transport or BoundedTransport(),
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def exchange(
        self,
        method: str,
        path: str,
        bounds: Bounds,
        *,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask, and read the whole answer, whatever its status.

        Raises:
            httpx.HTTPError: there was none within the bounds, or it is compressed.
        """
        given = {**({"content-type": "application/json"} if content is not None else {}), **(headers or {})}
        connecting = min(bounds.connect_seconds, bounds.seconds)
        asked = self._http.build_request(
            method,
            path,
            content=content,
            headers=given,
            timeout=httpx.Timeout(bounds.seconds, connect=connecting),
            extensions=dict(extensions or {}),
        )
        try:
            with bounded(bounds), closing(self._http.send(asked, stream=True)) as response:
                return Answer(response.status_code, response.headers, b"".join(_body(response, bounds.most_bytes)))
        except httpx.ConnectTimeout as error:
            raise httpx.ConnectTimeout(f"no connection within {connecting:g} s") from error
        except httpx.TimeoutException as error:
            raise httpx.ReadTimeout(f"no whole answer within {bounds.seconds:g} s") from error


def _body(response: httpx.Response, most: int) -> Iterator[bytes]:
    """The body as it is received. Raises `httpx.RemoteProtocolError` where it is compressed or too long."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise httpx.RemoteProtocolError(f"the answer is encoded ({encoding[:40]}), which was not asked for")
    told = response.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most and response.request.method != "HEAD":
        raise httpx.RemoteProtocolError(f"the answer is longer than {most} bytes")
    length = 0
    for piece in (response.content,) if response.is_stream_consumed else response.iter_raw():
        length += len(piece)
        if length > most:
            raise httpx.RemoteProtocolError(f"the answer is longer than {most} bytes")
        yield piece


class BoundedTransport(httpx.HTTPTransport):
    """httpx's own, over sockets that keep to the bounds of the exchange.

    Args:
        lookup: finds addresses.
    """

    def __init__(self, lookup: Lookup | None = None) -> None:
        super().__init__(trust_env=False, verify=_trusted())
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trusted(),
            max_connections=_MOST_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_Backend(lookup or addresses),
        )


class _Backend(httpcore.NetworkBackend):
    """Connections whose every step ends when the exchange does."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """The first of the host's addresses that can be connected to; all of them together within the time."""
        del local_address, socket_options  # of no use here
        seconds = _seconds(timeout, httpcore.ConnectTimeout) or _LOOKUP_SECONDS
        ends = _Exchange(time.monotonic() + seconds)
        problem: OSError = OSError(f"{host} has no address")
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            for family, kind, protocol, _, address in self._lookup(host, port):
                if _is_of_the_node(str(address[0])):
                    problem = OSError(f"{address[0]} is an address of the node's own, where no server of others is")
                    continue
                sock = socket.socket(family, kind, protocol)
                try:
                    sock.settimeout(ends.left(None, httpcore.ConnectTimeout))
                    sock.connect(address)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError as error:
                    sock.close()
                    problem = error
                except BaseException:
                    sock.close()
                    raise
                else:
                    return _Stream(sock)
            raise problem


class _Stream(httpcore.NetworkStream):
    """A connection. It may serve many exchanges in turn, and keeps to the bounds of the one that uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, or arrives in time."""
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(_seconds(timeout, httpcore.ReadTimeout))
            received = self._socket.recv(max_bytes)
        exchange = _exchange.get()
        if exchange is not None:
            exchange.bytes_left -= len(received)
            if exchange.bytes_left < 0:
                raise httpcore.ReadError("the answer is longer than was to be expected")
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. A server that takes it byte by byte gains no time."""
        rest = memoryview(buffer)
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            while rest:
                self._socket.settimeout(_seconds(timeout, httpcore.WriteTimeout))
                rest = rest[self._socket.send(rest) :]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                self._socket.settimeout(_seconds(timeout, httpcore.ConnectTimeout))
                return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))
            except BaseException:
                self._socket.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of a connection that waits to be used again, and what httpx tells of it."""
        match info:
            case "socket":
                return self._socket
            case "is_readable":
                return _is_readable(self._socket)
            case "client_addr":
                return self._socket.getsockname()
            case "server_addr":
                return self._socket.getpeername()
            case _:
                return None


def _is_of_the_node(address: str) -> bool:
    """Link-local addresses, and the one in IPv6 that stands beside them: where clouds give a node its credentials."""
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_link_local or ip == _CREDENTIALS_IPV6


def _seconds(timeout: float | None, late: type[Exception]) -> float | None:
    exchange = _exchange.get()
    return timeout if exchange is None else exchange.left(timeout, late)


def _is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: its server has ended it, or spoke unasked."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _translated(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error) or "timed out") from error
    except OSError as error:
        raise failed(error.strerror or str(error)) from error


@cache
def _trusted() -> ssl.SSLContext:
    """For all: to read the authorities takes longer than most requests, and a megabyte each time."""
    return httpx.create_ssl_context(trust_env=False)


@dataclass(slots=True)
class _Search:
    """A lookup that runs, or ran."""

    done: threading.Event = field(default_factory=threading.Event)
    found: list[Any] = field(default_factory=list)
    problem: OSError | None = None


_searches: dict[tuple[str, int], _Search] = {}
_searching = threading.Lock()


def addresses(host: str, port: int) -> list[Any]:
    """`socket.getaddrinfo` with the canonical name, within the exchange's seconds.

    The system's resolver has no deadline, so it is asked in a thread of its own, for each host one at a time.
    """
    with _searching:
        search = _searches.get((host, port))
        if search is None:
            search = _searches[host, port] = _Search()
            threading.Thread(target=_look_up, args=(search, host, port), name="lookup", daemon=True).start()
    if not search.done.wait(_seconds(_LOOKUP_SECONDS, TimeoutError)):
        raise TimeoutError(f"{host}: its name could not be looked up in time")
    if search.problem is not None:
        raise search.problem
    return search.found


def _look_up(search: _Search, host: str, port: int) -> None:
    try:
        search.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except OSError as error:
        search.problem = error
    except UnicodeError as error:
        search.problem = OSError(f"no name of a host: {error}")
    finally:
        with _searching:
            _searches.pop((host, port), None)
        search.done.set()


def read_json(content: bytes) -> Any:
    """A JSON document from somebody else.

    Raises:
        ValueError: it is none, nests too deeply, or has so many values that they would fill the memory.
    """
    weigh(content)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def weigh(content: bytes) -> int:
    """About how many bytes a JSON document takes in memory once it is read.

    Raises:
        ValueError: it has so many values that they would fill the memory.
    """
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if values > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES} values")
    return len(content) + _VALUE_BYTES * values
