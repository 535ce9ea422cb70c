"""The profiles that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.api.optimization import ClusterOptimizationProfile, Objective, Strategy
from penstock.optimization.recipes import EngineName
from penstock_cli.validation.admission import validate_text

FOLDER = Path(__file__).parents[3] / "manifests" / "profiles"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def profile(name: str) -> ClusterOptimizationProfile:
    judged = validate_text(FILES[name].read_text(), name)
    assert judged.problems == ()
    (document,) = judged.documents
    return ClusterOptimizationProfile.model_validate(document.manifest)


def test_all_are_there() -> None:
    assert set(FILES) == {"none", "quick", "balanced", "latency", "throughput", "small", "edge"}


@pytest.mark.parametrize("name", FILES)
def test_a_profile_is_taken_and_bears_the_name_of_its_file(name: str) -> None:
    assert profile(name).metadata.name == name


@pytest.mark.parametrize("name", FILES)
def test_a_profile_says_for_whom_it_is(name: str) -> None:
    assert FILES[name].read_text().startswith("# For ")


@pytest.mark.parametrize("name", FILES)
def test_a_profile_guards_accuracy_with_or_without_labels(name: str) -> None:
    """A ratio is of any metric's figures; points would be too coarse for a cosine."""
    accuracy = profile(name).spec.constraints.accuracy
    assert accuracy.metric is None
    assert accuracy.min_ratio is not None
    assert float(accuracy.min_ratio) >= 0.98
    assert accuracy.certify


def test_none_changes_nothing() -> None:
    spec = profile("none").spec
    assert spec.steps.model_dump(exclude_none=True) == {}
    assert spec.engines == (EngineName.ONNX_RUNTIME,)


def test_balanced_is_done_soon_and_trains_nothing() -> None:
    spec = profile("balanced").spec
    assert spec.search.strategy is Strategy.RAPID
    assert spec.search.budget_minutes <= 20
    assert (spec.steps.distil, spec.steps.prune) == (None, None)


def test_each_objective_is_what_the_name_says() -> None:
    objectives = {name: profile(name).spec.objective for name in ("latency", "throughput", "small")}
    assert objectives == {
        "latency": Objective.LATENCY, "throughput": Objective.THROUGHPUT, "small": Objective.MEMORY,
    }  # fmt: skip


def test_edge_makes_bundles_for_devices() -> None:
    assert EngineName.LITERT in profile("edge").spec.engines
