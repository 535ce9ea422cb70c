"""Which host is a Service, and which one only stands for another."""

from __future__ import annotations

import pytest

from penstock.routing.services import is_alias, is_service, search_domains

SEARCH = ("penstock-system.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")


@pytest.mark.parametrize(
    ("host", "service"),
    [
        pytest.param("ray-head.vision.svc", True, id="a Service"),
        pytest.param("ray-head.vision.svc.cluster.local", True, id="with the cluster's domain"),
        pytest.param("Ray-Head.vision.svc.", True, id="in capitals, with the root's dot"),
        pytest.param("ray.example.org", False, id="a host elsewhere"),
        pytest.param("10.0.0.1", False, id="an address"),
        pytest.param("svc", False, id="a bare name"),
    ],
)
def test_a_host_is_a_service(host: str, *, service: bool) -> None:
    assert is_service(host) is service


@pytest.mark.parametrize(
    ("canonical", "alias"),
    [
        pytest.param("ray-head.vision.svc", False, id="itself"),
        pytest.param("ray-head.vision.svc.cluster.local", False, id="itself, in the cluster's domain"),
        pytest.param("RAY-HEAD.vision.svc.cluster.local.", False, id="itself, in capitals"),
        pytest.param("ray-head.speech.svc.cluster.local", True, id="another tenant's Service"),
        pytest.param("metadata.internal", True, id="a host inside the network"),
        pytest.param("ray-head.vision.svc.attacker.example", True, id="a name that only begins as it does"),
    ],
)
def test_a_name_stands_for(canonical: str, *, alias: bool) -> None:
    assert is_alias("ray-head.vision.svc", canonical, SEARCH) is alias


def test_the_last_search_line_counts() -> None:
    assert search_domains(["nameserver 10.96.0.10", "search a b", "search c.d e", "options ndots:5"]) == ("c.d", "e")
    assert search_domains(["nameserver 10.96.0.10"]) == ()
