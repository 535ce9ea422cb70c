"""What linters of Kubernetes objects say of the rendered chart. Each exclusion has its reason here."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from tests.chart.helm import EVERYTHING, Object, render
from tests.cluster.tools import tool

_KUBERNETES = "v1.35"
_ALLOWED = {
    "container-image-pull-policy": (
        "images have versions or digests, so that IfNotPresent gets the same and starts while the registry is away;"
        " `images.pullPolicy` is there for those who want Always"
    ),
    "container-resource-requests-equal-limits": "memory may grow for a burst; a request as large would idle on every node",
    "container-cpu-requests-equal-limits": "there is no CPU limit: it only delays requests and reconciles",
    "container-memory-requests-equal-limits": "memory may grow for a burst; a request as large would idle on every node",
    "container-ephemeral-storage-request-equals-limit": "what is written is little, and the limit is for accidents",
}
"""Checks that are not made, and why."""
_ALLOWED_WITH_EVERYTHING = {
    "deployment-replicas": "one collector: spans of a trace must meet where it samples by tail",
    "deployment-targeted-by-hpa-does-not-have-replicas-configured": (
        "left out, Helm sends null in an upgrade, of which Kubernetes makes 1; the chart writes the number that there is"
    ),
    "pod-probes-identical": "the collector has one endpoint for its health; liveness waits longer for it",
}
_ONE_OBJECTS = {"deployment-targeted-by-hpa-does-not-have-replicas-configured": "penstock-gateway"}
"""Whose findings those of everything are, where not the collector's."""


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        pytest.param({}, _ALLOWED, id="as it comes"),
        pytest.param(EVERYTHING, _ALLOWED | _ALLOWED_WITH_EVERYTHING, id="with everything turned on"),
    ],
)
def test_kube_score_finds_nothing_without_a_reason(values: Object, allowed: dict[str, str]) -> None:
    findings = _kube_score(values)
    assert {check for check, _ in findings} == set(allowed), (
        "each finding has a reason, and each reason is still needed"
    )
    for narrow in set(allowed) - set(_ALLOWED):
        assert {name for check, name in findings if check == narrow} == {_ONE_OBJECTS.get(narrow, "penstock-collector")}


def _kube_score(values: Object) -> set[tuple[str, str]]:
    """Each check that is not passed, and the object's name."""
    command = [
        str(tool("kube-score")), "score", "-", "--output-format=json", f"--kubernetes-version={_KUBERNETES}",
        "--all-default-optional", "--ignore-container-cpu-limit",
    ]  # fmt: skip
    done = subprocess.run(command, input=render(values).text, capture_output=True, text=True, timeout=60, check=False)
    scored: list[dict[str, Any]] = json.loads(done.stdout)
    assert scored, done.stderr
    return {
        (each["check"]["id"], found["object_meta"]["name"])
        for found in scored
        for each in found["checks"]
        if not each["skipped"] and each["grade"] < _GOOD
    }


_GOOD = 10
