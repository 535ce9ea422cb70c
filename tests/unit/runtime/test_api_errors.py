"""What an HTTP error of the Kubernetes API means to the operator."""

from __future__ import annotations

import json

import pytest

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock_operator.runtime.cluster import LEASE, NAMESPACE, Gone, NotFound, is_refusal
from penstock_operator.runtime.cluster.kubernetes import _name_request, _path
from penstock_operator.runtime.cluster.refusals import error_of


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
    error = error_of(status, json.dumps({"reason": "Said", "message": "in its own words"}).encode())
    assert type(error) is kind
    assert (error.reason, error.message) == ("Said", "in its own words")


OF_POLICIES = [
    (
        "a policy that names no reason",
        422,
        "rayclusters.ray.io \"a\" is forbidden: ValidatingAdmissionPolicy 'team' with binding 'team' denied request: no team",
    ),
    ("a policy on what has no name yet", 413, "pods is forbidden: ValidatingAdmissionPolicy 'size' denied request: no"),
    ("a webhook that names no code", 400, 'admission webhook "validate.kyverno.svc-fail" denied the request: no team'),
    ("a webhook that calls it a conflict", 409, 'admission webhook "a.example.com" denied the request: taken'),
    ("a webhook that calls it absent", 404, 'admission webhook "a.example.com" denied the request: no such team'),
    ("a webhook without words", 400, 'admission webhook "a.example.com" denied the request without explanation'),
]


@pytest.mark.parametrize(("status", "message"), [row[1:] for row in OF_POLICIES], ids=[row[0] for row in OF_POLICIES])
def test_what_a_policy_denies_may_be_tried_again_whatever_its_code(status: int, message: str) -> None:
    error = error_of(status, json.dumps({"reason": "Invalid", "message": message}).encode())
    assert isinstance(error, Unavailable)
    assert is_refusal(error)
    assert error.message == message


OF_SCHEMAS = [
    'RayCluster.ray.io "x" is invalid: spec.rayVersion: Invalid value: "a is forbidden: b": should be a number',
    'RayCluster.ray.io "x" is invalid: spec.a: Invalid value: "admission webhook "b" denied the request": is too long',
]


@pytest.mark.parametrize("message", OF_SCHEMAS, ids=["a policy's words", "a webhook's words"])
def test_what_breaks_a_schema_is_the_writers_whatever_it_quotes(message: str) -> None:
    assert isinstance(error_of(422, json.dumps({"reason": "Invalid", "message": message}).encode()), Invalid)


def test_an_answer_that_is_not_kubernetes_own_is_quoted() -> None:
    error = error_of(502, b"<html>bad gateway</html>")
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
