"""Penstock in a cluster as its users have it: images that were built, a chart that was installed, resources applied."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from images.build import Builder, BuildSettings
from images.catalogue import IMAGES, Image, ImageName
from tests.chart.helm import NAMESPACE, helm, package
from tests.cluster.binary import Report, cache_directory
from tests.cluster.cluster import Cluster

RELEASE = "penstock"
GATEWAY = (NAMESPACE, "penstock-gateway", 80)
"""Namespace, name and port of the Service that clients use."""
ROOT = Path(__file__).resolve().parents[3]
_IMAGES = (ImageName.OPERATOR, ImageName.GATEWAY, ImageName.RUNTIME)
_SECONDS = 240.0

Object = dict[str, Any]
_T = TypeVar("_T")


def build_images(cluster: Cluster, report: Report, tag: str | None = None) -> dict[ImageName, str]:
    """Build the images from this checkout, and put them on the cluster's nodes; how pods name each."""
    return {name: build_image(cluster, report, IMAGES[name], tag) for name in _IMAGES}


def build_image(cluster: Cluster, report: Report, image: Image, tag: str | None = None) -> str:
    """Build an image from this checkout, and put it on the cluster's nodes; how pods name it."""
    started = time.monotonic()
    settings = BuildSettings(
        repository=ROOT, cache=cache_directory() / "images", output=cache_directory() / "archives", tag=tag
    )
    archive = Builder(settings).write(image).archive
    found = cluster.load_image(archive)
    archive.unlink()  # its layers are in the cache, and on the nodes
    report(f"{found} is on the nodes ({time.monotonic() - started:.1f} s)")
    return found


@dataclass
class Installation:
    """A release of the chart, and what its users do with it."""

    cluster: Cluster
    images: Mapping[ImageName, str]
    values: Object = field(default_factory=dict)
    """Of the chart, beside the images and small requests."""

    def upgrade(self) -> None:
        """Install the chart as it is packaged, or upgrade the release; returns when all its pods are ready."""
        with tempfile.TemporaryDirectory() as folder:
            self._upgrade(str(package(Path(folder))))

    def _upgrade(self, chart: str) -> None:
        if "inferencedeployments" in self.cluster.kubectl("get", "crd", "-o", "name"):
            # Helm installs CRDs and never upgrades them: this is what the chart's notes say to do.
            kinds = [each for each in yaml.safe_load_all(helm("show", "crds", chart)) if each]
            self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", manifest=kinds)
        helm(
            "upgrade", "--install", RELEASE, chart, "-n", NAMESPACE, "--create-namespace", "--wait",
            "--timeout", "110s", values=_merged(self._values(), self.values), kubeconfig=self.cluster.kubeconfig,
        )  # fmt: skip

    def upgrade_images(self, images: Mapping[ImageName, str]) -> None:
        """Upgrade to another release's images; what is upgraded next has the former ones again."""
        replace(self, images=images).upgrade()

    def roll_back(self) -> None:
        """Go back to what was installed before the last upgrade."""
        helm("rollback", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "110s", kubeconfig=self.cluster.kubeconfig)

    def uninstall(self) -> None:
        """Uninstall the release, whatever is still there; CRDs and what is in them stay."""
        helm("uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--no-hooks", kubeconfig=self.cluster.kubeconfig)

    def _values(self) -> Object:
        """Where images are, and requests that fit a small machine."""
        images: Object = {}
        for name, image in self.images.items():
            repository, _, tag = image.rpartition(":")
            images[str(name)] = {"repository": repository, "tag": tag}
        # What has GPUs here only pretends to.
        images["runtimeGpu"] = images[str(ImageName.RUNTIME)]
        small = {"requests": {"cpu": "20m", "memory": "128Mi", "ephemeral-storage": "16Mi"}}
        return {
            "images": images,
            "operator": {"resources": small},
            "gateway": {"resources": small},
            "defaultPool": {"spec": pool(workerGroups=[_CPU | {"minWorkers": 0}])["spec"]},
        }

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """An object as it is."""
        found: Object = json.loads(self.cluster.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """All objects of a kind in a namespace, with a label where given."""
        labels = ["-l", selector] if selector else []
        found: list[Object] = json.loads(self.cluster.kubectl("get", kind, "-n", namespace, "-o", "json", *labels))[
            "items"
        ]
        return found

    def until_ready(self, kind: str, namespace: str, name: str, seconds: float = _SECONDS) -> Object:
        """Wait until an object is Ready for its present generation, and return it."""

        def ready() -> Object | None:
            found = self.get(kind, namespace, name)
            status = found.get("status", {})
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if current and condition(found, "Ready").get("status") == "True" else None

        try:
            return until(f"{kind} {namespace}/{name} Ready", ready, seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.explain(namespace)}") from None

    def explain(self, namespace: str) -> str:
        """What there is to know of why something in a namespace is not as it should be."""
        kubectl = self.cluster.kubectl
        shown = [
            kubectl("get", "infdep,servingpool,raycluster,pod", "-n", namespace, "-o", "wide", check=False),
            kubectl("get", "infdep,servingpool", "-n", namespace, "-o", "yaml", check=False),
            kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp", check=False)[-6000:],
            kubectl("get", "pod", "-n", NAMESPACE, "-o", "wide", check=False),
            self.cluster.logs(NAMESPACE, "app.kubernetes.io/component=operator")[-6000:],
            self.cluster.logs(namespace, "ray.io/is-ray-node=yes")[-6000:],
        ]
        return "\n---\n".join(shown)


@dataclass(frozen=True)
class Tenant:
    """A namespace with a key to its models."""

    installation: Installation
    namespace: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What its clients send."""
        return {"Authorization": f"Bearer {self.key}"}

    def path(self, model: str) -> str:
        """Where a model answers, behind the gateway."""
        return f"/{self.namespace}/v2/models/{model}/infer"

    def apply(self, *objects: Object) -> None:
        """Apply objects in its namespace."""
        self.installation.cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-n", self.namespace, "-f", "-", manifest=list(objects)
        )


@contextmanager
def tenant(installation: Installation, credentials: Object) -> Iterator[Tenant]:
    """A fresh namespace with a key and the store's credentials; all gone afterwards."""
    key = secrets.token_urlsafe(24)
    with installation.cluster.namespace("tenant") as namespace:
        made = Tenant(installation, namespace, key)
        made.apply(credentials, api_key("test", key))
        try:
            yield made
        finally:
            # Before their namespace: KubeRay clears a pool's Redis by a Job, which no namespace that goes lets it make.
            installation.cluster.kubectl("delete", "infdep,servingpool", "--all", "-n", namespace, "--timeout=120s")
            until("no Ray cluster is left", lambda: not installation.list("raycluster", namespace) or None, 120)


def api_key(name: str, key: str) -> Object:
    """The object that lets callers with a key in."""
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "APIKey",
        "metadata": {"name": name},
        "spec": {"sha256": hashlib.sha256(key.encode()).hexdigest()},
    }


def pool(**managed: Any) -> Object:
    """The namespace's default pool, with small workers that are there at once."""
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "default"},
        "spec": {"managed": _SMALL | {"workerGroups": [_CPU]} | managed},
    }


_SMALL: Object = {
    "head": {"cpu": "200m", "memory": "2Gi"},
    "cache": {"maxBytes": "1Gi"},
    # Many pools share two nodes, whose disk may be no more than the tests' machine has.
    "podTemplate": {"spec": {"volumes": [{"name": "temporary", "emptyDir": {"sizeLimit": "1Gi"}}]}},
}
_CPU: Object = {"name": "cpu", "cpu": "400m", "memory": "1Gi", "minWorkers": 1, "maxWorkers": 3}


def deployment(name: str, uri: str, **spec: Any) -> Object:
    """An InferenceDeployment of an ONNX model in the store."""
    model = {"storageUri": uri, "modelFormat": "onnx", "credentialsSecretRef": {"name": "model-credentials"}}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, "resources": {"cpu": "100m", "memory": "256Mi"}} | spec,
    }


def condition(found: Object, kind: str) -> Object:
    """One of an object's conditions; empty while it has none."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def until(what: str, look: Callable[[], _T | None], seconds: float = _SECONDS, pause: float = 0.3) -> _T:
    """Wait until `look` gives something true.

    Raises:
        TimeoutError: it did not within the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


def _merged(base: Object, over: Object) -> Object:
    found = dict(base)
    for key, value in over.items():
        present = found.get(key)
        found[key] = _merged(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return found
