"""Connections whose every step ends when the exchange does."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

import httpcore
import httpx

from penstock_operator.clients.bounds import Allowance, present_allowance, seconds_left
from penstock_operator.clients.lookup import LOOKUP_SECONDS, Lookup, addresses

_CREDENTIALS_IPV6: Final = ip_address("fd00:ec2::254")
_MOST_CONNECTIONS: Final = 32
_IDLE_SECONDS: Final = 5.0


class BoundedTransport(httpx.HTTPTransport):
    """httpx's own, over sockets that keep to the bounds of the exchange.

    Args:
        lookup: finds addresses.
        trust: whose certificates servers may have; None: those that the system trusts.
    """

    def __init__(self, lookup: Lookup | None = None, trust: ssl.SSLContext | None = None) -> None:
        context = trust or _trust_authorities()
        super().__init__(trust_env=False, verify=context)
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
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
        seconds = seconds_left(timeout, httpcore.ConnectTimeout) or LOOKUP_SECONDS
        connecting = Allowance(time.monotonic() + seconds)
        problem: OSError = OSError(f"{host} has no address")
        with _translate_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            for family, kind, protocol, _, address in self._lookup(host, port):
                if _is_of_the_node(str(address[0])):
                    problem = OSError(f"{address[0]} is an address of the node's own, where no server of others is")
                    continue
                try:
                    return _Stream(_connect(socket.socket(family, kind, protocol), address, connecting))
                except OSError as error:
                    problem = error
            raise problem


class _Stream(httpcore.NetworkStream):
    """A connection. It may serve many exchanges in turn, and keeps to the bounds of the one that uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, or arrives in time."""
        with _translate_errors(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(seconds_left(timeout, httpcore.ReadTimeout))
            received = self._socket.recv(max_bytes)
        exchange = present_allowance()
        if exchange is not None:
            exchange.receive(len(received), httpcore.ReadError)
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. A server that takes it byte by byte gains no time."""
        rest = memoryview(buffer)
        with _translate_errors(httpcore.WriteTimeout, httpcore.WriteError):
            while rest:
                self._socket.settimeout(seconds_left(timeout, httpcore.WriteTimeout))
                rest = rest[self._socket.send(rest) :]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted."""
        with _translate_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                self._socket.settimeout(seconds_left(timeout, httpcore.ConnectTimeout))
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


def _connect(sock: socket.socket, address: Any, connecting: Allowance) -> socket.socket:
    """A socket, once it is connected; else it is closed."""
    try:
        sock.settimeout(connecting.seconds(None, httpcore.ConnectTimeout))
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_of_the_node(address: str) -> bool:
    """Link-local addresses, and the one in IPv6 that stands beside them: where clouds give a node its credentials."""
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_link_local or ip == _CREDENTIALS_IPV6


def _is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: its server has ended it, or spoke unasked."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _translate_errors(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error) or "timed out") from error
    except OSError as error:
        raise failed(error.strerror or str(error)) from error


@cache
def _trust_authorities() -> ssl.SSLContext:
    """For all: to read the authorities takes longer than most requests, and a megabyte each time."""
    return httpx.create_ssl_context(trust_env=True)  # SSL_CERT_FILE; of proxies it knows nothing
