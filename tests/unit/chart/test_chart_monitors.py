"""The chart's objects for the Prometheus operator, decoded by that operator's own types, and what they lead to."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable

import pytest
from tests.chart.helm import EVERYTHING, Object, render
from tests.cluster.tools import tool


def _objects() -> list[Object]:
    """All that are of the Prometheus operator's API."""
    found = [each for each in render(EVERYTHING).objects if each["apiVersion"].startswith("monitoring.coreos.com/")]
    return copy.deepcopy(found)


def _decode(objects: list[Object]) -> subprocess.CompletedProcess[str]:
    command = [str(tool("monitors"))]
    return subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=False)


def test_the_prometheus_operator_knows_each_field() -> None:
    objects = _objects()
    assert sorted((each["kind"], each["metadata"]["name"]) for each in objects) == [
        ("PrometheusRule", "penstock-platform"),
        ("PrometheusRule", "penstock-rollouts"),
        ("ScrapeConfig", "penstock-replicas"),
        ("ServiceMonitor", "penstock-gateway"),
        ("ServiceMonitor", "penstock-operator"),
    ]
    said = _decode(objects)
    assert said.returncode == 0, said.stderr


def _misspell(where: Object, name: str, other: str) -> None:
    where[other] = where.pop(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda monitor, _: _misspell(monitor["spec"]["endpoints"][0], "interval", "intervall"),
            'ServiceMonitor penstock-gateway: unknown field "spec.endpoints[0].intervall"',
            id="a field that there is not",
        ),
        pytest.param(
            lambda monitor, _: _misspell(monitor["spec"]["endpoints"][0], "honorLabels", "honorlabels"),
            'ServiceMonitor penstock-gateway: unknown field "spec.endpoints[0].honorlabels"',
            id="a field in another case",
        ),
        pytest.param(
            lambda _, scrape: _misspell(scrape["spec"], "httpSDConfigs", "httpSdConfigs"),
            'ScrapeConfig penstock-replicas: unknown field "spec.httpSdConfigs"',
            id="a field of a ScrapeConfig in another case",
        ),
        pytest.param(
            lambda monitor, _: monitor["spec"]["endpoints"][0].update(honorLabels="yes"),
            "cannot unmarshal string into Go struct field",
            id="a text for a truth",
        ),
        pytest.param(
            lambda _, scrape: scrape.update(apiVersion="monitoring.coreos.com/v1"),
            "ScrapeConfig monitoring.coreos.com/v1: no kind of the Prometheus operator",
            id="a version that the kind does not have",
        ),
    ],
)
def test_the_prometheus_operator_refuses(spoil: Callable[[Object, Object], None], message: str) -> None:
    objects = _objects()
    by_name = {each["metadata"]["name"]: each for each in objects}
    spoil(by_name["penstock-gateway"], by_name["penstock-replicas"])
    said = _decode(objects)
    assert (said.returncode, message in said.stderr) == (1, True), said.stderr


def test_what_is_scraped_is_a_port_of_a_service_of_the_chart() -> None:
    chart = render(EVERYTHING)
    services = {each["metadata"]["name"]: each for each in chart.all("Service")}
    for monitor in chart.all("ServiceMonitor"):
        (service,) = (
            each
            for each in services.values()
            if monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        )
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {each["port"] for each in monitor["spec"]["endpoints"]} <= ports
    (discovery,) = chart.one("ScrapeConfig", "penstock-replicas")["spec"]["httpSDConfigs"]
    host, _, port = discovery["url"].removeprefix("http://").partition("/")[0].partition(":")
    service = services[host.removesuffix(".penstock-system.svc")]
    assert int(port) in {each["port"] for each in service["spec"]["ports"]}
