"""Where samples come from: Prometheus, or replicas that run now, by way of a gateway's metrics port."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlunsplit

from prometheus_client.parser import text_string_to_metric_families

from penstock.errors import Unavailable
from penstock.telemetry import names
from penstock_cli.addresses import split_url
from penstock_cli.cost.samples import FIELDS, CostSample
from penstock_cli.standalone.http import fetch

_SUMMED: Final = "namespace, model, revision, accelerator, source, component"


def ask_prometheus(url: str, seconds: int, token: str | None = None) -> list[CostSample]:
    """What counters grew by in a time that ends now, summed over replicas.

    Args:
        url: of Prometheus, or of what speaks its API.
        seconds: of the time.
        token: bearer token; None: none is sent.

    Raises:
        Unavailable: it does not answer, or not as Prometheus does.
    """
    found = []
    for metric in (*FIELDS, names.METRIC_REPLICA_JOULES, names.METRIC_PLATFORM_CPU):
        query = urlencode({"query": f"sum by ({_SUMMED}) (increase({metric}[{seconds}s]))"})
        base = url.rstrip("/")
        status, body = _ask(base, f"/api/v1/query?{query}", token)
        found += read_answer(metric, status, body, base)
    return found


def read_answer(metric: str, status: int, body: bytes, where: str) -> list[CostSample]:
    """Samples from the answer to an instant query.

    Raises:
        Unavailable: it is none.
    """
    try:
        told: Any = json.loads(body)
        if status != HTTPStatus.OK or told["status"] != "success":
            raise Unavailable("PrometheusFailed", f"Prometheus at {where} answered {status}: {told.get('error', '')}")
        return [
            CostSample(
                metric, float(each["value"][1]), {str(name): str(value) for name, value in each["metric"].items()}
            )
            for each in told["data"]["result"]
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unavailable(
            "PrometheusFailed",
            f"what answers at {where} is no Prometheus (status {status}): name its address by --prometheus",
        ) from error


def ask_replicas(gateway_url: str) -> list[CostSample]:
    """What all replicas that run now, and the gateway itself, have counted since they started.

    Args:
        gateway_url: of a gateway's metrics port.

    Raises:
        Unavailable: it does not answer, or is no gateway's. Replicas that do not answer are left out.
    """
    base = gateway_url.rstrip("/")
    status, body = _ask(base, "/scrape-targets")
    try:
        targets = json.loads(body)
        paths = [(str(each["labels"]["__metrics_path__"]), each["labels"]) for each in targets]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            "NoGateway",
            f"what answers at {base} is no gateway's metrics port (status {status}): it is 8083 on a cluster",
        ) from error
    found = ask_component(base)
    for path, labels in paths:
        status, body = _ask(base, path)
        if status == HTTPStatus.OK:
            vouched = {name: str(labels[name]) for name in ("namespace", "model", "instance")}
            found += parse(body.decode(errors="replace"), vouched)
    return found


def ask_component(url: str) -> list[CostSample]:
    """What a gateway or an operator says of itself.

    Raises:
        Unavailable: it does not answer.
    """
    status, body = _ask(url.rstrip("/"), "/metrics")
    if status != HTTPStatus.OK:
        raise Unavailable("NoMetrics", f"{url} answered {status}")
    return parse(body.decode(errors="replace"), {})


def _ask(base: str, path: str, token: str | None = None) -> tuple[int, bytes]:
    try:
        return fetch(base + path, token)
    except Unavailable as error:
        raise Unavailable(error.reason, f"{base} gives no answer: {error.message}") from error


def parse(text: str, labels: Mapping[str, str]) -> list[CostSample]:
    """Samples of an exposition, with these labels in the place of its own."""
    return list(_parse(text, labels))


def _parse(text: str, labels: Mapping[str, str]) -> Iterator[CostSample]:
    ours = "\n".join(line for line in text.splitlines() if line.startswith(("penstock_replica_", "penstock_platform_")))
    try:
        for family in text_string_to_metric_families(ours + "\n"):
            for each in family.samples:
                yield CostSample(each.name, each.value, {**each.labels, **labels})
    except ValueError as error:
        raise Unavailable("NoMetrics", f"metrics cannot be read: {error}") from error


def check_url(url: str, option: str) -> str:
    """A URL as it is asked.

    Raises:
        Invalid: it is none.
    """
    wrong = f"{option} {url}: write an address such as http://localhost:9090"
    return urlunsplit(split_url(url if "//" in url else f"http://{url}", wrong))
