"""Waiting until a deployment serves, against a real embedded store that an operator writes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.telling import Telling, telling

from penstock.api.meta import Manifest
from penstock.errors import Unavailable
from penstock.names import DEPLOYMENT_MANAGER
from penstock_cli.objects.readiness import forget_readiness, wait_until_ready
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import open_embedded
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import Cluster, Key, NotFound

SAMPLE = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "digits.yaml"
KEY = Key("default", "digits")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    store = open_embedded(StateFolder(tmp_path))
    store.apply(INFERENCE_DEPLOYMENT, yaml.safe_load(SAMPLE.read_text()), "user")
    yield store
    store.close()


def say_ready(cluster: Cluster, status: str, reason: str, generation: int = 1) -> None:
    condition = {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": f"it is {reason}",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": generation,
    }
    manifest: Manifest = {
        "metadata": {"name": KEY.name, "namespace": KEY.namespace},
        "status": {"conditions": [condition], "url": "http://gateway/default/v2/models/digits"},
    }
    cluster.apply_status(INFERENCE_DEPLOYMENT, manifest, DEPLOYMENT_MANAGER)


def wait(cluster: Cluster, said: list[str] | None = None) -> str | None:
    say = said.append if said is not None else lambda _text: None
    return wait_until_ready(cluster, KEY, 0.3, say, lambda: None).status.url


def test_a_ready_deployment_gives_its_url(cluster: Cluster) -> None:
    say_ready(cluster, "True", "ReplicasReady")
    assert wait(cluster) == "http://gateway/default/v2/models/digits"


@pytest.mark.parametrize(
    ("status", "reason", "generation", "message"),
    [
        pytest.param("False", "ModelNotFound", 1, "it is ModelNotFound", id="a missing model ends the wait at once"),
        pytest.param("False", "NameConflict", 1, "it is NameConflict", id="a name that is taken ends it, too"),
        pytest.param("False", "SecretNotFound", 1, "not Ready within", id="a Secret reaches running pods in a minute"),
        pytest.param("False", "OfANewerRelease", 1, "not Ready within", id="what only a newer release knows may pass"),
        pytest.param("False", "PoolUnreachable", 1, "not Ready within", id="a pool may come yet"),
        pytest.param(
            "Unknown", "StartingReplicas", 1, "Ready=Unknown StartingReplicas", id="the end says where it was"
        ),
        pytest.param("True", "ReplicasReady", 0, "not Ready within", id="what was said of an older spec is not this"),
    ],
)
def test_what_does_not_become_ready(cluster: Cluster, status: str, reason: str, generation: int, message: str) -> None:
    say_ready(cluster, status, reason, generation)
    with pytest.raises(Unavailable) as caught:
        wait(cluster)
    assert message in caught.value.message


def test_it_says_what_it_waits_for(cluster: Cluster) -> None:
    said: list[str] = []
    with pytest.raises(Unavailable, match=telling("no condition")):
        wait(cluster, said)
    say_ready(cluster, "Unknown", "StartingReplicas")
    with pytest.raises(Unavailable):
        wait(cluster, said)
    assert said[0] == Telling("digits: operator")
    assert said[-1] == "digits: StartingReplicas: it is StartingReplicas"


def test_a_former_run_s_ready_is_not_believed(cluster: Cluster) -> None:
    say_ready(cluster, "True", "ReplicasReady")
    forget_readiness(cluster)
    with pytest.raises(Unavailable, match=telling("no condition")):
        wait(cluster)
    say_ready(cluster, "True", "ReplicasReady")
    assert wait(cluster) is not None


def test_a_deployment_that_is_deleted_meanwhile_is_told(cluster: Cluster) -> None:
    cluster.delete(INFERENCE_DEPLOYMENT, KEY)
    with pytest.raises(NotFound, match="was deleted"):
        wait(cluster)


def test_a_part_that_ends_ends_the_wait(cluster: Cluster) -> None:
    def gone() -> None:
        raise Unavailable("ComponentEnded", "Ray ended")

    with pytest.raises(Unavailable, match="Ray ended"):
        wait_until_ready(cluster, KEY, 30, lambda _text: None, gone)
