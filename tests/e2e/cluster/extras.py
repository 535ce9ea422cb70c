"""What the tests' release has beside its operators and gateways: a Collector, and a store for what searches find."""

from __future__ import annotations

import dataclasses
import re

from images.catalogue import IMAGES, Image, ImageName
from images.packages import export
from tests.chart.collector import IMAGE, TO_STANDARD_OUTPUT
from tests.chart.helm import NAMESPACE
from tests.cluster.binary import Report
from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import program_archive
from tests.e2e.cluster.installation import ROOT, Object, build_image
from tests.e2e.cluster.model_store import BUCKET, ModelStore

_WITHOUT = ("cuda", "nvidia", "torch", "triton")


def collecting(cluster: Cluster, report: Report) -> Object:
    """Values of a Collector that writes each span to its log; its image is put on the nodes."""
    image = cluster.load_image(program_archive("otelcol", IMAGE, "otelcol", report))
    return {"collector": {"enabled": True, "image": image, "config": TO_STANDARD_OUTPUT}}


def optimizing(cluster: Cluster, store: ModelStore, report: Report) -> Object:
    """Values of an artifact store in the bucket, whose Secret is made, and of a Job's image, which is put on the nodes.

    That is the optimizer's without torch and CUDA, five gigabytes which the tests' search does not use.
    """
    optimizer = build_image(cluster, report, _small_optimizer(), tag="without-torch")
    repository, _, tag = optimizer.rpartition(":")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for each in (
        namespace,
        secret("store-operator", store) | {"metadata": {"name": "store-operator", "namespace": NAMESPACE}},
    ):
        cluster.kubectl("apply", "--server-side", "-f", "-", manifest=each)
    return {
        "images": {"optimizer": {"repository": repository, "tag": tag}},
        "optimization": {
            "artifactStore": f"s3://{BUCKET}/penstock",
            "operatorEnvSecret": "store-operator",
            "jobEnvSecret": "store-writer",
            "replicaSecret": "store-reader",
            # The server of the tests knows one user.
            "sharedStore": True,
            "jobEgress": [f"namespace/{store.namespace}:9000"],
        },
    }


def secret(name: str, store: ModelStore) -> Object:
    """A Secret with the store's credentials."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": store.server.environment}


def _small_optimizer() -> Image:
    image = IMAGES[ImageName.OPTIMIZER]
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==", export(image, ROOT), re.MULTILINE)
    return dataclasses.replace(image, left_out=tuple(name for name in pinned if name.startswith(_WITHOUT)))
