"""Two real HAProxys, one that decides usual requests at once and one with the careful rules alone, and requests of all kinds."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.ports import free_port

from penstock_serving.gateway.haproxy.config import render_config, render_map
from penstock_serving.gateway.haproxy.plan import DesiredState, desire, list_places
from penstock_serving.gateway.haproxy.process import find_haproxy
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.traffic import LOTS, Arm, Destination, Target

GUARD_SECONDS = 60.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = "b7ad6b7169203331"
_MADE = re.compile(rf"^00-(?P<trace>[0-9a-f]{{32}})-(?!{_PARENT})[0-9a-f]{{16}}-(?P<flags>[0-9a-f]{{2}})$")
_RANDOM = random.Random(20261130)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest().upper()


def state(address: str) -> DesiredState:
    """Models of all kinds, all with one replica but those that sleep, and keys of all kinds."""
    target = (Target("a", address, 256),)
    always, never = 1_000_000, 0
    models = {
        "default/open": never, "default/kept": always, "default/keyed": never, "vision/open": never,
        "vision/keyed": never, "vision/keyed-kept": always, "vision/token": never, "vision/bounded": never,
        "vision/keyed-bounded": never, "vision/undecided": never, "vision/versions": never, "v2x/open": never,
    }  # fmt: skip
    known = {
        path: Destination(target, sampled)
        for model, sampled in models.items()
        for path in (model, f"{model}/1", f"{model}/infer")
    }
    for name, sticky in (("split", False), ("sticky", True)):
        path = f"vision/{name}"
        arms = tuple(Arm(f"{path}#{number}", LOTS // 2, target) for number in range(2))
        known[path] = Destination(target, never, arms, sticky)
    known["vision/asleep"] = Destination((), never)
    guards = {
        "default/keyed": "k|0", "vision/keyed": "k|0", "vision/keyed-kept": "k|0", "vision/token": "j|0",
        "vision/bounded": "-|100000", "vision/keyed-bounded": "k|100000", "vision/undecided": "?|0",
    }  # fmt: skip
    ended, later = int(time.time()) - 10, int(time.time()) + 10_000
    grants = {
        f"vision/{digest('good')}": "key/good|0|0|*",
        f"vision/{digest('')}": "key/empty|0|0|*",
        f"vision/{digest('limited')}": "key/limited|100000|0|*",
        f"vision/{digest('ended')}": f"key/ended|0|{ended}|*",
        f"vision/{digest('ending')}": f"key/ending|0|{later}|*",
        f"vision/{digest('one')}": "key/one|0|0|-",
        f"vision/keyed/{digest('one')}": "key/one|0|0|-",
        f"default/{digest('home')}": "key/home|0|0|*",
        f"vision/{digest('with.dots')}": "key/dots|0|0|*",
        f"vision/{digest('head.claims.signature')}": f"jwt/alice|0|{later}|*",
    }
    slots = {place: number for number, place in enumerate(list_places(known))}
    return desire(known, slots, guards, grants, token=lambda path, _: f"token-of-{path.replace('/', '-')}")


@dataclass
class Seen:
    """What became of one request."""

    status: int
    answered: dict[str, str]
    asked: dict[str, Any] = field(default_factory=dict)
    """What the replica, or the agent, was asked; empty where HAProxy answered."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str) -> None:
    """Answer each request with all that came."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = [line.split(": ", 1) if ": " in line else [line.rstrip(":"), ""] for line in head[1:] if line]
            named = {name.lower(): value for name, value in headers}
            size = int(named.get("content-length", 0))
            body = await reader.readexactly(size) if size else b""
            while named.get("transfer-encoding") == "chunked" and not body.endswith(b"0\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
            told = {"who": who, "line": head[0], "headers": headers, "body": body.decode("latin-1")}
            answer = json.dumps(told).encode()
            sent = b"" if head[0].startswith("HEAD ") else answer
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + sent)
            if named.get("x-hang"):
                await asyncio.sleep(GUARD_SECONDS)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@dataclass
class Balancer:
    """One HAProxy."""

    port: int
    process: asyncio.subprocess.Process
    log: Path

    async def ask(self, request: bytes) -> Seen:
        """Send bytes over a connection of their own."""
        async with asyncio.timeout(GUARD_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                answered = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                size = 0 if request.startswith(b"HEAD ") else int(answered.get("content-length", 0))
                body = await reader.readexactly(size)
            finally:
                writer.close()
        told = json.loads(body) if body.startswith(b'{"who"') else {}
        if told:
            answered.pop("content-length")
        return Seen(
            int(head[0].split()[1]), answered, _without_chance(told) if told else {"body": body.decode("latin-1")}
        )

    def usual(self, *, traced: bool) -> int:
        """How many requests so far were decided at once, with a trace or without: those of a replica whose line has no key."""
        found = [each[4] != "-" for each in self._lines() if each[6] == "-" and each[7][:1] in "mw"]
        return found.count(traced)

    def contexts(self) -> Counter[str]:
        """What the log says of traces, made-up ids replaced by whether they are there."""
        return Counter("/".join(self._known(each[4])) for each in self._lines())

    def _lines(self) -> list[list[str]]:
        fields = [line.split(" ") for line in self.log.read_text(encoding="latin-1").splitlines()]
        return [each for each in fields if len(each) > 7]

    def _known(self, context: str) -> list[str]:
        return [part if part in (TRACE, _PARENT) or len(part) < 3 else "made" for part in context.split("/")]


def _without_chance(told: dict[str, Any]) -> dict[str, Any]:
    """What was asked, made-up ids replaced by whether they are there."""
    headers = []
    for name, value in told["headers"]:
        made = _MADE.match(value) if name == "traceparent" else None
        shown = f"{TRACE if made['trace'] == TRACE else 'made'} {made['flags']}" if made else value
        headers.append((name, shown))
    # HAProxy appends what it adds in the order of its rules, which says nothing.
    return {**told, "headers": sorted(headers)}


@asynccontextmanager
async def balancers(
    folder: Path,
    more: Callable[[GatewaySettings], GatewaySettings] = lambda settings: settings,
    change: Callable[[DesiredState], DesiredState] = lambda wanted: wanted,
    rewrite: Callable[[str], str] = lambda text: text,
) -> AsyncIterator[tuple[Balancer, Balancer]]:
    """One that decides usual requests at once and one that does not, before the same replica.

    Args:
        folder: for their files, with a short path.
        more: settings of both.
        change: spoils what the first holds.
        rewrite: spoils its configuration.
    """
    servers: list[asyncio.Server] = []
    made: list[Balancer] = []
    try:
        replica = await asyncio.start_server(lambda r, w: _echo(r, w, "replica"), "127.0.0.1", 0, limit=1 << 20)
        servers.append(replica)
        wanted = state(f"127.0.0.1:{replica.sockets[0].getsockname()[1]}")
        for name, held in (("fast", change(wanted)), ("careful", replace(wanted, usual={}))):
            settings = more(GatewaySettings(secret="s", state_dir=folder / name, port=free_port()))
            text = _write(settings, held)
            if name == "fast":
                settings.layout.config.write_text(rewrite(text))
            agent = str(settings.layout.agent_socket)
            servers.append(await asyncio.start_unix_server(lambda r, w: _echo(r, w, "agent"), agent, limit=1 << 20))
            made.append(await _start(settings))
        yield made[0], made[1]
    finally:
        for each in made:
            each.process.kill()
            await each.process.wait()
        for server in servers:
            server.close()


def _write(settings: GatewaySettings, held: DesiredState) -> str:
    layout = settings.layout
    layout.run.mkdir(parents=True)
    text = render_config(settings, 64, held, "e")
    layout.config.write_text(text)
    for file, rows in (
        (layout.map, held.entries), (layout.locks, held.locks), (layout.grants, held.grants), (layout.usual, held.usual),
    ):  # fmt: skip
        file.write_text(render_map(rows))
    return text


async def _start(settings: GatewaySettings) -> Balancer:
    log = settings.layout.run / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(find_haproxy(settings)), "-db", "-f", str(settings.layout.config), stdout=output
        )
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return Balancer(settings.port, process, log)


_PATHS = (
    "/v2/models/open/infer", "/v2/models/kept/infer", "/v2/models/keyed/infer", "/v2/models/open/versions/1/infer",
    "/default/v2/models/open/infer", "/default/v2/models/kept/versions/1/infer", "/vision/v2/models/open/infer",
    "/vision/v2/models/keyed/infer", "/vision/v2/models/keyed/versions/1/infer", "/vision/v2/models/keyed-kept/infer",
    "/vision/v2/models/token/infer", "/vision/v2/models/bounded/infer", "/vision/v2/models/keyed-bounded/infer",
    "/vision/v2/models/undecided/infer", "/vision/v2/models/versions/infer", "/vision/v2/models/split/infer", "/vision/v2/models/sticky/infer",
    "/vision/v2/models/versions/versions/infer/infer", "/v2x/v2/models/open/infer", "/vision/v2/models/asleep/infer",
)  # fmt: skip
_OTHERS = (
    "/", "//", "/v2", "/v2/", "/v2/health/live", "/vision/v2", "/nowhere", "/v2/models/none/infer", "/v2/models//infer",
    "//v2/models/open/infer", "/v2/v2/models/open/infer", "/vision/v2/models/open/versions/2/infer", "*",
    "/v2/models/open", "/v2/models/open/ready", "/vision/v2/models/keyed/ready", "/vision/v2/models/keyed/other",
)  # fmt: skip


def _spell(path: str) -> Iterator[str]:
    """A path as it is, and as others may write it."""
    yield from (path, path + "?a=b", path + "?", path + "/", path + "//", path + "#x", "/" + path, path.upper())
    for place in range(1, len(path), 3):
        yield f"{path[:place]}%{ord(path[place]):02x}{path[place + 1 :]}"
        yield f"{path[:place]}/{path[place:]}"
    for dots in ("/.", "/x/..", "/..", "//"):
        yield path.replace("/models/", f"{dots}/models/")
        yield dots + path
    yield from (path.replace("/", "%2f"), path.replace("/infer", "%2Finfer"), path.replace("/infer", ";x/infer"))
    yield from (f"http://other{path}", f"http://other{path}?a=/v2/models/open/infer", path + "%00", path + "\x7f")


_CREDENTIALS: tuple[tuple[str, ...], ...] = (
    (), ("Authorization: Bearer good",), ("authorization: bEaReR good",), ("X-API-Key: good",), ("x-api-key: good, other",),
    ("Authorization: Bearer  good",), ("Authorization: Bearer good ",), ("Authorization: Bearer\tgood",),
    ("Authorization: Bearer",), ("Authorization: Bearer ",), ("X-API-Key:",), ("Authorization:",),
    ("Authorization: Basic Z29vZA==",), ("Authorization: Basic Z29vZA==", "X-API-Key: good"),
    ("Authorization: Bearer bad",), ("Authorization: Bearer bad", "X-API-Key: good"), ("Authorization: Bearer ", "X-API-Key: good"),
    ("Authorization: Bearer good", "X-API-Key: bad"), ("X-API-Key: bad", "X-API-Key: good"), ("X-API-Key: good", "X-API-Key: bad"),
    ("Authorization: Bearer good", "Authorization: Bearer bad"), ("Authorization: Bearer bad", "Authorization: Bearer good"),
    ("Authorization: Bearer limited",), ("Authorization: Bearer ended",), ("Authorization: Bearer ending",),
    ("Authorization: Bearer one",), ("Authorization: Bearer home",), ("Authorization: Bearer a.b.c",), ("X-API-Key: a.b.c",),
    ("Authorization: Bearer with.dots",), ("X-API-Key: with.dots",), ("Authorization: Bearer head.claims.signature",),
    (f"Authorization: Bearer {digest('good')}",), (f"Authorization: Bearer {digest('good')}@vision",),
)  # fmt: skip
_TRACEPARENTS = (
    f"01-{TRACE}-{_PARENT}-01", f"01-{TRACE}-{_PARENT}-01-more", f"00-{TRACE}-{_PARENT}-01-more", f"ff-{TRACE}-{_PARENT}-01",
    f"00-{'0' * 32}-{_PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{_PARENT}-01", f"00-{TRACE}-{_PARENT}-1",
    f"00-{TRACE}-{_PARENT}-0g", f"00-{TRACE[1:]}-{_PARENT}-01", f"00-{TRACE}-{_PARENT}-01 ", f" \t00-{TRACE}-{_PARENT}-01",
    f"00-{TRACE}-{_PARENT}-01, 00-{TRACE}-{_PARENT}-01", f"01-{TRACE}-{_PARENT}-01-a, b", f"00-{TRACE}-{_PARENT}-01;x",
    f"0-{TRACE}-{_PARENT}-01", f"00-{TRACE}-{_PARENT}", f"00-{TRACE}{_PARENT}01", "-", "---", f"00-{TRACE}-{_PARENT}-01\x7f",
)  # fmt: skip
"""Of callers' traces, those that are right and others."""
_HEADERS: tuple[tuple[str, ...], ...] = (
    (), ("X-Penstock-Caller: key/root",), ("x-penstock-gateway: default/token", "x-penstock-caller: key/good"),
    ("x-penstock-credential: x", "X-PENSTOCK-SOURCE: 1.2.3.4"), ("X-Penstock-Gateway: a", "X-Penstock-Gateway: b"),
    (f"traceparent: 00-{TRACE}-{_PARENT}-01",), (f"traceparent: 00-{TRACE}-{_PARENT}-00", "tracestate: v=1"),
    ("tracestate: v=1",), ("traceparent: nonsense", "tracestate: v=1"), ("traceparent:",), ("tracestate:",),
    (f"traceparent: 00-{TRACE}-{_PARENT}-01", f"traceparent: 00-{TRACE}-{_PARENT}-00"), ("x-mark: 1", "X-Mark: 2"),
    *((f"TraceParent: 00-{TRACE}-{_PARENT}-{flags}", "tracestate: a=b", "tracestate: c=d") for flags in ("02", "03", "fe", "ff")),
    *((f"traceparent: {text}",) for text in _TRACEPARENTS),
    ("traceresponse: 00-x",), ("expect: 100-later",), ("x-forwarded-for: 1.2.3.4",), ("cookie: a=b",),
)  # fmt: skip
_TRACED = (f"traceparent: 00-{TRACE}-{_PARENT}-01",)
_METHODS = ("POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "FETCH")
_BODIES: tuple[tuple[tuple[str, ...], bytes], ...] = (
    (("content-length: 2",), b"{}"), (("content-length: 0",), b""), ((), b""), (("content-length: 1000",), b"x" * 1000),
    (("content-length: 1001",), b"x" * 1001), (("transfer-encoding: chunked",), b"2\r\n{}\r\n0\r\n\r\n"),
)  # fmt: skip
MAX_BODY_BYTES = 1000
_CALLED = (
    "open",
    "kept",
    "vision/open",
    "vision/keyed",
    "vision/keyed-kept",
    "vision/bounded",
    "vision/asleep",
    "vision/none",
    "",
)
"""Models that calls of gRPC are for."""


def _calls() -> Iterator[tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], bytes]]]:
    """Each model with every header, and with some of the credentials, by a message that says its name."""
    for name, more in itertools.product(_CALLED, _HEADERS):
        message = b"\x0a%c%b" % (len(name), name.encode())
        body = b"\0" + len(message).to_bytes(4, "big") + message
        for keys in ((), ("Authorization: Bearer good",), ("X-API-Key: bad",)):
            asked = "/inference.GRPCInferenceService/ModelInfer"
            yield "POST", asked, keys, more, ((f"content-length: {len(body)}", "content-type: application/grpc"), body)


def requests(count: int) -> list[bytes]:
    """Every path with every credential and every header, every spelling of every path, and a mixture of all."""
    good = ("Authorization: Bearer good",)
    plain = _BODIES[0]
    kinds = [
        *(("POST", path, keys, (), plain) for path, keys in itertools.product(_PATHS, _CREDENTIALS)),
        *(("POST", path, keys, _TRACED, plain) for path, keys in itertools.product(_PATHS, _CREDENTIALS)),
        *(("POST", path, good, more, plain) for path, more in itertools.product(_PATHS, _HEADERS)),
        *(("POST", path, good, (), plain) for each in _PATHS for path in _spell(each)),
        *(("POST", path, keys, (), plain) for path in _OTHERS for keys in ((), good)),
        *_calls(),
        *((method, path, good, (), body) for method in _METHODS for path in _PATHS for body in _BODIES),
    ]
    for _ in range(count):
        path = _RANDOM.choice(_PATHS)
        kinds.append(
            (
                _RANDOM.choice(_METHODS), _RANDOM.choice((path, path, _RANDOM.choice(list(_spell(path))))),
                _RANDOM.choice(_CREDENTIALS), _RANDOM.choice(_HEADERS), _RANDOM.choice(_BODIES),
            )
        )  # fmt: skip
    return [_render(*kind) for kind in kinds]


def _render(
    method: str, path: str, keys: tuple[str, ...], more: tuple[str, ...], body: tuple[tuple[str, ...], bytes]
) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: gateway", *keys, *more, *body[0])
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body[1]
