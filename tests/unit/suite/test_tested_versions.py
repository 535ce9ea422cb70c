"""What the documentation says was tested is what the tests run with."""

from __future__ import annotations

import re

import pytest
from tests.compat import LEANING, ROOT, pinned_release

from penstock_operator.pool.raycluster import RAY_VERSION

MODULES = {
    "Kubernetes": ("tests/cluster/go.mod", "k8s.io/kubernetes"),
    "KubeRay": ("tests/cluster/modules/kuberay/go.mod", "github.com/ray-project/kuberay/ray-operator"),
    "Helm": ("tests/cluster/modules/helm/go.mod", "helm.sh/helm/v3"),
}


def told(what: str) -> str:
    found = re.search(rf"^\| {what}[^|]* \| ([\d.]+) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert found, what
    return found[1]


@pytest.mark.parametrize("what", MODULES)
def test_the_table_of_tested_versions_has_that_of_the_module(what: str) -> None:
    file, module = MODULES[what]
    required = re.search(rf"{module} v([\d.]+)", (ROOT / file).read_text())
    assert required
    assert told(what) == required[1]


def test_ray_is_the_one_that_is_pinned_and_that_pools_say() -> None:
    assert told("Ray") == pinned_release((ROOT / "pyproject.toml").read_text()) == RAY_VERSION


def test_what_is_tried_with_another_ray_is_there() -> None:
    assert all((ROOT / each).is_file() for each in LEANING)
