"""How `v1alpha1` will become `v1beta1`: both served of one schema, nothing converted, then the former left out. Tried on a real API
server with the resource type as it is, in a group of its own."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.cluster.controlplane import ControlPlane
from tests.contract.test_crd_rules import deployment

from penstock.api import VERSION
from penstock.api.crds import crd
from penstock.api.kinds import INFERENCE_DEPLOYMENT
from penstock.api.meta import Manifest

pytestmark = pytest.mark.apiserver

MERGE = "application/merge-patch+json"
KEPT = ("uid", "generation", "resourceVersion", "creationTimestamp")
GROUP, FORMER, NEXT = "trial.penstock.dev", VERSION, "v1beta1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(frozen=True)
class Versions:
    """The trial's resource type, whose versions are changed, and what an API's user does with them."""

    server: ControlPlane
    client: httpx.Client
    namespace: str
    folder: Path

    def serve(self, *names: str) -> None:
        """Serve these versions of one schema, and store the last."""
        made = copy.deepcopy(crd(INFERENCE_DEPLOYMENT))
        (former,) = made["spec"]["versions"]
        made["metadata"]["name"] = f"{INFERENCE_DEPLOYMENT.plural}.{GROUP}"
        made["spec"]["names"] |= {"shortNames": [], "categories": []}
        made["spec"] |= {
            "group": GROUP,
            "versions": [former | {"name": name, "storage": name == names[-1]} for name in names],
        }
        path = self.folder / "crd.json"
        path.write_text(json.dumps(made))
        self.server.serve(path)

    def url(self, version: str, name: str = "", part: str = "") -> str:
        """Where objects are, or one of them."""
        return "/".join(
            each
            for each in (
                f"/apis/{GROUP}/{version}/namespaces/{self.namespace}/{INFERENCE_DEPLOYMENT.plural}",
                name,
                part,
            )
            if each
        )

    def get(self, version: str, part: str = "") -> Manifest:
        """The object as a version shows it."""
        found: Manifest = self.client.get(self.url(version, "rules", part)).raise_for_status().json()
        return found

    def apply(self, manifest: Manifest, version: str) -> None:
        """As Argo CD and kubectl do, server-side."""
        path = self.folder / "object.json"
        path.write_text(json.dumps(manifest | {"apiVersion": f"{GROUP}/{version}", "metadata": {"name": "rules"}}))
        self.server.kubectl("apply", "--server-side", "-n", self.namespace, "-f", str(path))


@pytest.fixture
def versions(api_server: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Versions]:
    with api_server.client() as client:
        yield Versions(api_server, client, namespace, tmp_path)
        # Until it is gone: the next test's would be one that goes.
        api_server.kubectl("delete", "crd", f"{INFERENCE_DEPLOYMENT.plural}.{GROUP}", "--timeout=60s")


STATUS = {"url": "http://gateway/v2/models/rules", "replicas": {"ready": 2}, "selector": "penstock.dev/name=rules"}


def test_objects_of_the_former_version_go_on_under_the_next(versions: Versions) -> None:
    versions.serve(FORMER)
    versions.apply(deployment(replicas=2, scaling={"minReplicas": 2, "maxReplicas": 3}), FORMER)
    versions.client.patch(
        versions.url(FORMER, "rules", "status"), json={"status": STATUS}, headers={"content-type": MERGE}
    ).raise_for_status()
    before = versions.get(FORMER)
    assert before["status"] == STATUS

    versions.serve(FORMER, NEXT)
    now = versions.get(NEXT)
    assert now["apiVersion"] == f"{GROUP}/{NEXT}"
    for part in ("spec", "status"):
        assert now[part] == before[part] == versions.get(FORMER)[part]
    assert [now["metadata"][key] for key in KEPT] == [before["metadata"][key] for key in KEPT], (
        "nobody's watch sees a change"
    )
    assert versions.get(NEXT, "scale") == versions.get(FORMER, "scale")


def test_each_version_is_written_by_itself_and_by_the_same_rules(versions: Versions) -> None:
    versions.serve(FORMER, NEXT)
    versions.apply(deployment(scaling={"minReplicas": 2, "maxReplicas": 3}), FORMER)
    versions.apply(deployment(scaling={"minReplicas": 1}), NEXT)
    assert versions.get(FORMER)["spec"]["scaling"]["maxReplicas"] == 1, "the default: that manager no longer names it"
    for version in (FORMER, NEXT):
        with pytest.raises(AssertionError, match=r"steps: .*rise"):
            versions.apply(deployment(rollout={"steps": [25, 10]}), version)


def test_the_former_version_goes_once_nothing_is_stored_by_it(versions: Versions) -> None:
    versions.serve(FORMER)
    versions.apply(deployment(), FORMER)
    versions.serve(FORMER, NEXT)
    with pytest.raises(AssertionError, match=r"storedVersions.*v1alpha1"):
        versions.serve(NEXT)

    # What Kubernetes' storage version migration does.
    stored = versions.get(NEXT)["spec"]
    versions.client.put(versions.url(NEXT, "rules"), json=versions.get(NEXT)).raise_for_status()
    versions.client.patch(
        f"{CRDS}/{INFERENCE_DEPLOYMENT.plural}.{GROUP}/status",
        json={"status": {"storedVersions": [NEXT]}},
        headers={"content-type": MERGE},
    ).raise_for_status()
    versions.serve(NEXT)
    assert versions.get(NEXT)["spec"] == stored
    assert versions.client.get(versions.url(FORMER)).status_code == 404
