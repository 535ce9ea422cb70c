"""What a server that somebody else runs can take of the operator: some seconds and some bytes, whatever it answers."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
import pytest
from tests.telling import telling

from penstock_operator.clients.bounds import Bounds, enforce
from penstock_operator.clients.connections import BoundedTransport
from penstock_operator.clients.exchange import BoundedClient, WholeAnswer
from penstock_operator.clients.lookup import addresses
from penstock_operator.clients.ray import PoolUnreachable, RayClient
from penstock_operator.clients.services import ServiceTransport

SHORT: Final = Bounds(seconds=0.5, most_bytes=1000)
AMPLE: Final = Bounds(seconds=60.0, most_bytes=1000)
DRIP_SECONDS: Final = 0.02
OK: Final = b"HTTP/1.1 200 OK\r\n"

Pieces = Callable[[], Iterator[bytes]]


@contextmanager
def server(pieces: Pieces, *, drip: bool) -> Iterator[str]:
    """Answers every request with these pieces, until it is closed; where it drips, slowly."""
    listener, closed = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                for piece in pieces():
                    connection.sendall(piece)
                    if closed.wait(DRIP_SECONDS if drip else 0.0):
                        return
            except OSError:
                pass  # the client has had enough

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closed.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def ask(url: str, bounds: Bounds, transport: httpx.BaseTransport | None = None) -> WholeAnswer:
    client = BoundedClient(url, {}, transport)
    try:
        return client.exchange("GET", "/", bounds)
    finally:
        client.close()


def said(*parts: bytes, then: bytes = b"") -> Pieces:
    """These, and then the last for ever."""
    return lambda: itertools.chain(parts, itertools.repeat(then) if then else ())


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(said(OK + b"content-length: 900\r\n\r\n", then=b" "), id="a body that comes byte by byte"),
        pytest.param(said(OK + b"transfer-encoding: chunked\r\n\r\n", then=b"1\r\n \r\n"), id="chunks of one byte"),
        pytest.param(said(OK + b"x-long: ", then=b"a"), id="a header that comes byte by byte"),
        pytest.param(said(OK, then=b"x-more: 1\r\n"), id="one header after another"),
        pytest.param(said(then=b"HTTP/1.1 102 Processing\r\n\r\n"), id="status after status that says to wait"),
        pytest.param(said(OK + b"content-length: 9\r\n\r\n", then=b""), id="a body that ends too early"),
    ],
)
def test_an_answer_that_drips_is_given_up(pieces: Pieces) -> None:
    with server(pieces, drip=True) as url, pytest.raises(httpx.HTTPError):
        ask(url, SHORT)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        pytest.param(
            said(OK + b"content-length: 1001\r\n\r\n", then=b" " * 1001), "longer than 1000", id="a length that it tells"
        ),
        pytest.param(said(OK + b"\r\n", then=b" " * 500), "longer than 1000", id="a length that it does not tell"),
        pytest.param(
            said(OK + b"transfer-encoding: chunked\r\n\r\n", then=b"1f4\r\n" + b" " * 500 + b"\r\n"),
            "longer than 1000",
            id="chunks without end",
        ),
        pytest.param(
            said(OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 90_000 + b"\r\n \r\n0\r\n\r\n"),
            "longer than|too long|many",
            id="a chunk whose extension is longer than any body",
        ),
        pytest.param(said(OK, then=b"x-more: 1\r\n" * 100), "longer than|too large|many|Receive", id="headers without end"),
        pytest.param(
            said(OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b" " * 900)), "gzip", id="compressed, though asked not to be"
        ),
        pytest.param(said(OK + b"content-encoding: x\r\ncontent-length: 0\r\n\r\n"), "encoded", id="encoded somehow"),
    ],
)  # fmt: skip
def test_an_answer_beyond_its_bounds_is_refused(pieces: Pieces, why: str) -> None:
    with server(pieces, drip=False) as url, pytest.raises(httpx.HTTPError, match=why):
        ask(url, AMPLE)


def test_a_redirect_is_followed_nowhere_and_is_no_success() -> None:
    reply = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\n{}"
    with server(said(reply), drip=False) as url:
        answer = ask(url, AMPLE)
        assert (answer.status, answer.is_success) == (302, False)
        with pytest.raises(PoolUnreachable, match="HTTP 302"):
            RayClient(url, None).version()


def test_a_connection_serves_again_and_one_that_its_server_ends_is_replaced() -> None:
    connections: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(1)
            super().setup()

        def do_GET(self) -> None:  # http.server's name
            self.send_response(200)
            self.send_header("content-length", "2")
            if self.path == "/last":
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        client = BoundedClient(f"http://127.0.0.1:{made.server_address[1]}", {})
        for path in ("/", "/", "/last", "/"):
            assert client.exchange("GET", path, AMPLE).content == b"{}"
        assert len(connections) == 2
        client.close()
        made.shutdown()


def test_a_server_that_takes_a_request_slowly_is_given_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))  # accepts, and reads nothing
    client = BoundedClient(f"http://127.0.0.1:{listener.getsockname()[1]}", {})
    with pytest.raises(httpx.HTTPError):
        client.exchange("PUT", "/", SHORT, content=" " * 50_000_000)
    client.close()
    listener.close()


def test_all_addresses_of_a_name_together_have_the_time_of_one() -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(8)]  # whoever comes next waits for a place
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    tried: list[int] = []

    class Many(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            while len(tried) < 10_000:
                tried.append(1)
                yield (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())

    with pytest.raises(httpx.HTTPError):
        ask("http://many.example", SHORT, BoundedTransport(lambda _host, _port: Many()))
    assert len(tried) < 100
    for each in (*waiting, full):
        each.close()


def test_a_name_whose_lookup_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(60) and [])
    with enforce(SHORT), pytest.raises(TimeoutError, match=telling("slow.example looked up")):
        addresses("slow.example", 80)
    for transport in (BoundedTransport(), ServiceTransport()):
        with pytest.raises(httpx.HTTPError, match=r"slow\.example|0\.5 s"):
            ask("http://slow.example:8265", SHORT, transport)
    ended.set()


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254"])
def test_where_clouds_give_nodes_their_credentials_nobody_is_asked(address: str) -> None:
    found = [(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    with pytest.raises(httpx.ConnectError, match=telling("node's own address")):
        ask("http://ray.example", SHORT, BoundedTransport(lambda _host, _port: found))


def client_that_answers(body: bytes) -> RayClient:
    return RayClient("http://ray", None, httpx.MockTransport(lambda _: httpx.Response(200, content=body)))


NODES = b'{"data": {"result": {"result": [{"node_id": "n", "node_ip": "i", "state": "ALIVE", "resources_total": %s}]}}}'


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param(b"[" * 100_000, "serve", id="JSON that nests without end, of Serve"),
        pytest.param(b"[" * 100_000, "version", id="JSON that nests without end, of Ray"),
        pytest.param(
            b'{"applications": {}, "x": [' + b"[]," * 600_000 + b"1]}", "serve", id="short values without number"
        ),
        pytest.param(b'{"x": [' + b"{}," * 600_000 + b"1]}", "version", id="short values without number, of Ray"),
        pytest.param(b" " * (17 * 2**20), "serve", id="a body that is longer than any list of applications"),
        pytest.param(b"\xff\xfe", "serve", id="bytes that are no text"),
        pytest.param(NODES % b'{"CPU": Infinity}', "nodes", id="a node with infinitely many CPUs"),
        pytest.param(NODES % b'{"CPU": 1e999}', "nodes", id="a node with more CPUs than a number can say"),
        pytest.param(NODES % b'{"CPU": "many"}', "nodes", id="a node with a word for its CPUs"),
        pytest.param(b'{"data": []}', "nodes", id="a list where an object should be"),
        pytest.param(b'{"data": {"result": {"result": 7}}}', "unplaced_actors", id="a number where a list should be"),
        pytest.param(
            b'{"data": {"result": {"result": [7]}}}', "unplaced_actors", id="a number where an actor should be"
        ),
    ],
)
def test_what_ray_cannot_have_said_is_told_in_few_words(body: bytes, what: str) -> None:
    with pytest.raises(PoolUnreachable) as caught:
        getattr(client_that_answers(body), what)()
    assert len(caught.value.message) < 1000


def test_a_long_message_of_serve_is_cut_for_it_goes_into_a_status() -> None:
    message = b"x" * 1_000_000
    body = b'{"applications": {"a": {"name": "a", "status": "DEPLOY_FAILED", "message": "%s"}}}' % message
    assert len(client_that_answers(body).serve().applications["a"].message) == 4000
    assert len(client_that_answers(b'{"ray_version": "%s"}' % message).version()) == 100


def test_free_resources_that_are_no_numbers_count_as_none() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/nodes":
            return httpx.Response(200, json={"data": {"nodeLogicalResources": {"n": "1.2.3/4.0 CPU\n1.0/2.0 GPU"}}})
        return httpx.Response(200, content=NODES % b'{"CPU": 4, "GPU": 2}')

    (node,) = RayClient("http://ray", None, httpx.MockTransport(answer)).nodes()
    assert node.available == {"CPU": 4.0, "GPU": 1.0}
