"""Pods keep to nodes that their image was built for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.pool.pools import SECRET, SETTINGS, pool

from penstock_operator.architectures import keep_to
from penstock_operator.pool.raycluster import build

ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
ARM = {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}
AMD = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}
OTHER = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}


def _pod(*terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"containers": [], "affinity": {"nodeAffinity": required}, **more}


@pytest.mark.parametrize(
    ("pod", "wanted"),
    [
        pytest.param({"containers": []}, _pod({"matchExpressions": [AMD]}), id="one that asks for no node"),
        pytest.param(
            _pod({"matchExpressions": [ZONE]}, OTHER),
            _pod({"matchExpressions": [ZONE, AMD]}, {**OTHER, "matchExpressions": [AMD]}),
            id="one that asks for either of two kinds of nodes",
        ),
        pytest.param(
            _pod({"matchExpressions": [ARM]}, {"matchExpressions": [ZONE]}),
            _pod({"matchExpressions": [ARM]}, {"matchExpressions": [ZONE, AMD]}),
            id="one that says itself which, in a term",
        ),
        pytest.param(
            {"nodeSelector": {"kubernetes.io/arch": "arm64"}}, {"nodeSelector": {"kubernetes.io/arch": "arm64"}},
            id="one that says itself which, by a selector",
        ),
    ],
)  # fmt: skip
def test_a_pod_keeps_to_an_architecture(pod: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert keep_to(["amd64"], pod) == wanted
    assert keep_to([], pod) == pod


def test_what_stands_beside_the_nodes_stays() -> None:
    apart = {"podAntiAffinity": {"x": 1}, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [1]}}
    kept = keep_to(["amd64", "arm64"], {"affinity": apart})["affinity"]
    assert kept["podAntiAffinity"] == {"x": 1}
    assert kept["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == [1]


@pytest.mark.parametrize(
    ("image", "keeps"),
    [
        pytest.param(None, True, id="this release's image"),
        pytest.param("registry.example.com/own:1", False, id="an image of their own, of which nobody knows"),
    ],
)
def test_a_pools_pods_keep_to_what_their_image_was_built_for(image: str | None, keeps: object) -> None:
    settings = replace(SETTINGS, architectures=("amd64",))
    given = {} if image is None else {"image": image}
    body = build(pool(**given), settings, SECRET, "penstock-default")["spec"]
    pods = [body["headGroupSpec"]["template"]["spec"], *(each["template"]["spec"] for each in body["workerGroupSpecs"])]
    assert [pod == keep_to(["amd64"], pod) for pod in pods] == [keeps] * 2
