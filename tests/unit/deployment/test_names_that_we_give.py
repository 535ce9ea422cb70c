"""Every name and label that we derive from a user's: the API server takes it, and what differs stays different."""

from __future__ import annotations

import datetime as dt
import random
import string
from collections.abc import Callable, Iterator

import pytest
from tests.unit.deployment.world import deployment
from tests.unit.optimization_run.test_job_in_cluster import planned, run
from tests.unit.pool.pools import SETTINGS, pool

from penstock import names
from penstock.api.meta import Manifest
from penstock.api.metadata import label_problems, label_value_problems, metadata_problems
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRunSpec
from penstock.api.v1alpha1 import InferenceDeployment
from penstock_cli.validation.admission import validate
from penstock_operator.deployment.profile import run_manifest
from penstock_operator.pool import names as pool_names
from penstock_operator.pool.network import policies
from penstock_operator.pool.raycluster import build, replacement_name
from penstock_operator.runtime.loop.events import _name as event_name
from penstock_operator.runtime.loop.events import cut_note

PROFILE = OptimizationProfileSpec()
SOME = random.Random(7)  # the same names each time


def _words(most: int, letters: str, count: int) -> Iterator[str]:
    """Names that a user's object may have: short, as long as may be, and any between."""
    for _ in range(count):
        length = SOME.choice([1, 2, most - 1, most, SOME.randint(1, most)])
        ends = string.ascii_lowercase + string.digits
        inner = "".join(SOME.choice(letters) for _ in range(max(0, length - 2)))
        yield (SOME.choice(ends) + inner + SOME.choice(ends))[:length]


MODELS = sorted(
    {"a", "0", "1e3", "true", "a" * 40, "a--b", *_words(40, string.ascii_lowercase + string.digits + "-", 60)}
)
RUNS = sorted({"a", "0", "r" * 60, *_words(60, string.ascii_lowercase + string.digits + "-", 60)})
POOLS = sorted(
    {
        "a", "0", "a.b", "a-b", "p" * 253, "p" * 252 + "q", ".".join("x" * 126), "p" * 44 + "-" * 5 + "a", "p" * 63, "p" * 64,
        *(each for each in _words(253, string.ascii_lowercase + string.digits + "-", 60)),
    }
)  # fmt: skip


def _problems(manifest: Manifest) -> list[str]:
    """What the API server would say of an object's metadata and of its pods'."""
    found = [*map(str, metadata_problems(manifest["metadata"], namespaced=True))]
    for key, value in _labels(manifest):
        found += [f"{key}: {said}" for said in label_value_problems(value)]
    return found


def _labels(value: object) -> Iterator[tuple[str, str]]:
    """Labels of all templates and selectors in an object."""
    if isinstance(value, list):
        for each in value:
            yield from _labels(each)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("labels", "matchLabels") and isinstance(inner, dict):
                yield from inner.items()
            else:
                yield from _labels(inner)


def _deployment(name: str, namespace: str = "vision") -> InferenceDeployment:
    made = deployment()
    return made.model_copy(update={"metadata": made.metadata.model_copy(update={"name": name, "namespace": namespace})})


def _distinct(given: list[str], derived: Callable[[str], str]) -> None:
    assert len({derived(each) for each in given}) == len(given)


def test_a_models_run_its_jobs_and_their_network_have_names_and_labels_that_are_taken() -> None:
    spec = OptimizationRunSpec.model_validate(
        {"model": {"storageUri": "s3://m/1", "modelFormat": "onnx"}, "profileRef": {"name": "balanced"}}
    )
    for name in MODELS:
        made = run_manifest(_deployment(name), PROFILE, spec)
        assert validate(made) == [], name
        assert _problems(made) == []
    _distinct(MODELS, lambda name: names.run_name(_deployment(name), PROFILE))
    for name in RUNS:
        asked = run()
        asked = asked.model_copy(update={"metadata": asked.metadata.model_copy(update={"name": name})})
        wanted = planned(asked)
        assert wanted.job is not None
        assert wanted.network_policy is not None
        assert _problems(wanted.job) == [], name
        assert _problems(wanted.network_policy) == [], name
        assert [*label_problems(wanted.job["metadata"]["name"])] == [], "its pods carry it as a label"


def test_what_a_pool_is_made_of_has_names_and_labels_that_are_taken() -> None:
    for name in POOLS:
        made = pool(name=name)
        clusters = [pool_names.ray_cluster(name)]
        clusters.append(replacement_name(made, SETTINGS, "secret", clusters[0]))
        for cluster in clusters:
            assert _problems(build(made, SETTINGS, "secret", cluster)) == [], name
            assert len(cluster) <= 50, "KubeRay cuts longer ones"
            service = pool_names.head_service(cluster)
            assert [*label_problems(service)] == []
            assert service[0].isalpha(), "a Service's name begins with a letter"
        assert clusters[0] != clusters[1]
        for policy in policies(made, "penstock-system"):
            assert _problems(policy) == [], name
        secret = {"metadata": {"name": pool_names.token_secret(name, "token"), "namespace": "vision"}}
        assert _problems(secret) == []
    _distinct(POOLS, pool_names.ray_cluster)
    _distinct(POOLS, lambda name: pool_names.token_secret(name, "token"))
    _distinct(POOLS, pool_names.label)


def test_events_have_names_that_are_taken() -> None:
    now = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    for name in (*MODELS, *POOLS, "p" * 199 + "-" + "q" * 50, "p" * 198 + "-." + "q" * 50):
        made = {"metadata": {"name": event_name({"metadata": {"name": name}}, ("a",), now), "namespace": "vision"}}
        assert _problems(made) == [], name


@pytest.mark.parametrize("note", ["short", "x" * 2000, "ü" * 1000, "x" + "模" * 1000, "\ud800" * 1000])
def test_a_note_has_as_many_bytes_as_an_event_may(note: str) -> None:
    assert len(cut_note(note).encode()) <= 1024
    assert cut_note(note)[:5] == note.encode(errors="replace").decode()[:5]


def test_applications_of_namespaces_and_names_that_could_be_mixed_up_differ() -> None:
    pairs = [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("a-b-c", "d"), ("a", "b-c-d")]
    made = {names.application_name(*pair, names.revision(_deployment(pair[1], pair[0]))) for pair in pairs}
    assert len(made) == len(pairs)


FILES = [
    "digits", "Digits v2", "digits_v2.final", "ResNet-50", "模型", "模型二", "modèle", "İ", "-", ".", "..", "a/b", "_", "", "x" * 41,
    "x" * 40, "x" * 41 + "y", "x" * 300, "a" * 32 + "-" * 20 + "b", "../../etc/passwd", "model\n", "-a-", "1e3", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("text", FILES)
def test_a_file_gives_its_model_a_name_that_is_taken(text: str) -> None:
    name = names.model_of(text)
    assert names.is_model(name)
    manifest = deployment().model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"status"})
    manifest["metadata"] = {"name": name}
    assert validate(manifest) == []
    if names.is_model(text):
        assert name == text


def test_files_that_differ_in_more_than_spelling_give_names_that_differ() -> None:
    _distinct(FILES, names.model_of)


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "x" * 41, "../a", "a/b", "ü", "a\n"])
def test_what_no_deployment_may_be_called_is_no_models_name(name: str) -> None:
    assert not names.is_model(name)
