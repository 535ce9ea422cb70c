"""What an HTTP error of the Kubernetes API means to the operator."""

from __future__ import annotations

import json

import pytest

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock_operator.runtime.cluster import LEASE, NAMESPACE, Gone, NotFound
from penstock_operator.runtime.cluster.kubernetes import _error_of, _name_request, _path


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(400, Invalid, id="a request that cannot be read is the writer's fault"),
        pytest.param(422, Invalid, id="what the schema refuses is the writer's fault"),
        pytest.param(404, NotFound, id="what is absent was deleted by someone"),
        pytest.param(409, Conflict, id="someone else wrote first"),
        pytest.param(410, Gone, id="a version too old to watch from"),
        pytest.param(401, Unavailable, id="an expired token is renewed"),
        pytest.param(403, Unavailable, id="missing rights may yet be granted"),
        pytest.param(429, Unavailable, id="too many requests: later"),
        pytest.param(500, Unavailable, id="the server's own trouble: later"),
        pytest.param(503, Unavailable, id="no server: later"),
    ],
)
def test_status(status: int, kind: type[PenstockError]) -> None:
    error = _error_of(status, json.dumps({"reason": "Said", "message": "in its own words"}).encode())
    assert type(error) is kind
    assert (error.reason, error.message) == ("Said", "in its own words")


def test_an_answer_that_is_not_kubernetes_own_is_quoted() -> None:
    error = _error_of(502, b"<html>bad gateway</html>")
    assert (error.reason, error.message) == ("ApiUnavailable", "<html>bad gateway</html>")


def test_paths() -> None:
    assert _path(LEASE, "ns", "leader") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases/leader"
    assert _path(LEASE, None) == "/apis/coordination.k8s.io/v1/leases"
    assert _path(NAMESPACE, "", "ns") == "/api/v1/namespaces/ns"


@pytest.mark.parametrize(
    ("method", "path", "query", "what"),
    [
        pytest.param("GET", "/api/v1/nodes", {"limit": "5"}, ("list", "nodes"), id="a listing"),
        pytest.param("GET", "/api/v1/nodes", {"watch": "true"}, ("watch", "nodes"), id="a watch"),
        pytest.param("GET", "/api/v1/namespaces/a/secrets/b", {}, ("get", "secrets"), id="an object"),
        pytest.param("GET", "/api/v1/namespaces/a", {}, ("get", "namespaces"), id="a namespace itself"),
        pytest.param("GET", "/apis/ray.io/v1/rayclusters", {}, ("list", "rayclusters"), id="all namespaces"),
        pytest.param(
            "PATCH", "/apis/ray.io/v1/namespaces/a/rayclusters/b/status", {}, ("patch", "rayclusters/status"),
            id="a subresource",
        ),
        pytest.param("DELETE", "/api/v1/namespaces/a", {}, ("delete", "namespaces"), id="the deletion of a namespace"),
    ],
)  # fmt: skip
def test_what_was_asked_is_named_as_kubernetes_names_it(
    method: str, path: str, query: dict[str, str], what: tuple[str, str]
) -> None:
    assert _name_request(method, path, query) == what
