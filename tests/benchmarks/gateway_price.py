"""What the gateway costs beside the least that HAProxy can do, and the whole path beside the replica's own socket; interleaved.

The least configuration forwards to the replica and does nothing else; with one map, it finds the backend by the path. All subjects
have the same replica, a real one, but for those of other namespaces, of which one is reached over TLS: replicas know their
namespace, so they have others of the same model. CPU is that of HAProxy's processes, and of all processes that serve: HAProxy, agent, replica.
What may be asked for (docs/adr/0013) is judged by the least of all rounds: what others do on the machine only adds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop
from tests.benchmarks import parts, processes, report
from tests.benchmarks.load import drive_groups
from tests.integration.replica_process import fresh_replica as replica
from tests.ports import free_ports

from penstock.routing.tokens import admin_token, replica_token
from penstock_runtime.authority import PlatformAuthority
from penstock_serving.gateway.haproxy.process import find_haproxy
from penstock_serving.gateway.settings import GatewaySettings

CONNECTIONS, KEYS = (1, 16, 64), 1000
_WARM_SECONDS = 0.3
SOCKET, LEAST, MAPPED = "the replica's own socket", "least configuration", "least with one map"
OPEN, KEYED, TRACED = "gateway, open", "gateway, a key", "gateway, open, caller has a trace"
ENCRYPTED = "gateway, open, TLS to the replica"
KEY = f"pk_{7:043d}"
_HAPROXY, _WHOLE = "haproxy_us", "whole_us"
_BARS = (
    ("HAProxy's CPU, an open model", OPEN, _HAPROXY, 1.25),
    ("HAProxy's CPU, a key", KEYED, _HAPROXY, 1.4),
    ("all CPU, an open model, before the same replica", OPEN, _WHOLE, 1.25),
)
"""What is judged, at the connections of `_JUDGED`: whose figure, and how many times the least with a map it may be."""
_JUDGED = (16, 64)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something that answers."""

    name: str
    url: str
    haproxy: tuple[int, ...]
    serving: tuple[int, ...]
    headers: tuple[tuple[str, str], ...] = ()


def least(port: int, address: str, routes: Path | None) -> str:
    """The least that proxies; with a map, where one is named."""
    chosen = f"use_backend %[path,map_str({routes})]" if routes else "default_backend m0"
    return f"""global
  maxconn 4160
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 600s
  http-reuse always
frontend clients
  bind 127.0.0.1:{port}
  {chosen}
backend m0
  balance leastconn
  server a {address}
"""


@contextmanager
def least_haproxy(folder: Path, address: str, *, mapped: bool) -> Iterator[Subject]:
    """HAProxy with the least configuration."""
    folder.mkdir()
    (port,) = free_ports(1)
    path = "/v2/models/tiny/infer"
    routes = folder / "routes.map"
    routes.write_text(f"{path} m0\n")
    config = folder / "haproxy.cfg"
    config.write_text(least(port, address, routes if mapped else None))
    binary = find_haproxy(GatewaySettings(secret="-", state_dir=folder))
    with parts.process([str(binary), "-db", "-f", str(config)], folder / "log") as child:
        url = f"http://127.0.0.1:{port}"
        parts.until(
            "HAProxy", lambda: parts.http_json(f"{url}{path[: -len('/infer')]}") if not mapped else _listens(port)
        )
        yield Subject(MAPPED if mapped else LEAST, url + path, (child.pid,), (child.pid,))


def _listens(port: int) -> bool:
    return any(f":{port:04X} " in line for line in Path("/proc/net/tcp").read_text().splitlines())


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, and publish `gateway-price`; 1 where the gateway costs more than it may."""
    parser = argparse.ArgumentParser(prog="gateway-price", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    given = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        body = home / "body.json"
        body.write_bytes(parts.request_body())
        model = parts.dense_model(home / "tiny" / "model.onnx", (64, 10))
        serving = stack.enter_context(replica(model, {"OTEL_SDK_DISABLED": "true"}))
        (tls_port,) = free_ports(1)
        over_tls = ("--control-tls-port", str(tls_port))
        edge = stack.enter_context(parts.gateway(home / "gateway", {"OTEL_SDK_DISABLED": "true"}, over_tls))
        told = {
            "namespace": "tls", "replica_id": "tls", "gateways": (f"https://127.0.0.1:{tls_port}",),
            "registration_token": replica_token(edge.secret, "tls", "tiny"),
            "gateway_authority": PlatformAuthority(edge.secret).pem,
        }  # fmt: skip
        secured = stack.enter_context(replica(model, {"OTEL_SDK_DISABLED": "true"}, **told))
        parts.until("the replica over TLS", lambda: edge.receiving("tls", "tiny"))
        closed = stack.enter_context(replica(model, {"OTEL_SDK_DISABLED": "true"}, namespace="closed"))
        addresses = {"default": serving.address, "closed": closed.address}
        subjects = [
            stack.enter_context(least_haproxy(home / str(mapped), serving.address, mapped=mapped))
            for mapped in (False, True)
        ]
        subjects += _through(edge, addresses)
        own = (serving.process.pid,)
        others = {ENCRYPTED: secured.process.pid, KEYED: closed.process.pid}
        subjects = [
            dataclasses.replace(each, serving=(*each.serving, others.get(each.name, serving.process.pid)))
            for each in subjects
        ]
        subjects.append(Subject(SOCKET, f"{serving.url}/v2/models/tiny/infer", (), own))
        for pid in {pid for each in subjects for pid in each.serving}:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {min(os.sched_getaffinity(0))})
        results = _measure(subjects, body, edge, addresses, given)
    return publish(results, given)


def _through(edge: parts.GatewayProcess, addresses: Mapping[str, str]) -> list[Subject]:
    """The gateway's subjects: models that anyone may ask, one of them over TLS, and one with many keys."""
    digests = [hashlib.sha256(f"pk_{number:043d}".encode()).hexdigest() for number in range(KEYS)]
    keys = [{"name": f"k{number}", "sha256": digest} for number, digest in enumerate(digests)]
    anyone = {"required": False}
    for namespace, access in (("default", anyone), ("tls", anyone), ("closed", {"required": True, "keys": keys})):
        route = {"namespace": namespace, "model": "tiny", "access": access, "samplingRatio": 0.01}
        parts.http_json(
            f"{edge.control_url}/v1/routes/{namespace}/tiny", "PUT", route, admin_token(edge.secret)
        )  # fmt: skip
    renew(edge, addresses)
    family = tuple(processes.descendants(edge.pid))
    haproxy = tuple(pid for pid in family if pid != edge.pid)
    path = "v2/models/tiny/infer"
    return [
        Subject(OPEN, f"{edge.url}/default/{path}", haproxy, family),
        Subject(KEYED, f"{edge.url}/closed/{path}", haproxy, family, (("Authorization", f"Bearer {KEY}"),)),
        Subject(ENCRYPTED, f"{edge.url}/tls/{path}", haproxy, family),
        Subject(TRACED, f"{edge.url}/default/{path}", haproxy, family, (("traceparent", TRACEPARENT),)),
    ]


def renew(edge: parts.GatewayProcess, addresses: Mapping[str, str]) -> None:
    """The leases of replicas by namespace, longer than a turn of all subjects."""
    for namespace, address in addresses.items():
        lease = {
            "namespace": namespace, "model": "tiny", "version": "1", "revision": "r", "address": address, "leaseSeconds": 60,
        }  # fmt: skip
        token = replica_token(edge.secret, namespace, "tiny")
        parts.http_json(f"{edge.control_url}/v1/replicas/{namespace}", "PUT", lease, token)


def _measure(
    subjects: Sequence[Subject],
    body: Path,
    edge: parts.GatewayProcess,
    addresses: Mapping[str, str],
    given: argparse.Namespace,
) -> dict[tuple[str, int], list[dict[str, float]]]:
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    client = str(max(os.sched_getaffinity(0)))
    for number in range(given.rounds):
        report.progress(f"round {number + 1} of {given.rounds}")
        for count in CONNECTIONS:
            renew(edge, addresses)
            for subject in random.sample(subjects, len(subjects)):
                told = json.dumps([dataclasses.asdict(subject), count, str(body), given.seconds])
                command = ["taskset", "-c", client, sys.executable, "-m", "tests.benchmarks.gateway_price", told]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=given.seconds + 60)
                results.setdefault((subject.name, count), []).append(json.loads(done.stdout))
    return results


def publish(results: dict[tuple[str, int], list[dict[str, float]]], given: argparse.Namespace) -> int:
    """Medians and their ratios, and verdicts."""

    def median(name: str, count: int, field: str) -> float:
        return statistics.median(each[field] for each in results[name, count])

    rows: list[dict[str, Any]] = []
    for count in CONNECTIONS:
        for name in (SOCKET, LEAST, MAPPED, OPEN, KEYED, TRACED, ENCRYPTED):
            haproxy, whole = median(name, count, _HAPROXY), median(name, count, _WHOLE)
            rows.append(
                {
                    "connections": count,
                    "server": name,
                    "HAProxy's CPU µs/answer": round(haproxy, 1),
                    "least seen": round(min(each[_HAPROXY] for each in results[name, count]), 1),
                    "× least with a map": round(haproxy / median(MAPPED, count, _HAPROXY), 2),
                    "all CPU µs/answer": round(whole, 1),
                    "× own socket": round(whole / median(SOCKET, count, _WHOLE), 2),
                    "× least before the same replica": round(whole / median(MAPPED, count, _WHOLE), 2),
                    "requests/s": round(median(name, count, "requests_per_second")),
                }
            )
    title = f"What the gateway costs (model 64 → 10, JSON; {KEYS} keys; medians of {given.rounds} interleaved rounds of {given.seconds:g} s)"
    verdicts = judge(results)
    notes = ["All server processes on the first core, the client on the second.", *(said for said, _ in verdicts)]
    report.publish("gateway-price", title, rows, notes)
    return 0 if all(held for _, held in verdicts) else 1


def judge(results: Mapping[tuple[str, int], Sequence[Mapping[str, float]]]) -> list[tuple[str, bool]]:
    """What each bar says of the least of all rounds, and whether it is held."""

    def least(name: str, count: int, field: str) -> float:
        return min(each[field] for each in results[name, count])

    verdicts = []
    for what, name, field, most in _BARS:
        for count in _JUDGED:
            ratio = least(name, count, field) / least(MAPPED, count, field)
            held = ratio <= most
            said = f"{what}, {count} connections: {ratio:.2f} times the least with a map, {most:g} at most: {'held' if held else 'MISSED'}."
            verdicts.append((said, held))
    return verdicts


async def _drive(subject: Subject, count: int, body: bytes, seconds: float) -> dict[str, float]:
    """Closed-loop load; CPU of both groups of processes over the same time."""
    (haproxy, whole), answers = await drive_groups(
        subject.url,
        body,
        count,
        (subject.haproxy, subject.serving),
        headers=subject.headers,
        warm_seconds=_WARM_SECONDS,
        seconds=seconds,
    )
    return {_HAPROXY: haproxy, _WHOLE: whole, "requests_per_second": answers}


def _child() -> None:
    subject, count, body, seconds = json.loads(sys.argv[1])
    subject["headers"] = tuple(map(tuple, subject["headers"]))
    print(json.dumps(uvloop.run(_drive(Subject(**subject), count, Path(body).read_bytes(), seconds))))


if __name__ == "__main__":
    _child() if len(sys.argv) > 1 else sys.exit(main())
