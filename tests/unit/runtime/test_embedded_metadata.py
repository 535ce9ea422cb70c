"""What the embedded store takes as metadata: what a real API server would, whoever writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.telling import telling

from penstock.errors import Invalid
from penstock_operator.runtime.cluster import CONFIG_MAP, EventType, Key, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.cluster.storage import Storage, Stored

KEY = Key("default", "one")
OURS = ResourceKind("penstock.dev", "v1alpha1", "ServingPool", "servingpools", has_status=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    made = EmbeddedCluster(tmp_path / "cluster.sqlite")
    yield made
    made.close()


def config_map(name: str = "one", **metadata: Any) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default", **metadata}, "data": {"a": "b"}}


@pytest.mark.parametrize(
    ("metadata", "facts"),
    [
        pytest.param({"labels": {"version": 2}}, 'metadata.labels.version "2" quotes', id="a label that is a number"),
        pytest.param({"labels": {"canary": True}}, "metadata.labels.canary quotes", id="a label that is a truth value"),
        pytest.param({"labels": {"branch": "x" * 64}}, "metadata.labels.branch 63", id="a label that is too long"),
        pytest.param({"annotations": {"a": 1}}, "metadata.annotations.a string", id="an annotation that is a number"),
        pytest.param({"finalizers": ["a b"]}, "metadata.finalizers a b", id="a finalizer with a blank"),
        pytest.param({"finalizers": [[1]]}, "metadata.finalizers[0] string", id="a finalizer that is a list"),
        pytest.param(
            {"ownerReferences": [{"name": "a"}]}, "metadata.ownerReferences[0].uid", id="an owner without a uid"
        ),
        pytest.param({"lables": {}}, '"metadata.lables"', id="a field that there is not"),
    ],
)
def test_no_write_brings_in_what_nobody_could_read(cluster: EmbeddedCluster, metadata: Any, facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        cluster.create(CONFIG_MAP, config_map(**metadata))
    with pytest.raises(Invalid, match=telling(facts)):
        cluster.apply(CONFIG_MAP, config_map(**metadata), "test")
    assert cluster.get(CONFIG_MAP, KEY) is None
    there = cluster.create(CONFIG_MAP, config_map())
    with pytest.raises(Invalid, match=telling(facts)):
        cluster.apply(CONFIG_MAP, config_map(**metadata), "test")
    with pytest.raises(Invalid, match=telling(facts)):
        cluster.update(CONFIG_MAP, {**there, "metadata": {**there["metadata"], **metadata}})
    assert cluster.get(CONFIG_MAP, KEY) == there


def test_a_null_is_stored_as_the_api_server_stores_it(cluster: EmbeddedCluster) -> None:
    made = cluster.create(CONFIG_MAP, config_map(labels={"a": None}, annotations=None))
    assert made["metadata"]["labels"] == {"a": ""}
    assert "annotations" not in made["metadata"]


def test_our_kinds_names_are_dns_names_and_anothers_are_its_own(cluster: EmbeddedCluster) -> None:
    cluster.create(CONFIG_MAP, config_map("a:b"))
    with pytest.raises(Invalid, match="RFC 1123 subdomain"):
        cluster.create(OURS, config_map("a:b"))


def test_what_a_former_release_stored_can_be_mended_bit_by_bit_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "cluster.sqlite"
    EmbeddedCluster(path).close()
    storage = Storage(path, 10)
    broken = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        **config_map(
            labels={"version": 2}, finalizers=["a b"], uid="u", generation=1, creationTimestamp="2026-01-01T00:00:00Z"
        ),
    }
    with storage.write_transaction():
        storage.save(EventType.ADDED, Stored("configmaps.", broken, {}))
    storage.close()
    cluster = EmbeddedCluster(path)
    there = cluster.get(CONFIG_MAP, KEY)
    assert there is not None
    there = cluster.remove_finalizer(CONFIG_MAP, there, "a b")
    assert cluster.apply(CONFIG_MAP, config_map(labels={"version": "2"}), "test")["metadata"]["labels"] == {
        "version": "2"
    }
    cluster.delete(CONFIG_MAP, KEY)
    assert cluster.get(CONFIG_MAP, KEY) is None
    cluster.close()
